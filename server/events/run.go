package events

import (
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// of is an event about a run.
func ofRun(r *state.Run, topic sheaf.Topic, what string) sheaf.Event {
	return sheaf.Event{
		Topic: topic, Type: what, Key: string(r.ID), Namespace: r.Job.Namespace, Job: r.Job.Name,
		Generation: int(r.Generation), Status: string(r.Status),
	}
}

// run tells of a run's life. What happens to its partitions is told by command.
func (d *derived) run(before, after *state.Run) {
	switch {
	case before == nil:
		e := ofRun(after, sheaf.TopicRun, "RunRegistered")
		e.Count = after.Counts().Total
		d.add(e)
		return
	case after == nil:
		d.add(ofRun(before, sheaf.TopicRun, "RunDeleted"))
		return
	}
	if after.Generation != before.Generation {
		e := ofRun(after, sheaf.TopicRun, "RunRetried")
		e.Was = string(before.Status)
		d.add(e)
	} else if after.Status != before.Status {
		e := ofRun(after, sheaf.TopicRun, "RunStatusChanged")
		e.Was, e.Reason = string(before.Status), after.Error
		d.add(e)
	}
	if before.Partitions == nil && after.Partitions != nil {
		e := ofRun(after, sheaf.TopicRun, "RunSplit")
		e.Count = after.Partitions.Len()
		d.add(e)
	}
	if before.Stop == state.StopNone && after.Stop != state.StopNone && !after.Status.Terminal() {
		e := ofRun(after, sheaf.TopicRun, "RunStopping")
		e.Reason = after.Error
		d.add(e)
	}
	if after.Conflict != nil && after.Conflict != before.Conflict {
		e := ofRun(after, sheaf.TopicRun, "RunConflict")
		e.Reason = after.Conflict.Of(after.Job).Message
		e.Partitions = e.Partitions.Add(after.Conflict.Between[0]).Add(after.Conflict.Between[1])
		e.Count = 2
		d.add(e)
	}
	if was, is := before.Adjusted, after.Adjusted; was.Held != is.Held {
		what := "RunReleased"
		if is.Held {
			what = "RunHeld"
		}
		d.add(ofRun(after, sheaf.TopicRun, what))
	} else if was != is {
		d.add(ofRun(after, sheaf.TopicRun, "RunAdjusted"))
	}
	if after.Image != before.Image {
		e := ofRun(after, sheaf.TopicRun, "RunImageResolved")
		e.Reason = after.Image
		d.add(e)
	}
	d.prepare(before, after)
}

// prepare tells of nodes on which a run could not be made ready.
func (d *derived) prepare(before, after *state.Run) {
	was := map[uint32]uint32{}
	for _, m := range before.Prepare {
		was[m.Node] = m.Tries
	}
	for _, m := range after.Prepare {
		if m.Tries <= was[m.Node] {
			continue
		}
		e := ofRun(after, sheaf.TopicRun, "RunPrepareFailed")
		e.Node, e.Reason = d.nodeID(m.Node), m.Error
		d.add(e)
	}
}

func (d *derived) nodeID(number uint32) sheaf.NodeID {
	if n := d.after.NodeByNumber(number); n != nil {
		return n.ID
	}
	return ""
}
