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
	at, ok := r.takenAt(i)
	if !ok {
		return Taken{}, false
	}
	return r.Reuse.Taken[at], true
}

func (r *Run) takenAt(i int) (place int, ok bool) {
	return slices.BinarySearchFunc(r.Reuse.Taken, i, func(t Taken, p int) int {
		switch {
		case t.holds(p):
			return 0
		case int(t.First) > p:
			return 1
		}
		return -1
	})
}

func (t *Taken) holds(i int) bool { return int(t.First) <= i && i < int(t.First)+int(t.Count) }

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

// Origins finds where the outputs of partitions come from. Asked for one partition after the other of
// a run it looks little up, so that a million are no matter. It is good for as long as neither the runs nor the nodes
// change, and for one goroutine.
type Origins struct {
	run  func(sheaf.RunID) *Run
	node func(uint32) *Node

	of    *Run // asked about last
	at    int  // place in its Taken
	by    uint32
	maker *Run            // Makers[by] of it; nil is not looked up
	up    map[uint32]bool // nodes
}

// Origins are as of the snapshot.
func (s *Snapshot) Origins() *Origins { return &Origins{run: s.Run, node: s.NodeByNumber} }

// Origins are as before this entry, as far as it changes nothing that is asked for.
func (t *Txn) Origins() *Origins { return &Origins{run: t.Peek, node: t.NodeByNumber} }

// Of finds where the committed output of partition i comes from; false is where there is none, or not any more. What was
// taken over and is gone keeps the run and the partition that made it.
func (o *Origins) Of(r *Run, i int) (Made, bool) {
	row := r.Partitions.Row(i)
	switch row.State {
	case sheaf.PartitionSucceeded:
		return Made{r, i, row}, true
	case sheaf.PartitionReused:
		t, maker := o.taken(r, i)
		if maker == nil || maker.Partitions == nil {
			return Made{}, false
		}
		m := Made{Run: maker, Partition: int(t.MadeAs) + i - int(t.First)}
		m.Row = maker.Partitions.Row(m.Partition)
		return m, m.Row.State == sheaf.PartitionSucceeded
	}
	return Made{}, false
}

// taken is the range that holds partition i, and who made it; nil where it is gone.
func (o *Origins) taken(r *Run, i int) (Taken, *Run) {
	if o.of != r {
		o.of, o.at, o.maker = r, 0, nil
	}
	all := r.Reuse.Taken
	if o.at+1 < len(all) && !all[o.at].holds(i) {
		o.at++ // mostly it is the range behind that of the partition before
	}
	if o.at >= len(all) || !all[o.at].holds(i) {
		at, ok := r.takenAt(i)
		if !ok {
			return Taken{}, nil
		}
		o.at = at
	}
	t := all[o.at]
	if o.maker == nil || o.by != t.Maker {
		o.by, o.maker = t.Maker, o.run(r.Reuse.Makers[t.Maker])
	}
	return t, o.maker
}

// Reached reports whether an output can be read: it lies on a node that is up, and was not found to be lost.
func (o *Origins) Reached(m Made) bool {
	if m.Run.Lost.Contains(m.Partition) {
		return false
	}
	up, known := o.up[m.Row.Node]
	if !known {
		n := o.node(m.Row.Node)
		up = n != nil && n.Status != sheaf.NodeDown
		if o.up == nil {
			o.up = map[uint32]bool{}
		}
		o.up[m.Row.Node] = up
	}
	return up
}

// Available reports whether the committed output of partition i is there and can be read now.
func (o *Origins) Available(r *Run, i int) bool {
	m, ok := o.Of(r, i)
	return ok && o.Reached(m)
}

// Origin is where the committed output of partition i comes from, for who asks for one; see [Origins.Of].
func (s *Snapshot) Origin(r *Run, i int) (Made, bool) { return s.Origins().Of(r, i) }

// UnreachedReused are the partitions whose output was taken over and is gone, or lies on a node that is down.
func (s *Snapshot) UnreachedReused(r *Run) iter.Seq2[int, Made] {
	return s.Origins().unreachedReused(r)
}

// UnreachedReused is the same before this entry.
func (t *Txn) UnreachedReused(r *Run) iter.Seq2[int, Made] {
	return t.Origins().unreachedReused(r)
}

func (o *Origins) unreachedReused(r *Run) iter.Seq2[int, Made] {
	return func(yield func(int, Made) bool) {
		if r.Partitions == nil || r.Partitions.Counts()[sheaf.PartitionReused] == 0 {
			return
		}
		whole := make([]bool, len(r.Reuse.Makers))
		for i, id := range r.Reuse.Makers {
			whole[i] = allReached(o.run(id), o.node)
		}
		for _, t := range r.Reuse.Taken {
			if whole[t.Maker] {
				continue
			}
			for i := int(t.First); i < int(t.First+t.Count); i++ {
				if r.Partitions.Row(i).State != sheaf.PartitionReused {
					continue
				}
				if m, ok := o.Of(r, i); (!ok || !o.Reached(m)) && !yield(i, m) {
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
