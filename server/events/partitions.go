package events

import (
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// maxRanges is how many ranges of partitions an event names; its count is of all.
// What a client reports at once is mostly a few ranges, and a reader who needs each asks for the partitions.
const maxRanges = 64

// command tells what an entry did to partitions, in one event a run, node and outcome, however
// many they are.
func (d *derived) command(a fsm.Applied) {
	switch c := a.Command.Body.(type) {
	case *fsm.Command_ApplyPlan:
		for i, p := range c.ApplyPlan.Placements {
			if placed := a.Reply.Placed[i].Executions; placed != nil {
				what := "PartitionsPlaced"
				if p.Backup {
					what = "BackupsPlaced"
				}
				d.executions(what, placed, sheaf.NodeID(p.Node), "")
			}
		}
	case *fsm.Command_CommitPartitions:
		for i, r := range c.CommitPartitions.Results {
			d.results(r, a.Reply.Answers[i])
		}
	case *fsm.Command_Release:
		for _, e := range a.Reply.Ended {
			d.executions("PartitionsReleased", e, sheaf.NodeID(c.Release.Node), "")
		}
	case *fsm.Command_NodePrepareFailed:
		for _, e := range a.Reply.Ended {
			d.executions("PartitionsReleased", e, sheaf.NodeID(c.NodePrepareFailed.Node), c.NodePrepareFailed.Error)
		}
	case *fsm.Command_MoveOutputs:
		if a.Reply.Moved > 0 && len(c.MoveOutputs.Outputs.GetFirst()) > 0 {
			d.executions("OutputsMoved", c.MoveOutputs.Outputs, sheaf.NodeID(c.MoveOutputs.To), "from node "+c.MoveOutputs.From)
		}
	case *fsm.Command_AdoptOutputs:
		if r := d.after.Run(sheaf.RunID(c.AdoptOutputs.Run)); r != nil && a.Reply.Adopted > 0 {
			event := ofRun(r, sheaf.TopicPartition, "PartitionsReused")
			event.Count = a.Reply.Adopted
			d.add(event)
		}
	case *fsm.Command_ChangeNode:
		d.told(c.ChangeNode)
	case *fsm.Command_SetOperator:
		d.add(sheaf.Event{Topic: sheaf.TopicOperator, Type: "OperatorSettingsChanged", Key: "autopilot"})
	case *fsm.Command_InvalidateOutput:
		if a.Reply.Partitions > 0 {
			d.executions("OutputsLost", c.InvalidateOutput.Outputs, "", c.InvalidateOutput.Reason)
		}
	}
}

// wholes are the types of events of splits, merges and reduces where those of partitions have others.
var wholes = map[wire.Kind]map[string]string{
	wire.Kind_KIND_SPLIT: {"PartitionsPlaced": "SplitPlaced", "PartitionsReleased": "SplitReleased", "AttemptsFailed": "SplitFailed", "AttemptsLost": "SplitLost"},
	wire.Kind_KIND_MERGE: {"PartitionsPlaced": "MergePlaced", "PartitionsReleased": "MergeReleased", "AttemptsFailed": "MergeFailed", "AttemptsLost": "MergeLost"},
	wire.Kind_KIND_REDUCE: {
		"PartitionsPlaced": "ReducePlaced", "PartitionsReleased": "ReduceReleased", "AttemptsFailed": "ReduceFailed", "AttemptsLost": "ReduceLost",
		"PartitionsSucceeded": "ReduceSucceeded",
	},
}

// executions is one event about ranges of a run's executions on a node.
func (d *derived) executions(what string, e *wire.Executions, node sheaf.NodeID, why string) {
	r := d.after.Run(sheaf.RunID(e.Run))
	if r == nil {
		return
	}
	event := ofRun(r, sheaf.TopicPartition, what)
	event.Node, event.Reason = node, why
	if e.Kind != wire.Kind_KIND_PARTITION {
		event.Topic, event.Type = sheaf.TopicRun, wholes[e.Kind][what]
		if event.Type != "" {
			d.add(event)
		}
		return
	}
	var all sheaf.Ranges
	for i, first := range e.First {
		event.Count += int(e.Count[i])
		all = append(all, sheaf.Range{First: int(first), Last: int(first) + int(e.Count[i]) - 1})
	}
	d.addRanges(event, all)
}

// outcomes are the types of events of results, by what became of them.
var outcomes = [...]struct {
	what    string
	verdict wire.Verdict
	outcome sheaf.Outcome // OutcomeSucceeded stands for any where committed
}{
	{"PartitionsSucceeded", wire.Verdict_VERDICT_COMMITTED, 0},
	{"AttemptsFailed", wire.Verdict_VERDICT_RECORDED, sheaf.OutcomeFailed},
	{"AttemptsLost", wire.Verdict_VERDICT_RECORDED, sheaf.OutcomeLost},
}

// results tells what became of a node's results of a run. What was superseded, or
// said before, has had its event.
func (d *derived) results(x *wire.Results, a *wire.Answers) {
	r := d.after.Run(sheaf.RunID(x.Run))
	if r == nil || len(a.Verdict) != len(x.Outcome) {
		return
	}
	for _, o := range outcomes {
		event := ofRun(r, sheaf.TopicPartition, o.what)
		event.Node = sheaf.NodeID(x.Node)
		var all sheaf.Ranges
		for i, v := range a.Verdict {
			if wire.Verdict(v) != o.verdict || o.outcome != 0 && sheaf.Outcome(x.Outcome[i]) != o.outcome {
				continue
			}
			if event.Count == 0 && o.outcome != 0 {
				event.Reason = reason(x, i)
			}
			event.Count++
			p := int(x.Partition[i])
			if n := len(all); n > 0 && all[n-1].Last+1 == p {
				all[n-1].Last = p
			} else {
				all = append(all, sheaf.Range{First: p, Last: p})
			}
		}
		switch {
		case event.Count == 0:
		case x.Kind != wire.Kind_KIND_PARTITION:
			event.Topic, event.Type, event.Count = sheaf.TopicRun, wholes[x.Kind][o.what], 0
			if event.Type != "" {
				d.add(event)
			}
		default:
			d.addRanges(event, all)
		}
	}
}

// reason is the message of the first item that has one, from i on.
func reason(x *wire.Results, i int) string {
	for _, t := range x.Text {
		if int(t.Item) >= i {
			return t.Message
		}
	}
	return ""
}

// addRanges adds an event about partitions, which may be in any order.
func (d *derived) addRanges(e sheaf.Event, all sheaf.Ranges) {
	slices.SortFunc(all, func(a, b sheaf.Range) int { return a.First - b.First })
	joined := all[:0]
	for _, x := range all {
		if n := len(joined); n > 0 && x.First <= joined[n-1].Last+1 {
			joined[n-1].Last = max(joined[n-1].Last, x.Last)
			continue
		}
		if len(joined) == maxRanges {
			e.More = true
			break
		}
		joined = append(joined, x)
	}
	e.Partitions = slices.Clip(joined)
	d.add(e)
}
