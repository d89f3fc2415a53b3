package table

import (
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// Edit makes the next table of one. It belongs to one goroutine, and is over
// once Table was called.
type Edit struct {
	t     Table
	own   *token
	dirs  bool                         // groups is a copy of our own
	nodes bool                         // and so is nodes
	shelf [sheaf.PartitionStates]*page // full uniform pages, shared by all that need one
}

// Edit begins a change of t, which stays as it is.
func (t *Table) Edit() *Edit { return &Edit{t: *t, own: new(token)} }

// Table ends the edit.
func (e *Edit) Table() *Table {
	if e.nodes {
		e.t.nodes = slices.DeleteFunc(e.t.nodes, func(c NodeCount) bool { return c.Assigned == 0 && c.Committed == 0 })
	}
	t := e.t
	e.own = nil
	return &t
}

// Changed reports whether anything was set or turned.
func (e *Edit) Changed() bool { return e.dirs }

// Len is how many partitions there are.
func (e *Edit) Len() int { return e.t.n }

// Counts is how many partitions are in each state by now.
func (e *Edit) Counts() Counts { return e.t.counts }

// Row is partition i as it stands in the edit.
func (e *Edit) Row(i int) Row { return e.t.Row(i) }

// Set replaces partition i.
func (e *Edit) Set(i int, r Row) {
	if uint(i) >= uint(e.t.n) {
		panic(fmt.Sprintf("table: partition %d of %d", i, e.t.n))
	}
	g, p := e.write(i / pageSize)
	if p.data == nil {
		p.materialize()
	}
	k := i % pageSize
	old := p.state(k)
	e.hold(old, p.u32(colNode, k), -1)
	e.hold(r.State, r.Node, +1)
	if old != r.State {
		e.move(g, p, old, r.State, 1)
	}
	was, is := old == sheaf.PartitionPending && p.started(k) != 0, r.NotBeforeMs() != 0
	if was != is {
		d := 1
		if was {
			d = -1
		}
		e.delay(g, p, d)
	}
	p.set(k, &r)
}

// Turn puts every partition of first..last whose state is in from into the
// state `to`; an attempt that was valid ends without a result. With clean its
// failures, losses and delay are forgotten. Pages that nothing has touched are turned whole.
func (e *Edit) Turn(first, last int, from States, to sheaf.PartitionState, clean bool) {
	for k := first / pageSize; k <= last/pageSize; k++ {
		lo, hi := max(first-k*pageSize, 0), min(last-k*pageSize, e.t.pageLen(k)-1)
		p := e.t.page(k)
		if p == nil || p.data == nil {
			fill := sheaf.PartitionPending
			if p != nil {
				fill = p.fill
			}
			if !from.Has(fill) || fill == to {
				continue
			}
			if lo == 0 && hi == e.t.pageLen(k)-1 {
				e.replace(k, to)
				continue
			}
		} else if p.in(from) == 0 {
			continue
		}
		for i := lo; i <= hi; i++ {
			if r := e.t.Row(k*pageSize + i); from.Has(r.State) && (clean || r.State != to) {
				if r.State == sheaf.PartitionAssigned {
					r.Attempt = 0
				}
				if r.State == sheaf.PartitionPending || to == sheaf.PartitionPending {
					r.StartedMs = 0
				}
				if clean {
					r.Failures, r.Losses, r.Failure = 0, 0, 0
				}
				r.State = to
				e.Set(k*pageSize+i, r)
			}
		}
	}
}

// replace makes page k, which is uniform, a uniform one in the state s.
func (e *Edit) replace(k int, s sheaf.PartitionState) {
	n := e.t.pageLen(k)
	g := e.group(k / groupSize)
	old := sheaf.PartitionPending
	if p := g.pages[k%groupSize]; p != nil {
		old = p.fill
	}
	g.counts[old] -= uint32(n)
	g.counts[s] += uint32(n)
	e.t.counts[old] -= n
	e.t.counts[s] += n
	var p *page
	switch {
	case s == sheaf.PartitionPending:
	case n < pageSize:
		p = uniform(nil, n, s)
	default:
		if e.shelf[s] == nil {
			e.shelf[s] = uniform(nil, n, s)
		}
		p = e.shelf[s]
	}
	g.pages[k%groupSize] = p
}

// write gives page k, and its group, for writing.
func (e *Edit) write(k int) (*group, *page) {
	g := e.group(k / groupSize)
	p := g.pages[k%groupSize]
	switch {
	case p == nil:
		p = uniform(e.own, e.t.pageLen(k), sheaf.PartitionPending)
		g.pages[k%groupSize] = p
	case p.owner != e.own:
		p = p.clone(e.own)
		g.pages[k%groupSize] = p
	}
	return g, p
}

// group gives a group for writing.
func (e *Edit) group(i int) *group {
	if e.own == nil {
		panic("table: an edit is used after its end")
	}
	if !e.dirs {
		e.t.groups = slices.Clone(e.t.groups)
		e.dirs = true
	}
	g := e.t.groups[i]
	switch {
	case g == nil:
		n := e.t.groupLen(i)
		g = &group{owner: e.own, pages: make([]*page, (n+pageSize-1)/pageSize)}
		g.counts[sheaf.PartitionPending] = uint32(n)
	case g.owner != e.own:
		g = &group{owner: e.own, pages: slices.Clone(g.pages), counts: g.counts, delayed: g.delayed}
	}
	e.t.groups[i] = g
	return g
}

func (e *Edit) move(g *group, p *page, from, to sheaf.PartitionState, n int) {
	p.counts[from] -= uint16(n)
	p.counts[to] += uint16(n)
	g.counts[from] -= uint32(n)
	g.counts[to] += uint32(n)
	e.t.counts[from] -= n
	e.t.counts[to] += n
}

func (e *Edit) delay(g *group, p *page, d int) {
	p.delayed += uint16(d)
	g.delayed += uint32(d)
	e.t.delayed += d
}

// hold counts a partition in state s to its node, or takes it off.
func (e *Edit) hold(s sheaf.PartitionState, node uint32, d int) {
	if node == 0 || s != sheaf.PartitionAssigned && s != sheaf.PartitionSucceeded {
		return
	}
	if !e.nodes {
		e.t.nodes = slices.Clone(e.t.nodes)
		e.nodes = true
	}
	i, ok := findNode(e.t.nodes, node)
	if !ok {
		e.t.nodes = slices.Insert(e.t.nodes, i, NodeCount{Node: node})
	}
	if s == sheaf.PartitionAssigned {
		e.t.nodes[i].Assigned += uint32(d)
	} else {
		e.t.nodes[i].Committed += uint32(d)
	}
}

func findNode(nodes []NodeCount, node uint32) (int, bool) {
	return slices.BinarySearchFunc(nodes, node, func(c NodeCount, n uint32) int {
		return int(int64(c.Node) - int64(n))
	})
}
