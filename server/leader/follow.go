package leader

import (
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/broker"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// follow sets off what an applied command calls for: evaluations of the runs it
// touched, the ending of executions that it made invalid, deadlines. The
// log has one writer while this server leads, so that looking at its commands is enough:
// nothing polls the state.
//
// live are the runs that were live before a command that may end any of them.
func (t *Term) follow(c *fsm.Command, reply fsm.Reply, live []sheaf.RunID) {
	if reply.Err != nil {
		return
	}
	defer t.drains.poke()
	snap := t.Store.Snapshot()
	for _, id := range live {
		if r := snap.Run(id); r == nil || r.Status.Terminal() {
			t.runChanged(id)
		}
	}
	for _, id := range reply.Freed {
		t.runChanged(id)
	}
	switch b := c.Body.(type) {
	case *fsm.Command_RegisterJob:
		t.runChanged(sheaf.RunID(b.RegisterJob.Run))
	case *fsm.Command_CommitPartitions:
		var seen []string
		for _, r := range b.CommitPartitions.Results {
			if !slices.Contains(seen, r.Run) {
				seen = append(seen, r.Run)
				t.runChanged(sheaf.RunID(r.Run))
			}
		}
	case *fsm.Command_SealManifest:
		t.runChanged(sheaf.RunID(b.SealManifest.Seal.GetRun()))
	case *fsm.Command_SealResult:
		t.runChanged(sheaf.RunID(b.SealResult.Request.GetRun()))
	case *fsm.Command_ChangeRun:
		id := sheaf.RunID(b.ChangeRun.Run)
		t.hub.RunChanged(id)
		t.runChanged(id)
		t.back.add(id)
	case *fsm.Command_RetryRun:
		t.runChanged(sheaf.RunID(b.RetryRun.Run))
		t.gaveUp(sheaf.RunID(b.RetryRun.Run))
	case *fsm.Command_InvalidateOutput:
		t.runChanged(sheaf.RunID(b.InvalidateOutput.Outputs.GetRun()))
		t.gaveUp(sheaf.RunID(b.InvalidateOutput.Outputs.GetRun()))
	case *fsm.Command_AdoptOutputs:
		t.runChanged(sheaf.RunID(b.AdoptOutputs.Run))
	case *fsm.Command_NoteConflict:
		t.runChanged(sheaf.RunID(b.NoteConflict.Run))
	case *fsm.Command_NodePrepareFailed:
		if !b.NodePrepareFailed.Invalid {
			t.track.unprepared(sheaf.RunID(b.NodePrepareFailed.Run), sheaf.NodeID(b.NodePrepareFailed.Node), time.Now())
			poke(t.blames)
		}
		t.runChanged(sheaf.RunID(b.NodePrepareFailed.Run))
	case *fsm.Command_CancelRun:
		t.runChanged(sheaf.RunID(b.CancelRun.Run))
	case *fsm.Command_DeleteRun:
		for _, id := range append([]string{b.DeleteRun.Run}, b.DeleteRun.More...) {
			if stone := snap.Tombstone(sheaf.RunID(id)); stone != nil {
				t.history.bury(stone)
				t.runChanged(stone.Run)
			}
		}
	case *fsm.Command_WriteNamespace:
		if b.WriteNamespace.Delete { // runs that were over went with it
			for stone := range snap.Tombstones() {
				t.history.bury(stone)
			}
			poke(t.reap)
		}
	case *fsm.Command_Release:
		if b.Release.Reconciled {
			if len(b.Release.Lost) > 0 {
				t.track.gone(sheaf.NodeID(b.Release.Node), time.Now())
				poke(t.blames)
			}
			t.nodesChanged()
		}
		for _, list := range [][]*wire.Executions{b.Release.Free, b.Release.Lost} {
			for _, e := range list {
				t.runChanged(sheaf.RunID(e.Run))
			}
		}
	case *fsm.Command_ApplyPlan:
		for _, p := range b.ApplyPlan.Placements {
			if p.Backup {
				if r := snap.Run(sheaf.RunID(p.Run)); r != nil {
					t.tails.fewer(r)
				}
			}
			if r := t.Store.Snapshot().Run(sheaf.RunID(p.Run)); r != nil {
				t.noteDeadline(r)
			}
		}
	case *fsm.Command_ChangeNode:
		if b.ChangeNode.GetTell() != nil {
			return
		}
		t.nodesChanged()
		poke(t.drains.wake)
	case *fsm.Command_RegisterNode, *fsm.Command_SetNodeEligibility, *fsm.Command_NodeLost, *fsm.Command_AdvanceTime:
		t.nodesChanged()
	}
}

// mayEndAny gives the live runs where a command names none and may end them.
func (t *Term) mayEndAny(c *fsm.Command) []sheaf.RunID {
	switch c.Body.(type) {
	case *fsm.Command_AdvanceTime, *fsm.Command_NodeLost:
	default:
		return nil
	}
	var live []sheaf.RunID
	for r := range t.Store.Snapshot().LiveRuns() {
		live = append(live, r.ID)
	}
	return live
}

// runChanged sets off what a run calls for as it now is.
func (t *Term) runChanged(id sheaf.RunID) {
	r := t.Store.Snapshot().Run(id)
	if r == nil {
		t.broker.Forget(id)
		t.tails.forget(id)
		t.track.forget(id)
		t.hub.CheckKills()
		poke(t.reap)
		return
	}
	t.look(r)
}

// nodesChanged looks at every live run again: which can be placed may be others now.
func (t *Term) nodesChanged() {
	for r := range t.Store.Snapshot().LiveRuns() {
		t.look(r)
	}
	poke(t.outputs)
}

func (t *Term) look(r *state.Run) {
	t.conflicts.changed(r)
	if r.Status.Terminal() {
		t.history.add(r)
		t.tails.forget(r.ID)
		t.broker.Forget(r.ID)
		t.track.forget(r.ID)
		t.hub.RunOver(r.ID)
		poke(t.reap)
		return
	}
	t.history.again(r.ID)
	if t.tails.fewer(r) || r.Masked() {
		t.hub.CheckKills()
	}
	if r.Status == sheaf.RunMerging || r.Status == sheaf.RunReducing {
		poke(t.outputs)
	}
	if r.Reuse.Waits {
		poke(t.compares)
	}
	t.noteDeadline(r)
	need := r.Need(t.clock.nowMs())
	share := shareOf(r)
	if need.Split || need.Merge || need.Reduce || need.Ready > 0 {
		t.broker.Enqueue(r.ID, share)
	} else if need.NextMs > 0 {
		t.broker.EnqueueAfter(r.ID, share, t.clock.until(need.NextMs))
	}
	if need.Ready == 0 && r.UnderWay() > 0 {
		t.tails.add(r)
	}
}

func shareOf(r *state.Run) broker.Share {
	return broker.Share{Namespace: r.Job.Namespace, Priority: r.Priority()}
}

// noteDeadline wakes the timekeeper when a run's deadline is the next.
func (t *Term) noteDeadline(r *state.Run) {
	if r.DeadlineMs == 0 || r.Masked() {
		return
	}
	for {
		next := t.nextDeadline.Load()
		if next != 0 && next <= r.DeadlineMs {
			return
		}
		if t.nextDeadline.CompareAndSwap(next, r.DeadlineMs) {
			poke(t.deadlines)
			return
		}
	}
}

// poke wakes a loop that waits on a channel of size 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
