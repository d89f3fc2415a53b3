package leader

import (
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// otherWork is what a split, merge or reduce counts against a node's load.
	otherWork = 0.25
	// loadsRest is how many times as long as it took to go through all live runs the outcome is used:
	// a tenth of an evaluator's time goes into it at most, however many runs there are.
	loadsRest = 9
)

// loads is how busy each node is with the executions of all runs. With few runs it is counted
// for each evaluation; with many now and then, and what is placed in between is added.
type loads struct {
	mu     sync.Mutex
	byNode map[uint32]float64 // by number, as a share of what the node runs at once
	until  time.Time          // the count is used
}

// fill notes the loads of nodes; index gives a node's place in list by its number.
func (l *loads) fill(snap *state.Snapshot, list []scheduler.Node, index map[uint32]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if began := time.Now(); !began.Before(l.until) {
		l.byNode = countLoads(snap, list, index)
		ended := time.Now()
		l.until = ended.Add(loadsRest * ended.Sub(began))
	}
	for number, i := range index {
		list[i].Load = l.byNode[number]
	}
}

// add notes what was placed since the count.
func (l *loads) add(n *state.Node, job *sheaf.Job, e *wire.Executions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byNode == nil {
		return
	}
	if e.Kind != wire.Kind_KIND_PARTITION {
		l.byNode[n.Number] += otherWork
		return
	}
	placed := 0
	for _, c := range e.Count {
		placed += int(c)
	}
	l.byNode[n.Number] += float64(placed) / float64(slots(n.Resources, job.Task.Resources))
}

// countLoads goes through all live runs.
func countLoads(snap *state.Snapshot, list []scheduler.Node, index map[uint32]int) map[uint32]float64 {
	byNode := make(map[uint32]float64, len(list))
	for r := range snap.LiveRuns() {
		for _, e := range []state.Exec{r.Split, r.Merge, r.Reduce.Exec} {
			if e.Active {
				byNode[e.Node] += otherWork
			}
		}
		if r.Masked() {
			continue
		}
		for _, c := range r.NodeCounts() {
			if i, ok := index[c.Node]; ok && c.Assigned > 0 {
				byNode[c.Node] += float64(c.Assigned) / float64(slots(list[i].Resources, r.Job.Task.Resources))
			}
		}
	}
	return byNode
}

// slots is how many executions a node runs at once, or 1 where it can run none: it has one all the same.
func slots(has, need sheaf.Resources) int {
	n, _ := match.Slots(has, need)
	return max(1, n)
}
