package leader

import (
	"context"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/reuse"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// adoptAtOnce is how many partitions one command takes over: each is looked at, and the log's one writer does
// nothing else meanwhile.
const adoptAtOnce = 1 << 17

// keepReuse compares runs that were just split with earlier ones of their job, and has taken
// over what is the same.
func (t *Term) keepReuse(ctx context.Context) error {
	for {
		for r := range t.Store.Snapshot().LiveRuns() {
			if !r.Reuse.Waits || r.Masked() {
				continue
			}
			if err := t.takeOver(ctx, r); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				t.Logger.Error("take over outputs of earlier runs", "run", r.ID, "error", err)
				if !pause(ctx, retryPause) {
					return ctx.Err()
				}
				poke(t.compares)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.compares:
		}
	}
}

// takeOver compares one run. What cannot be compared runs; an error is of the log.
func (t *Term) takeOver(ctx context.Context, r *state.Run) error {
	a := &adoption{term: t, run: r}
	var failed error // of the log
	err := reuse.Compare(ctx, t.Store, t.Store.Snapshot(), r, func(found []reuse.Match) error {
		for _, m := range found {
			if failed = a.add(ctx, m); failed != nil {
				return failed
			}
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		t.Logger.Error("a run is not compared further: the rest of it runs", "run", r.ID, "error", err)
	}
	if err := a.flush(ctx, true); err != nil {
		return err
	}
	t.Logger.Info("run compared with earlier ones", "run", r.ID, "partitions", r.Manifest.Partitions, "taken over", a.taken)
	return nil
}

// adoption gathers matches into commands.
type adoption struct {
	term       *Term
	run        *state.Run
	sources    []*fsm.AdoptOutputs_Source
	ranges     int
	partitions uint32
	taken      int
}

func (a *adoption) add(ctx context.Context, m reuse.Match) error {
	for m.Count > 0 {
		n := min(m.Count, adoptAtOnce-a.partitions)
		at := slices.IndexFunc(a.sources, func(s *fsm.AdoptOutputs_Source) bool { return s.Run == string(m.Source.ID) })
		if at < 0 {
			at = len(a.sources)
			a.sources = append(a.sources, &fsm.AdoptOutputs_Source{Run: string(m.Source.ID)})
		}
		s := a.sources[at]
		s.First, s.Count, s.MadeAs = append(s.First, m.First), append(s.Count, n), append(s.MadeAs, m.MadeAs)
		a.ranges++
		a.partitions += n
		m.First, m.MadeAs, m.Count = m.First+n, m.MadeAs+n, m.Count-n
		if a.ranges >= rangesAtOnce || a.partitions >= adoptAtOnce {
			if err := a.flush(ctx, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *adoption) flush(ctx context.Context, done bool) error {
	c := &fsm.AdoptOutputs{Run: string(a.run.ID), SplitAttempt: a.run.Manifest.Attempt, Sources: a.sources, Done: done}
	a.sources, a.ranges, a.partitions = nil, 0, 0
	reply, err := a.term.apply(ctx, &fsm.Command{Body: &fsm.Command_AdoptOutputs{AdoptOutputs: c}})
	if class := sheaf.ClassOf(err); err != nil && (class == sheaf.NotFound || class == sheaf.Conflict) {
		return nil // deleted, or split anew, meanwhile
	}
	a.taken += reply.Adopted
	return err
}

// gaveUp looks at the runs that have outputs of one that may have given some up.
func (t *Term) gaveUp(id sheaf.RunID) {
	poke(t.outputs)
	snap := t.Store.Snapshot()
	r := snap.Run(id)
	if r == nil {
		return
	}
	t.conflicts.begin(r)
	if !r.Job.Reuse {
		return
	}
	t.hub.CheckKills()
	for x := range snap.LiveRuns() {
		if slices.Contains(x.Reuse.Makers, id) {
			t.conflicts.begin(x)
			t.look(x)
		}
	}
}

// remakeReused has outputs made again that a merge needs and that were taken over from a run which has
// them no more, or whose nodes have been gone for too long.
func (t *Term) remakeReused(ctx context.Context, snap *state.Snapshot, r *state.Run, left func(*state.Node) (wait bool)) error {
	e := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
	for i, m := range snap.UnreachedReused(r) {
		if m.Run != nil && m.Row.State == sheaf.PartitionSucceeded && !m.Run.Lost.Contains(m.Partition) {
			if n := snap.NodeByNumber(m.Row.Node); n != nil && left(n) {
				continue
			}
		}
		state.AppendExecution(e, i, 0)
		if len(e.First) == rangesAtOnce {
			break // the rest when these are given up
		}
	}
	if len(e.First) == 0 {
		return nil
	}
	_, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: e, Reason: "who made them has them no more"}}})
	if class := sheaf.ClassOf(err); err != nil && (class == sheaf.Conflict || class == sheaf.NotFound) {
		return nil // sealed or gone meanwhile
	}
	return err
}
