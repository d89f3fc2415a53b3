package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Kind is what is to be placed.
type Kind uint8

// The kinds.
const (
	Partitions Kind = iota
	Split
	Merge
	Reduce
)

// Node is a node as one evaluation of one run sees it.
type Node struct {
	*sheaf.Node
	Joined    bool   // reconciled: placements may come
	Suspected bool   // gossip holds it for dead
	Refuses   string // why its client takes no work at present; empty when it does
	Blocked   string // why this run cannot be prepared there; empty when it can

	Assigned  int     // valid executions of this run there
	Load      float64 // executions of all runs there, as a share of what it runs at once
	Slots     int     // how many of this run's executions it runs at once, as measured; 0 is not measured
	Rate      float64 // executions of this run it ends a second, lately
	Succeeded int     // executions of this run that ended there, lately
	Failed    int
	Committed int   // outputs of this run that lie there
	Held      int64 // bytes there that were fetched from where this run's inputs come from

	Avoid    float64       // share of executions, of all runs, that fail there by the node's doing, where that stands out; else 0
	AvoidWhy string        // the same in words
	Rests    time.Duration // for how long it is given nothing that others can take; 0 is not
}

// Retry is partitions whose last try failed on a node.
type Retry struct {
	Range sheaf.Range
	Node  sheaf.NodeID
}

// Request is one run's need, at one moment. For a reduce Job is what sheaf.Job.Reducing gives.
type Request struct {
	Job  *sheaf.Job
	Kind Kind
	// Ready are pending partitions that may be placed, in order. There may be more
	// than are listed; list as many as the nodes could take.
	Ready sheaf.Ranges
	// Retries are those of Ready that failed before, ascending; they had
	// better go to another node where the job says so.
	Retries []Retry
	// Bound says, for a run of type ops, which one node each of Ready is for, in the
	// same order; nil for others. Only these need to be among Nodes.
	Bound []sheaf.NodeID
	// Pin is the node whose listing of not shared files this run goes by; empty while there is none.
	Pin sheaf.NodeID
	// Publish is the URL below which the merge publishes the result; empty where it does not. Wrote
	// is the node that wrote there what is sealed already, empty while nothing is.
	Publish string
	Wrote   sheaf.NodeID
	// Nodes are all nodes, in any order that stays the same for the same state.
	Nodes []Node
}

// Placement puts executions on a node. Partitions is empty for the other kinds.
type Placement struct {
	Node       sheaf.NodeID
	Session    uint64
	Partitions sheaf.Ranges
}

// Plan is the answer to a request.
type Plan struct {
	Placements []Placement // at most one a node
	Left       int         // partitions of Ready that were not placed
	// Again is when a node that rests may have some of what is left; 0 is never.
	Again       time.Duration
	Explanation Explanation
}

// candidate is a node that passed the filter.
type candidate struct {
	*Node
	slots int
	limit string // what no more than slots would fit into: cpu, memory, disk or pids
	// preference is how well it meets the job's affinities, from -1 to 1, and a
	// little more for data that lies there already.
	preference float64

	budget int // executions of this run that it may hold, queued ones included
	give   int // executions that it gets
	has    int // of those, already cut; the length of ranges
	ranges sheaf.Ranges
}

// take gives the candidate partitions from first on, at most up to last and to what it
// is to get, and says how many.
func (c *candidate) take(first, last int) int {
	n := min(c.give-c.has, last-first+1)
	c.has += n
	c.ranges = append(c.ranges, sheaf.Range{First: first, Last: first + n - 1})
	return n
}

// room is how many more executions the node may get.
func (c *candidate) room() int { return max(0, c.budget-c.Assigned-c.give) }

// Schedule places what the request asks for. The same request gives the same plan.
func Schedule(r Request) Plan {
	candidates, explanation := filter(&r)
	plan := Plan{Explanation: explanation}
	switch r.Kind {
	case Split, Merge, Reduce:
		if best := pick(r.Kind, candidates); best != nil {
			plan.Placements = []Placement{{Node: best.ID, Session: best.Session}}
		}
		return plan
	}
	if r.Bound != nil {
		plan.Placements, plan.Left = bound(&r, candidates)
		return plan
	}
	ready := r.Ready.Len()
	full := &collector{}
	rest := resting(candidates)
	for i := range candidates {
		c := &candidates[i]
		c.budget = budget(c)
		if rest && c.Rests > 0 && c.shunned() {
			c.budget = c.Assigned
			plan.Again = sooner(plan.Again, c.Rests)
			full.add(Failing, "rests after a failure, since most of what ends there lately has failed", c.ID)
			continue
		}
		// A node that has half of its lookahead left can wait: fewer and
		// larger plans cost less than many of a few partitions.
		if c.Assigned >= c.slots+(c.budget-c.slots+1)/2 {
			c.budget = c.Assigned
			full.add(Full, "has as many of the run's executions as its "+cmp.Or(c.limit, "slots")+" and its lookahead allow", c.ID)
		}
	}
	plan.Explanation.Reasons = append(plan.Explanation.Reasons, full.reasons()...)
	fill(candidates, ready)
	plan.Left = cut(candidates, r.Ready, r.Retries, r.Job.Retry.OtherNode).Len()
	if plan.Left == 0 {
		plan.Again = 0
	}
	for i := range candidates {
		if c := &candidates[i]; len(c.ranges) > 0 {
			plan.Placements = append(plan.Placements, Placement{Node: c.ID, Session: c.Session, Partitions: c.ranges})
		}
	}
	return plan
}

// Able are the nodes on which a second attempt of the run can be, however busy, with how many of its executions each runs
// at once. What mostly fails is not where to try again.
func Able(r Request) map[sheaf.NodeID]int {
	candidates, _ := filter(&r)
	able := make(map[sheaf.NodeID]int, len(candidates))
	for i := range candidates {
		if c := &candidates[i]; !c.shunned() {
			able[c.ID] = c.slots
		}
	}
	return able
}

// bound places each partition on the one node that it is for.
func bound(r *Request, candidates []candidate) (placements []Placement, left int) {
	able := make(map[sheaf.NodeID]*candidate, len(candidates))
	for i := range candidates {
		able[candidates[i].ID] = &candidates[i]
	}
	i := 0
	for _, x := range r.Ready {
		for p := x.First; p <= x.Last && i < len(r.Bound); p++ {
			if c := able[r.Bound[i]]; c != nil {
				placements = append(placements, Placement{Node: c.ID, Session: c.Session, Partitions: sheaf.Ranges{{First: p, Last: p}}})
			} else {
				left++
			}
			i++
		}
	}
	return placements, left
}

// pick chooses the node of a split, merge or reduce: the last two go where most of the outputs
// lie; all go where least else runs.
func pick(k Kind, candidates []candidate) *candidate {
	if len(candidates) == 0 {
		return nil
	}
	best := slices.MinFunc(candidates, func(a, b candidate) int {
		if a.shunned() != b.shunned() {
			return cmp.Compare(a.avoid(), b.avoid())
		}
		if k != Split && a.Committed != b.Committed {
			return cmp.Compare(b.Committed, a.Committed)
		}
		return cmp.Or(cmp.Compare(a.avoid(), b.avoid()), cmp.Compare(a.Failed, b.Failed), cmp.Compare(b.preference, a.preference), cmp.Compare(a.Load, b.Load), cmp.Compare(a.ID, b.ID))
	})
	return &best
}
