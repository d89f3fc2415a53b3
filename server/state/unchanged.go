package state

import (
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// maxCompared is how many earlier runs are looked at for the same result, the newest first. Of runs that follow
// each other without a change it is the first.
const maxCompared = 32

// Unchanged is an earlier run of the job whose sealed result is what a merge of the run's outputs would make: all of
// the run was taken over, that run has the same outputs under the same numbers, all of them can be read, and the
// rules of merging are the same. Nil is none. What it costs goes with the ranges that were taken over, not with the
// partitions.
func (s *Snapshot) Unchanged(r *Run) *Run {
	if !r.Job.Reuse || r.Job.Reduce != nil || r.Partitions == nil || r.Partitions.Counts()[sheaf.PartitionReused] != r.Partitions.Len() {
		return nil
	}
	for _, id := range r.Reuse.Makers {
		if !allReached(s.Run(id), s.NodeByNumber) {
			return nil
		}
	}
	var earlier []*Run
	for x := range s.RunsOfJob(r.Job.Namespace, r.Job.Name) {
		if x.Created < r.Created {
			earlier = append(earlier, x)
		}
	}
	slices.Reverse(earlier)
	for _, x := range earlier[:min(len(earlier), maxCompared)] {
		if x.Complete() && x.unchangedIn(r) {
			if n := s.NodeByNumber(x.Result.Node); n != nil && n.Status != sheaf.NodeDown {
				return x
			}
		}
	}
	return nil
}

// unchangedIn reports whether a run that has taken over all its outputs has all those of x, which is complete.
func (x *Run) unchangedIn(r *Run) bool {
	c := x.Counts()
	if !x.Job.Reuse || x.Job.Reduce != nil || x.Remade > 0 || len(x.Lost) > 0 || c.Succeeded+c.Reused != r.Partitions.Len() ||
		c.Total != r.Partitions.Len() || !slices.Equal(x.Job.Outputs, r.Job.Outputs) {
		return false
	}
	// Nothing of it was given up, so what it did not take over it made.
	next, at := 0, 0
	same := func(maker sheaf.RunID, first, count, as uint32) bool {
		if count == 0 {
			return true
		}
		if at == len(r.Reuse.Taken) {
			return false
		}
		t := r.Reuse.Taken[at]
		at++
		return r.Reuse.Makers[t.Maker] == maker && t.First == first && t.Count == count && t.MadeAs == as
	}
	for _, t := range x.Reuse.Taken {
		if !same(x.ID, uint32(next), t.First-uint32(next), uint32(next)) || !same(x.Reuse.Makers[t.Maker], t.First, t.Count, t.MadeAs) {
			return false
		}
		next = int(t.First + t.Count)
	}
	return same(x.ID, uint32(next), uint32(x.Partitions.Len()-next), uint32(next)) && at == len(r.Reuse.Taken)
}
