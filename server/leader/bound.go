package leader

import (
	"slices"

	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// room is how many more executions of a run may be placed, as the state machine will
// count. The bound is its to keep: this only spares plans that it would refuse.
func room(snap *state.Snapshot, r *state.Run) int {
	bound := bound(snap, r)
	if bound == 0 {
		return sheaf.MaxPartitions
	}
	return max(0, bound-r.UnderWay())
}

// bound is how many executions of a run may be under way at once; 0 is no bound.
func bound(snap *state.Snapshot, r *state.Run) int {
	if !r.BoundByNodes() {
		return r.Bound(0)
	}
	var all []*sheaf.Node
	for n := range snap.Nodes() {
		all = append(all, &n.Node)
	}
	return r.Bound(len(match.Of(r.Job).Able(all)))
}

// opsRequest asks for partitions of a run that are each for one node. Nodes that are for none are left out.
func (t *Term) opsRequest(snap *state.Snapshot, r *state.Run, most int, nowMs int64) scheduler.Request {
	req := scheduler.Request{Job: r.Job, Bound: []sheaf.NodeID{}}
	wanted := map[sheaf.NodeID]bool{}
	for _, x := range r.Ready(nowMs, 0, maxReady) {
		for p := x.First; p <= x.Last; p++ {
			n := snap.NodeByNumber(r.Nodes[p])
			if n == nil || len(req.Bound) == most && n.Placeable() {
				continue
			}
			wanted[n.ID] = true
			if n.Placeable() { // what waits for its node must not take the place of what does not
				req.Ready = req.Ready.Add(p)
				req.Bound = append(req.Bound, n.ID)
			}
		}
	}
	req.Nodes = slices.DeleteFunc(t.nodes(snap, r.Job, r, nowMs), func(n scheduler.Node) bool { return !wanted[n.ID] })
	return req
}
