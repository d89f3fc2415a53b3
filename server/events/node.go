package events

import (
	stdtime "time"

	"github.com/sheaf-run/agent/server/fsm"
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
	switch was, is := draining(before), draining(after); {
	case is && (!was || !sameTime(before.Drain.Deadline, after.Drain.Deadline)):
		tell("NodeDraining")
	case was && !is && after.Drain != nil:
		tell("NodeDrained")
	case was && !is:
		tell("NodeDrainCancelled")
	}
	if after.Eligible != before.Eligible {
		if after.Eligible {
			tell("NodeEligible")
		} else {
			tell("NodeIneligible")
		}
	}
}

// told tells what the leader has seen of a client.
func (d *derived) told(c *fsm.ChangeNode) {
	n, tell := d.after.Node(sheaf.NodeID(c.Node)), c.GetTell()
	if n == nil || tell == nil {
		return
	}
	e := sheaf.Event{Topic: sheaf.TopicNode, Type: "NodeRecovered", Key: string(n.ID), Node: n.ID, Status: string(n.Status), Reason: tell.Reason}
	if tell.Avoided {
		e.Type = "NodeAvoided"
	}
	d.add(e)
}

// draining reports whether a node is being emptied.
func draining(n *state.Node) bool { return n.Drain != nil && n.Drain.Done == nil }

func sameTime(a, b *stdtime.Time) bool {
	return a == b || a != nil && b != nil && a.Equal(*b)
}
