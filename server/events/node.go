package events

import (
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// node tells of a client's life.
func (d *derived) node(before, after *state.Node) {
	event := func(n *state.Node, what string) sheaf.Event {
		return sheaf.Event{Topic: sheaf.TopicNode, Type: what, Key: string(n.ID), Node: n.ID, Status: string(n.Status), Reason: n.Name}
	}
	if after == nil {
		d.add(event(before, "NodeForgotten"))
		return
	}
	if before == nil {
		d.add(event(after, "NodeRegistered"))
		return
	}
	e := event(after, "")
	e.Was = string(before.Status)
	tell := func(what string) {
		e.Type = what
		d.add(e)
	}
	if after.Session != before.Session {
		tell("NodeRegistered")
	}
	if after.Status != before.Status && after.Status == sheaf.NodeDown {
		tell("NodeLost")
	}
	if after.Eligible != before.Eligible {
		if after.Eligible {
			tell("NodeEligible")
		} else {
			tell("NodeIneligible")
		}
	}
}
