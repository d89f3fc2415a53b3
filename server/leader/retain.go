package leader

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// reapPause gathers runs that end one after the other into one look at retention.
	reapPause = time.Second
	// stonesFor is how long a tombstone stays at least, so that a node that was away
	// for less hears of the deletion when it comes back.
	stonesFor = 24 * time.Hour
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
	told := map[sheaf.RunID]map[sheaf.NodeID]bool{}
	for {
		next, err := t.retain(ctx, told)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Logger.Error("delete old runs", "error", err)
			next = retryPause
		}
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
		case <-t.reap:
			if !pause(ctx, reapPause) {
				return ctx.Err()
			}
		}
	}
}

// retain does what is due, and says when the next will be; 0 is when something happens.
func (t *Term) retain(ctx context.Context, told map[sheaf.RunID]map[sheaf.NodeID]bool) (next time.Duration, err error) {
	snap := t.Store.Snapshot()
	var over []*state.Run
	for r := range snap.Runs() {
		if r.Status.Terminal() {
			over = append(over, r)
		}
	}
	slices.SortFunc(over, func(a, b *state.Run) int { // the newest first
		return cmp.Or(cmp.Compare(b.EndedMs, a.EndedMs), cmp.Compare(b.Created, a.Created))
	})
	now := t.clock.nowMs()
	for i, r := range over {
		age := time.Duration(now-r.EndedMs) * time.Millisecond
		if i < t.KeepRuns && age < t.KeepFor {
			next = sooner(next, t.KeepFor-age)
			continue
		}
		if _, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: string(r.ID)}}}); err != nil && sheaf.ClassOf(err) != sheaf.Conflict {
			return 0, err
		}
		t.Logger.Info("deleted an old run", "run", r.ID, "ended", time.UnixMilli(r.EndedMs).UTC())
	}
	return t.buryAll(ctx, told, next)
}

// buryAll tells every node of each deletion, and removes tombstones that are old
// and of which every ready node was told.
func (t *Term) buryAll(ctx context.Context, told map[sheaf.RunID]map[sheaf.NodeID]bool, next time.Duration) (time.Duration, error) {
	snap := t.Store.Snapshot()
	now := t.clock.nowMs()
	var gone []string
	for stone := range snap.Tombstones() {
		if told[stone.Run] == nil {
			told[stone.Run] = map[sheaf.NodeID]bool{}
		}
		all := true
		for n := range snap.Nodes() {
			if !told[stone.Run][n.ID] && n.Status == sheaf.NodeReady {
				// One that connects later hears of it from its session's beginning.
				told[stone.Run][n.ID] = t.hub.DeleteOutputs(n.ID, stone.Run)
				all = all && told[stone.Run][n.ID]
			}
		}
		left := stonesFor - time.Duration(now-stone.DeletedMs)*time.Millisecond
		if left > 0 {
			next = sooner(next, left)
		} else if all && len(gone) < reapAtOnce {
			gone = append(gone, string(stone.Run))
			delete(told, stone.Run)
		}
	}
	if len(gone) == 0 {
		return next, nil
	}
	if len(gone) == reapAtOnce {
		poke(t.reap)
	}
	_, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_ReapRuns{ReapRuns: &fsm.ReapRuns{Runs: gone}}})
	return next, err
}

// sooner is the lesser of two waits, of which 0 is for ever.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// keepOutputs has outputs made again that a merge needs and that lie only on nodes
// that have been gone for too long.
func (t *Term) keepOutputs(ctx context.Context) error {
	for {
		next, err := t.remake(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Logger.Error("have lost outputs made again", "error", err)
			next = retryPause
		}
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
		case <-t.outputs:
		}
	}
}

func (t *Term) remake(ctx context.Context) (next time.Duration, err error) {
	snap := t.Store.Snapshot()
	now := t.clock.nowMs()
	for r := range snap.LiveRuns() {
		if r.Status != sheaf.RunMerging || r.Merge.Done || r.Partitions == nil {
			continue
		}
		for _, c := range r.NodeCounts() {
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
