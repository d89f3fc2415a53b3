package state

import (
	"cmp"
	"iter"
	"slices"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of what one run takes over from others.
const (
	// MaxMakers is how many runs' outputs a run may have: three years of one that adds a file a day.
	// What others made is made again.
	MaxMakers = 1024
	// MaxTaken is how many ranges they come in. A row of so many is some MiB in a snapshot.
	MaxTaken = 1 << 17
)

// Reuse is what a run has taken over from earlier runs of its job.
type Reuse struct {
	// Waits says that it is yet to be compared with them: nothing of it is placed before.
	Waits bool `json:"waits,omitempty"`
	// Makers are the runs that made what was taken over. They are there as long as this run
	// is, and none of their partitions was taken over itself.
	Makers []sheaf.RunID `json:"makers,omitempty"`
	// Taken says which partitions. Ascending by First, apart from each other. It stays when an
	// output is lost and made here: the state of the partition counts.
	Taken []Taken `json:"taken,omitempty"`
}

// Taken is a range of partitions that another run made in the same order.
type Taken struct {
	First  uint32 `json:"f"`
	Count  uint32 `json:"n"`
	Maker  uint32 `json:"m"` // place in Makers
	MadeAs uint32 `json:"a"` // the maker's partition that is First here
}

// Made is where a committed output comes from: the run itself, or the one that it was taken over from.
type Made struct {
	Run       *Run
	Partition int
	Row       table.Row // of that run's partition
}

// TakenAt is the range that holds partition i.
func (r *Run) TakenAt(i int) (Taken, bool) {
	at, ok := slices.BinarySearchFunc(r.Reuse.Taken, uint32(i), func(t Taken, p uint32) int {
		switch {
		case t.First+t.Count <= p:
			return -1
		case t.First > p:
			return 1
		}
		return 0
	})
	if !ok {
		return Taken{}, false
	}
	return r.Reuse.Taken[at], true
}

// Take adds ranges to what was taken over, joining those that go on where another ends. The
// partitions must be new to it.
func (r *Reuse) Take(more []Taken) {
	all := append(slices.Clone(r.Taken), more...)
	slices.SortFunc(all, func(a, b Taken) int { return cmp.Compare(a.First, b.First) })
	kept := all[:0]
	for _, t := range all {
		if n := len(kept) - 1; n >= 0 && kept[n].Maker == t.Maker && kept[n].First+kept[n].Count == t.First && kept[n].MadeAs+kept[n].Count == t.MadeAs {
			kept[n].Count += t.Count
			continue
		}
		kept = append(kept, t)
	}
	r.Taken = kept
}

// MakerOf is the place of a run in Makers, where it is or could be put; false is when there is no room.
func (r *Reuse) MakerOf(id sheaf.RunID) (uint32, bool) {
	if i := slices.Index(r.Makers, id); i >= 0 {
		return uint32(i), true
	}
	if len(r.Makers) >= MaxMakers {
		return 0, false
	}
	r.Makers = append(slices.Clone(r.Makers), id)
	return uint32(len(r.Makers) - 1), true
}

// origin finds where the output of partition i comes from; false is where there is none, or not any more.
func origin(run func(sheaf.RunID) *Run, r *Run, i int) (Made, bool) {
	row := r.Partitions.Row(i)
	switch row.State {
	case sheaf.PartitionSucceeded:
		return Made{r, i, row}, true
	case sheaf.PartitionReused:
		t, ok := r.TakenAt(i)
		if !ok {
			return Made{}, false
		}
		maker := run(r.Reuse.Makers[t.Maker])
		if maker == nil || maker.Partitions == nil {
			return Made{}, false
		}
		m := Made{Run: maker, Partition: int(t.MadeAs) + i - int(t.First)}
		m.Row = maker.Partitions.Row(m.Partition)
		return m, m.Row.State == sheaf.PartitionSucceeded
	}
	return Made{}, false
}

// reached reports whether an output lies on a node that is up and was not found to be lost.
func (m Made) reached(node func(uint32) *Node) bool {
	if m.Run.Lost.Contains(m.Partition) {
		return false
	}
	n := node(m.Row.Node)
	return n != nil && n.Status != sheaf.NodeDown
}

// Origin is where the committed output of partition i comes from; false is where it has none. What was
// taken over and is gone keeps the run and the partition that made it.
func (s *Snapshot) Origin(r *Run, i int) (Made, bool) { return origin(s.Run, r, i) }

// Available reports whether the committed output of partition i is there and can be read now.
func (s *Snapshot) Available(r *Run, i int) bool {
	m, ok := s.Origin(r, i)
	return ok && m.reached(s.NodeByNumber)
}

// Origin is the same before this entry.
func (t *Txn) Origin(r *Run, i int) (Made, bool) { return origin(t.Peek, r, i) }

// Reached reports whether an output can be read: it lies on a node that is up, and was not found to be lost.
func (t *Txn) Reached(m Made) bool { return m.reached(t.NodeByNumber) }

// UnreachedReused are the partitions whose output was taken over and is gone, or lies on a node that is down.
func (s *Snapshot) UnreachedReused(r *Run) iter.Seq2[int, Made] {
	return unreachedReused(s.Run, s.NodeByNumber, r)
}

// UnreachedReused is the same before this entry.
func (t *Txn) UnreachedReused(r *Run) iter.Seq2[int, Made] {
	return unreachedReused(t.Peek, t.NodeByNumber, r)
}

func unreachedReused(run func(sheaf.RunID) *Run, node func(uint32) *Node, r *Run) iter.Seq2[int, Made] {
	return func(yield func(int, Made) bool) {
		if r.Partitions == nil || r.Partitions.Counts()[sheaf.PartitionReused] == 0 {
			return
		}
		whole := make([]bool, len(r.Reuse.Makers))
		for i, id := range r.Reuse.Makers {
			whole[i] = allReached(run(id), node)
		}
		for _, t := range r.Reuse.Taken {
			if whole[t.Maker] {
				continue
			}
			for i := int(t.First); i < int(t.First+t.Count); i++ {
				if r.Partitions.Row(i).State != sheaf.PartitionReused {
					continue
				}
				if m, ok := origin(run, r, i); (!ok || !m.reached(node)) && !yield(i, m) {
					return
				}
			}
		}
	}
}

// allReached reports whether a run lacks nothing of what it ever committed, so that nobody need look at each.
func allReached(r *Run, node func(uint32) *Node) bool {
	if r == nil || r.Partitions == nil || len(r.Lost) > 0 || r.Remade > 0 {
		return false
	}
	for _, c := range r.NodeCounts() {
		if n := node(c.Node); c.Committed > 0 && (n == nil || n.Status == sheaf.NodeDown) {
			return false
		}
	}
	return true
}

// HeldBy is a run that has outputs of the run, so that it cannot be deleted before; nil is none.
func (t *Txn) HeldBy(r *Run) *Run {
	it, err := t.mem.Get(tableRuns, byJob+"_prefix", jobKey(r.Job.Namespace, r.Job.Name))
	must(err)
	for row := it.Next(); row != nil; row = it.Next() {
		if other := row.(*Run); slices.Contains(other.Reuse.Makers, r.ID) {
			return other
		}
	}
	return nil
}

// Deletable are those of the given runs that are over and that no other run holds but
// such as are among them: each before what it holds. The others are held.
func (s *Snapshot) Deletable(ids []sheaf.RunID) (free, held []sheaf.RunID) {
	var runs []*Run
	for _, id := range ids {
		if r := s.Run(id); r != nil && r.Status.Terminal() {
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b *Run) int { return cmp.Compare(b.Created, a.Created) })
	gone := map[sheaf.RunID]bool{}
	read := s.read()
	for _, r := range runs {
		if read[r.ID] || s.heldBesides(r, gone) {
			held = append(held, r.ID)
			continue
		}
		gone[r.ID] = true
		free = append(free, r.ID)
	}
	return free, held
}

func (s *Snapshot) heldBesides(r *Run, gone map[sheaf.RunID]bool) bool {
	if !r.Job.Reuse {
		return false
	}
	for other := range s.RunsOfJob(r.Job.Namespace, r.Job.Name) {
		if !gone[other.ID] && slices.Contains(other.Reuse.Makers, r.ID) {
			return true
		}
	}
	return false
}
