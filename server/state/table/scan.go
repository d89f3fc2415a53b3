package table

import (
	"iter"

	"github.com/sheaf-run/agent/sheaf"
)

// Ranges are the partitions whose state is in set, from `from` on: at most
// `most` ranges, or all where most is 0.
func (t *Table) Ranges(set States, from, most int) sheaf.Ranges {
	var r sheaf.Ranges
	t.eachPage(set, func(k int, p *page) bool {
		base, n := k*pageSize, t.pageLen(k)
		lo := max(from-base, 0)
		if lo >= n {
			return true
		}
		if p == nil || p.in(set) == n {
			r = r.AddRange(base+lo, base+n-1)
		} else {
			for i := lo; i < n; i++ {
				if set.Has(p.state(i)) {
					r = r.Add(base + i)
				}
			}
		}
		return most == 0 || len(r) <= most
	})
	if most > 0 && len(r) > most {
		r = r[:most]
	}
	return r
}

// Ready are the first pending partitions from `from` on that may be placed at
// nowMs, at most limit.
func (t *Table) Ready(nowMs int64, from, limit int) sheaf.Ranges {
	var r sheaf.Ranges
	if limit <= 0 {
		return nil
	}
	t.eachPage(Set(sheaf.PartitionPending), func(k int, p *page) bool {
		base, n := k*pageSize, t.pageLen(k)
		lo := max(from-base, 0)
		if lo >= n {
			return true
		}
		if p == nil || int(p.counts[sheaf.PartitionPending]) == n && p.delayed == 0 {
			hi := min(n, lo+limit)
			r = r.AddRange(base+lo, base+hi-1)
			limit -= hi - lo
			return limit > 0
		}
		for i := lo; i < n && limit > 0; i++ {
			if p.state(i) == sheaf.PartitionPending && (p.delayed == 0 || p.started(i) <= nowMs) {
				r = r.Add(base + i)
				limit--
			}
		}
		return limit > 0
	})
	return r
}

// Waiting is how many pending partitions may be placed at nowMs, and the time
// at which the next of the others may; 0 if there is none.
func (t *Table) Waiting(nowMs int64) (ready int, nextMs int64) {
	ready = t.counts[sheaf.PartitionPending]
	if t.delayed == 0 {
		return ready, 0
	}
	t.eachPage(Set(sheaf.PartitionPending), func(k int, p *page) bool {
		if p == nil || p.delayed == 0 {
			return true
		}
		for i := range int(p.n) {
			if p.state(i) != sheaf.PartitionPending {
				continue
			}
			if at := p.started(i); at > nowMs {
				ready--
				if nextMs == 0 || at < nextMs {
					nextMs = at
				}
			}
		}
		return true
	})
	return ready, nextMs
}

// In yields the partitions in a state, in order.
func (t *Table) In(s sheaf.PartitionState) iter.Seq2[int, Row] {
	return func(yield func(int, Row) bool) {
		t.eachPage(Set(s), func(k int, p *page) bool {
			for i := range t.pageLen(k) {
				if p == nil {
					if !yield(k*pageSize+i, fresh(s)) {
						return false
					}
				} else if p.state(i) == s && !yield(k*pageSize+i, p.row(i)) {
					return false
				}
			}
			return true
		})
	}
}

// Held yields the partitions in a state on a node, in order.
func (t *Table) Held(s sheaf.PartitionState, node uint32) iter.Seq2[int, Row] {
	return func(yield func(int, Row) bool) {
		held := t.OnNode(node)
		left := int(held.Assigned)
		if s == sheaf.PartitionSucceeded {
			left = int(held.Committed)
		}
		if left == 0 {
			return
		}
		t.eachPage(Set(s), func(k int, p *page) bool {
			if p == nil || p.data == nil {
				return true
			}
			for i := range int(p.n) {
				if p.state(i) != s || p.u32(colNode, i) != node {
					continue
				}
				left--
				if !yield(k*pageSize+i, p.row(i)) || left == 0 {
					return false
				}
			}
			return true
		})
	}
}

// eachPage calls f for the pages that hold a partition whose state is in set,
// in order, until f says false. A nil page is untouched: pending.
func (t *Table) eachPage(set States, f func(k int, p *page) bool) {
	pending := set.Has(sheaf.PartitionPending)
	for gi, g := range t.groups {
		if g == nil && !pending || g != nil && !g.any(set) {
			continue
		}
		first := gi * groupSize
		last := min(first+groupSize, t.pageCount())
		for k := first; k < last; k++ {
			var p *page
			if g != nil {
				p = g.pages[k-first]
			}
			if p == nil && !pending || p != nil && p.in(set) == 0 {
				continue
			}
			if !f(k, p) {
				return
			}
		}
	}
}

// in is how many partitions of the page have a state of the set.
func (p *page) in(set States) int {
	n := 0
	for s, c := range p.counts {
		if set.Has(sheaf.PartitionState(s)) {
			n += int(c)
		}
	}
	return n
}

func (g *group) any(set States) bool {
	for s, c := range g.counts {
		if c > 0 && set.Has(sheaf.PartitionState(s)) {
			return true
		}
	}
	return false
}
