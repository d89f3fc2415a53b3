package scheduler

import (
	"cmp"
	"math"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxLookahead bounds the queue of one run at one node: what is queued
	// there must be taken back or waited for before another node may have it.
	maxLookahead = 32_768
	// lookaheadSeconds of a node's measured rate are sent ahead of what runs,
	// so that it never waits for the leader.
	lookaheadSeconds = 1.0
	// trustAfter is how many ends on a node are needed before its failures are held against it.
	trustAfter = 4
)

// budget is how many executions of the run a node may hold, queued ones included. A
// node on which the run mostly fails gets a trickle, so that a broken one does not
// eat the tries of everything by failing fast. One that stands out by the failures of other runs
// gets as many as can be expected to end well, at least one, and nothing ahead.
func budget(c *candidate) int {
	if ended := c.Succeeded + c.Failed; ended >= trustAfter && c.Failed*2 > ended {
		return max(1, c.slots/(1+c.Failed/trustAfter))
	}
	if share := c.avoid(); share > 0 {
		return max(1, int(float64(c.slots)*(1-share)))
	}
	ahead := int(math.Ceil(min(c.Rate*lookaheadSeconds, maxLookahead)))
	return c.slots + max(c.slots, ahead)
}

// fill decides how many executions each candidate gets of n. It evens out how
// full the nodes are, by their slots and what else they have to do, as water finds its level: first to the same
// share of slots, then of lookahead.
func fill(candidates []candidate, n int) {
	total := 0
	for i := range candidates {
		total += candidates[i].room()
	}
	if n >= total {
		for i := range candidates {
			candidates[i].give = candidates[i].room()
		}
		return
	}
	// Find the highest level that needs no more than n.
	low, high := math.Inf(1), math.Inf(-1)
	for i := range candidates {
		c := &candidates[i]
		low = min(low, occupancy(c))
		high = max(high, occupancy(c)+float64(c.room())/float64(c.slots))
	}
	for range 48 {
		level := (low + high) / 2
		if need(candidates, level) <= n {
			low = level
		} else {
			high = level
		}
	}
	left := n
	for i := range candidates {
		c := &candidates[i]
		c.give = at(c, low)
		left -= c.give
	}
	// What rounding left over goes to the emptiest, one each.
	order := make([]int, len(candidates))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &candidates[a], &candidates[b]
		return cmp.Or(
			cmp.Compare(x.avoid(), y.avoid()),
			cmp.Compare(x.Failed, y.Failed),
			cmp.Compare(occupancy(x)+float64(x.give)/float64(x.slots), occupancy(y)+float64(y.give)/float64(y.slots)))
	})
	for left > 0 {
		before := left
		for _, i := range order {
			if left > 0 && candidates[i].room() > 0 {
				candidates[i].give++
				left--
			}
		}
		if left == before {
			return
		}
	}
}

// occupancy is how full a node is, with all runs' work, in units of slots. A node that meets
// all of the job's affinities counts as emptier by all its slots: it is filled before one
// that meets none gets anything.
func occupancy(c *candidate) float64 {
	return max(c.Load, float64(c.Assigned)/float64(c.slots)) - c.preference
}

// at is how many executions bring a node to a level.
func at(c *candidate, level float64) int {
	return min(max(int((level-occupancy(c))*float64(c.slots)), 0), max(0, c.budget-c.Assigned))
}

func need(candidates []candidate, level float64) int {
	n := 0
	for i := range candidates {
		n += at(&candidates[i], level)
	}
	return n
}

// cut hands ranges of ready to the candidates by what each is to get. Retries go
// first, to another node than the one that failed them; where all others are full they
// wait, since room comes as work ends. The rest is cut in order, so that each node gets
// few, long ranges. It returns what nobody gets.
func cut(candidates []candidate, ready sheaf.Ranges, retries []Retry, otherNode bool) (rest sheaf.Ranges) {
	var taken, held sheaf.Ranges // of the retries
	if otherNode && len(candidates) > 1 {
		next := 0
		for _, x := range retries {
			for first := x.Range.First; first <= x.Range.Last; {
				c := other(candidates, &next, x.Node)
				if c == nil {
					held = held.AddRange(first, x.Range.Last)
					break
				}
				n := c.take(first, x.Range.Last)
				taken = taken.AddRange(first, first+n-1)
				first += n
			}
		}
	}
	i := 0
	without := func(x sheaf.Range) {
		for x.First <= x.Last {
			for i < len(candidates) && candidates[i].has >= candidates[i].give {
				i++
			}
			if i == len(candidates) {
				rest = append(rest, x)
				return
			}
			x.First += candidates[i].take(x.First, x.Last)
		}
	}
	subtract(ready, taken, func(x sheaf.Range) { subtract(sheaf.Ranges{x}, held, without) })
	for i := range candidates {
		candidates[i].ranges = joined(candidates[i].ranges)
	}
	return joined(append(rest, held...))
}

// joined sorts disjoint ranges and joins those that touch.
func joined(r sheaf.Ranges) sheaf.Ranges {
	if len(r) < 2 {
		return r
	}
	slices.SortFunc(r, func(a, b sheaf.Range) int { return cmp.Compare(a.First, b.First) })
	out := make(sheaf.Ranges, 0, len(r))
	for _, x := range r {
		out = out.AddRange(x.First, x.Last)
	}
	return out
}

// other is the next candidate in turn that is not the node and has something to get, or
// else room for one more.
func other(candidates []candidate, next *int, node sheaf.NodeID) *candidate {
	var room *candidate
	for range candidates {
		c := &candidates[*next%len(candidates)]
		*next++
		if c.ID == node {
			continue
		}
		if c.has < c.give {
			return c
		}
		if room == nil && c.room() > 0 {
			room = c
		}
	}
	if room != nil {
		room.give++
	}
	return room
}

// subtract calls yield for each range of a that is not in b. Both are ascending.
func subtract(a, b sheaf.Ranges, yield func(sheaf.Range)) {
	for _, x := range a {
		for len(b) > 0 && b[0].Last < x.First {
			b = b[1:]
		}
		for _, y := range b {
			if y.First > x.Last {
				break
			}
			if y.First > x.First {
				yield(sheaf.Range{First: x.First, Last: y.First - 1})
			}
			x.First = y.Last + 1
		}
		if x.First <= x.Last {
			yield(x)
		}
	}
}
