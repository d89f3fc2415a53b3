package fsm

import (
	"slices"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

var pending = table.Set(sheaf.PartitionPending)

// adoptOutputs takes over what earlier runs made of equal shards. That the shards are equal
// is the leader's to know, who has compared the manifests; all else is looked at here, at the
// moment at which it counts. It says how many it took over.
func (s *step) adoptOutputs(c *AdoptOutputs) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil:
		return s.noRun(c.Run)
	case !r.Reuse.Waits || r.Status.Terminal() || r.Masked():
		return nil // said twice, or too late
	case !r.Manifest.Sealed || r.Manifest.Attempt != c.SplitAttempt:
		return refuse(sheaf.Conflict, "the manifest of run %s is not that of split attempt %d", c.Run, c.SplitAttempt)
	}
	a := &adoption{step: s, r: r, reuse: r.Reuse, key: keyOf(r.Run), same: map[*state.Run]bool{}, origins: s.Origins()}
	for _, from := range c.Sources {
		if len(from.First) != len(from.Count) || len(from.First) != len(from.MadeAs) {
			return refuse(sheaf.Invalid, "the ranges of run %s are malformed", from.Run)
		}
		source := s.Peek(sheaf.RunID(from.Run))
		if !a.mayHave(source) {
			continue // deleted since: its partitions run
		}
		for i := range from.First {
			a.adopt(source, from.First[i], from.Count[i], from.MadeAs[i])
		}
	}
	a.reuse.Take(a.taken)
	a.reuse.Waits = !c.Done
	r.Change().Reuse = a.reuse
	if c.Done {
		s.settle(r)
	}
	return nil
}

// adoption is one entry's taking over.
type adoption struct {
	*step
	r     *state.RunTxn
	reuse state.Reuse
	taken []state.Taken
	key   [32]byte
	same  map[*state.Run]bool // runs looked at, and whether they may have what can be taken over; looked up, never ranged over

	origins *state.Origins
	last    *state.Run // the maker that was found last
	maker   uint32     // its place
}

// mayHave reports whether the run may have what another can take over: an earlier one of the
// same job, with partitions, whose task is the same.
func (a *adoption) mayHave(source *state.Run) bool {
	may, known := a.same[source]
	if !known {
		may = source != nil && source.Job.Reuse && source.Partitions != nil && source.Created < a.r.Created &&
			source.Job.Namespace == a.r.Job.Namespace && source.Job.Name == a.r.Job.Name && keyOf(source) == a.key
		a.same[source] = may
	}
	return may
}

// makerOf is the place of a maker, where it may be one and there is room.
func (a *adoption) makerOf(r *state.Run) (place uint32, ok bool) {
	if r == a.last {
		return a.maker, true
	}
	if !a.mayHave(r) {
		return 0, false
	}
	if place, ok = a.reuse.MakerOf(r.ID); ok {
		a.last, a.maker = r, place
	}
	return place, ok
}

// keyOf is the digest of what, beside its shards, a run's outputs depend on.
func keyOf(r *state.Run) [32]byte {
	return sheaf.TaskKey(sheaf.TaskFacts(r.Job, r.Image, int(r.Manifest.Partitions)))
}

// adopt takes over a range, as far as it is committed and can be reached now. What was
// taken over itself is traced to who made it, so that chains stay one link long.
func (a *adoption) adopt(source *state.Run, first, count, madeAs uint32) {
	t := a.r.Table()
	var next state.Taken // the stretch that is growing; Count 0 is none
	end := func() {
		if next.Count > 0 {
			t.Turn(int(next.First), int(next.First+next.Count)-1, pending, sheaf.PartitionReused, false)
			a.reply.Adopted += int(next.Count)
			a.taken = append(a.taken, next)
		}
		next.Count = 0
	}
	for i := range count {
		p, q := uint64(first)+uint64(i), uint64(madeAs)+uint64(i)
		if p >= uint64(t.Len()) || q >= uint64(source.Partitions.Len()) || len(a.reuse.Taken)+len(a.taken) >= state.MaxTaken {
			break
		}
		if row := t.Row(int(p)); row.State != sheaf.PartitionPending || row.Fence != 0 {
			continue // placed, or taken over by now
		}
		m, ok := a.origins.Of(source, int(q))
		if !ok || !a.origins.Reached(m) {
			continue
		}
		maker, ok := a.makerOf(m.Run)
		if !ok {
			continue
		}
		if next.Count == 0 || next.Maker != maker || uint64(next.First+next.Count) != p || int(next.MadeAs+next.Count) != m.Partition {
			end()
			next = state.Taken{First: uint32(p), Maker: maker, MadeAs: uint32(m.Partition)}
		}
		next.Count++
	}
	end()
}

// giveUp has an output made again: here, whoever made it before. Merges and reduces that go on elsewhere
// of what was made here begin again: they may have read what is gone. One whose result is sealed goes on.
func (s *step) giveUp(r *state.RunTxn, i int, row table.Row) {
	r.Table().Set(i, uncommitted(row))
	if !r.Job.Reuse {
		return
	}
	r.Change().Remade++
	if s.gaveUp == r {
		return
	}
	s.gaveUp = r
	for _, id := range s.LiveRuns() {
		if x := s.Peek(id); (x.Status == sheaf.RunMerging || x.Status == sheaf.RunReducing) && !x.Result.Publishing && slices.Contains(x.Reuse.Makers, r.ID) {
			s.regather(s.Run(id))
		}
	}
}
