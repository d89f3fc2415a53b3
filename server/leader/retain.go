package leader

import (
	"context"
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// reapPause is the least time between two looks at retention: runs that end one after the other are gathered into one.
	reapPause = time.Second
	// stonesFor is how long a tombstone stays at least: a submission that is
	// repeated for as long is not taken for a new run.
	stonesFor = 10 * time.Minute
	// deleteAtOnce is how many runs one command deletes: with names of 64 bytes half
	// of what a command may hold.
	deleteAtOnce = 500
	// reapAtOnce is how many tombstones one command removes; names of 64 bytes, it stays
	// well below the limit of a command.
	reapAtOnce = 500
	// rangesAtOnce is how many ranges of outputs one command names: three varints each.
	rangesAtOnce = 2048
)

// keepRetention deletes runs that have been over for long enough, tells the
// nodes, and removes tombstones that nobody needs any more. It looks when a run ends, when
// one is deleted, and when the next grows too old.
func (t *Term) keepRetention(ctx context.Context) error {
	return t.again(ctx, "delete old runs", t.reap, func(ctx context.Context) (time.Duration, error) {
		next, err := t.retain(ctx)
		pause(ctx, reapPause)
		return next, err
	})
}

// retain does what is due, and says when the next will be; 0 is when something happens.
func (t *Term) retain(ctx context.Context) (next time.Duration, err error) {
	for {
		var runs []sheaf.RunID
		if runs, next = t.history.due(t.clock.nowMs(), t.KeepRuns, t.KeepFor, t.KeepLeast, deleteAtOnce); len(runs) == 0 {
			break
		}
		if err := t.deleteRuns(ctx, runs, "retention"); err != nil {
			return 0, err
		}
	}
	if err := t.relieve(ctx); err != nil {
		return 0, err
	}
	t.tellDeleted()
	for {
		gone, wait := t.history.forgotten(t.clock.nowMs(), stonesFor, reapAtOnce)
		next = sooner(next, wait)
		if len(gone) == 0 {
			return next, nil
		}
		if _, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_ReapRuns{ReapRuns: &fsm.ReapRuns{Runs: gone}}}); err != nil {
			return 0, err
		}
	}
}

// deleteRuns deletes runs that are over, and that history has let go of, with one entry. Those that were
// retried or deleted meanwhile are passed over. What is there afterwards, since the log refused it or since it
// is held by now, history has again.
func (t *Term) deleteRuns(ctx context.Context, runs []sheaf.RunID, why string) error {
	snap := t.Store.Snapshot()
	c := &fsm.DeleteRun{}
	free, held := snap.Deletable(runs)
	t.history.hold(held, func(id sheaf.RunID) int64 { return snap.Run(id).EndedMs })
	for _, id := range free {
		if c.Run == "" {
			c.Run = string(id)
		} else {
			c.More = append(c.More, string(id))
		}
	}
	if c.Run == "" {
		return nil
	}
	_, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: c}})
	deleted := 0
	for snap, i := t.Store.Snapshot(), 0; i < len(free); i++ {
		switch r := snap.Run(free[i]); {
		case r == nil:
			deleted++
		case r.Status.Terminal():
			t.history.add(r)
		}
	}
	if class := sheaf.ClassOf(err); err != nil && class != sheaf.Conflict && class != sheaf.NotFound {
		return err
	}
	t.Logger.Info("deleted old runs", "runs", deleted, "first", c.Run, "why", why)
	return nil
}

// tellDeleted tells every node of new deletions. One that is not connected says
// with its next session what it keeps, and hears then what of it is deleted.
func (t *Term) tellDeleted() {
	graves := t.history.untold()
	if len(graves) == 0 {
		return
	}
	snap := t.Store.Snapshot()
	for _, g := range graves {
		waits := map[sheaf.NodeID]bool{}
		t.history.told(g, waits)
		for n := range snap.Nodes() {
			if n.Status == sheaf.NodeReady && t.history.tell(g, n.ID) && !t.hub.DeleteOutputs(n.ID, g.run, g.unpublished) {
				t.history.confirmed(n.ID, []string{string(g.run)})
			}
		}
	}
}

// Deleted implements rpc.Observer.
func (t *Term) Deleted(node sheaf.NodeID, runs []string) {
	t.history.confirmed(node, runs)
	poke(t.reap)
}

// keepOutputs has outputs made again that a merge needs and that lie only on nodes
// that have been gone for too long.
func (t *Term) keepOutputs(ctx context.Context) error {
	return t.again(ctx, "have lost outputs made again", t.outputs, t.remake)
}

func (t *Term) remake(ctx context.Context) (next time.Duration, err error) {
	snap := t.Store.Snapshot()
	now := t.clock.nowMs()
	for r := range snap.LiveRuns() {
		if r.Status != sheaf.RunMerging && r.Status != sheaf.RunReducing || r.Merge.Done || r.Result.Publishing || r.Partitions == nil {
			continue
		}
		err := t.remakeReused(ctx, snap, r, func(n *state.Node) bool {
			left := t.OutputsGrace - time.Duration(now-n.LostMs)*time.Millisecond
			if left > 0 {
				next = sooner(next, left)
			}
			return left > 0
		})
		if err != nil {
			return 0, err
		}
		holds := r.NodeCounts()
		if r.Reduce.Done { // in no partition's count
			holds = append(slices.Clone(holds), table.NodeCount{Node: r.Reduce.Node, Committed: 1})
		}
		for _, c := range holds {
			n := snap.NodeByNumber(c.Node)
			if c.Committed == 0 || n != nil && n.Status != sheaf.NodeDown {
				continue
			}
			why := "its node was forgotten"
			if n != nil {
				if left := t.OutputsGrace - time.Duration(now-n.LostMs)*time.Millisecond; left > 0 {
					next = sooner(next, left)
					continue
				}
				why = "node " + string(n.ID) + " is gone"
			}
			if err := t.invalidate(ctx, r, c.Node, why); err != nil {
				return 0, err
			}
		}
	}
	return next, nil
}

// invalidate names all that a run has committed on a node, in as many commands as it takes.
func (t *Term) invalidate(ctx context.Context, r *state.Run, node uint32, why string) error {
	e := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
	flush := func() error {
		if len(e.First) == 0 {
			return nil
		}
		c := &fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: e, Reason: why}}}
		e = &wire.Executions{Run: string(r.ID), Generation: r.Generation}
		_, err := t.apply(ctx, c)
		if class := sheaf.ClassOf(err); err != nil && (class == sheaf.Conflict || class == sheaf.NotFound) {
			return nil // sealed or gone meanwhile
		}
		return err
	}
	if r.Reduce.Done && r.Reduce.Node == node && r.Partitions.OnNode(node).Committed == 0 {
		state.AppendExecution(e, r.Partitions.Len(), r.Reduce.Attempt)
	} // else it is made again with the others
	for p, row := range r.Partitions.Held(sheaf.PartitionSucceeded, node) {
		state.AppendExecution(e, p, row.Attempt)
		if len(e.First) == rangesAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
