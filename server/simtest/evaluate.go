package simtest

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// maxReady is how many pending partitions an evaluation is shown: no cluster
// here takes more at once.
const maxReady = 64

// evaluate hands the runs whose turn it is to the scheduler, and its plans to the log.
func (l *leader) evaluate() {
	now := time.UnixMilli(l.w.now)
	for range 8 {
		lease, ok, _ := l.queue.Next(now)
		if !ok {
			return
		}
		run := l.w.snap().Run(lease.Run)
		if run == nil || run.Status.Terminal() {
			l.queue.Forget(lease.Run)
			continue
		}
		plan := l.plan(run)
		if len(plan) == 0 {
			l.queue.Ack(lease, 0)
			continue
		}
		l.place(plan, func(placed int) { l.queue.Ack(lease, placed) })
	}
}

// place proposes a plan and queues what of it was placed.
func (l *leader) place(plan []*fsm.Placement, done func(placed int)) {
	l.propose(&fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: plan}}}, func(r fsm.Reply) {
		n := 0
		for i, p := range r.Placed {
			if p.Executions != nil {
				n++
				l.core.Placed(sheaf.NodeID(plan[i].Node), p.Executions)
			}
		}
		done(n)
	})
}

// plan asks the scheduler for one run.
func (l *leader) plan(r *state.Run) []*fsm.Placement {
	w, snap := l.w, l.w.snap()
	now := l.base + w.now - l.began
	need := r.Need(min(now, snap.TimeMs()))
	req := scheduler.Request{Job: r.Job}
	kind := wire.Kind_KIND_PARTITION
	switch {
	case need.Split:
		req.Kind, kind = scheduler.Split, wire.Kind_KIND_SPLIT
	case need.Merge:
		if !l.mergeable(r) {
			return nil
		}
		req.Kind, kind = scheduler.Merge, wire.Kind_KIND_MERGE
	case need.Reduce:
		if !l.mergeable(r) {
			return nil
		}
		req.Job, req.Kind, kind = r.Job.Reducing(), scheduler.Reduce, wire.Kind_KIND_REDUCE
	case need.Ready > 0:
		most := maxReady
		if bound := r.Bound(able(snap)); bound > 0 && !w.chance(4) { // otherwise the state machine is to refuse it
			most = min(most, max(0, bound-r.UnderWay()))
		}
		if most == 0 {
			return nil
		}
		req.Ready = r.Ready(snap.TimeMs(), 0, most)
		right := !w.chance(4) // otherwise the state machine is to refuse what is for other nodes
		for _, x := range req.Ready {
			for i := x.First; i <= x.Last && r.Nodes != nil && right; i++ {
				req.Bound = append(req.Bound, snap.NodeByNumber(r.Nodes[i]).ID)
			}
		}
		for _, x := range req.Ready {
			for i := x.First; i <= x.Last; i++ {
				if row := r.Row(i); row.Failures > 0 {
					if n := snap.NodeByNumber(row.Node); n != nil {
						req.Retries = append(req.Retries, scheduler.Retry{Range: sheaf.Range{First: i, Last: i}, Node: n.ID})
					}
				}
			}
		}
	default:
		return nil
	}
	for n := range snap.Nodes() {
		why, _ := r.PrepareBlocked(n.Number, snap.TimeMs())
		x := scheduler.Node{Node: &n.Node, Joined: n.Joined, Blocked: why, Assigned: snap.AssignedOn(r, n.Number), Slots: 2}
		for other := range snap.LiveRuns() {
			x.Load += float64(snap.AssignedOn(other, n.Number)) / 4
		}
		req.Nodes = append(req.Nodes, x)
	}
	var plan []*fsm.Placement
	for _, p := range scheduler.Schedule(req).Placements {
		x := &fsm.Placement{Run: string(r.ID), Kind: kind, Node: string(p.Node), Session: p.Session}
		for _, part := range p.Partitions {
			x.First = append(x.First, uint32(part.First))
			x.Count = append(x.Count, uint32(part.Last-part.First+1))
		}
		plan = append(plan, x)
	}
	return plan
}

// able is how many nodes can take work.
func able(snap *state.Snapshot) int {
	n := 0
	for x := range snap.Nodes() {
		if x.Status == sheaf.NodeReady && x.Eligible {
			n++
		}
	}
	return n
}

// takeBack asks every node for what it has not begun of a run that is held.
func (l *leader) takeBack(run sheaf.RunID) {
	r := l.w.snap().Run(run)
	if r == nil || !r.Held() {
		return
	}
	for _, s := range l.streams {
		for _, x := range l.core.Withdraw(s.node, run, s.session, r.UnderWay()) {
			l.propose(&fsm.Command{Body: &fsm.Command_Release{Release: x}}, nil)
		}
		if t := l.core.TakeBack(s.node, run, r.Generation, uint32(r.UnderWay())); t != nil {
			s.down(func(c *client) { c.takeBack(t) })
		}
	}
}

// mergeable reports whether every committed output can be reached. Those on
// nodes gone for longer than the grace are made again.
func (l *leader) mergeable(r *state.Run) bool {
	snap := l.w.snap()
	ok := true
	gone := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
	for i, m := range snap.UnreachedReused(r) {
		ok = false
		if m.Row.State != sheaf.PartitionSucceeded || snap.TimeMs()-snap.NodeByNumber(m.Row.Node).LostMs >= graceMs {
			state.AppendExecution(gone, i, 0)
		}
	}
	if len(gone.First) > 0 {
		l.propose(&fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: gone, Reason: "whoever made it lacks it"}}}, nil)
		return false
	}
	for _, c := range r.NodeCounts() {
		n := snap.NodeByNumber(c.Node)
		if c.Committed == 0 || n.Status == sheaf.NodeReady {
			continue
		}
		ok = false
		if snap.TimeMs()-n.LostMs < graceMs {
			continue
		}
		gone := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
		for i, row := range r.Partitions.Held(sheaf.PartitionSucceeded, c.Node) {
			state.AppendExecution(gone, i, row.Attempt)
		}
		l.propose(&fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: gone, Reason: "its node is gone"}}}, nil)
	}
	if e := r.Reduce; e.Done {
		if n := snap.NodeByNumber(e.Node); n.Status != sheaf.NodeReady {
			ok = false
			if snap.TimeMs()-n.LostMs >= graceMs {
				gone := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
				state.AppendExecution(gone, r.Partitions.Len(), e.Attempt)
				l.propose(&fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: gone, Reason: "its node is gone"}}}, nil)
			}
		}
	}
	return ok
}

// mitigate now and then backs up a partition, or takes queued work back.
func (l *leader) mitigate(snap *state.Snapshot) {
	w := l.w
	if w.calm || !w.chance(6) {
		return
	}
	for r := range snap.LiveRuns() {
		if r.Partitions == nil || r.Masked() {
			continue
		}
		for i, row := range r.Partitions.In(sheaf.PartitionAssigned) {
			if !w.chance(4) {
				continue
			}
			to := snap.Node(w.clients[w.rng.IntN(len(w.clients))].id)
			if to != nil && to.Number != row.Node && to.Placeable() {
				l.place([]*fsm.Placement{{Run: string(r.ID), Node: string(to.ID), Session: to.Session, First: []uint32{uint32(i)}, Count: []uint32{1}, Backup: true}}, func(n int) { w.out.Backups += n })
			}
			break
		}
		if s := l.streams; len(s) > 0 && w.chance(3) {
			from := s[w.rng.IntN(len(s))]
			for _, x := range l.core.Withdraw(from.node, r.ID, from.session, 2) {
				l.propose(&fsm.Command{Body: &fsm.Command_Release{Release: x}}, nil)
			}
			if t := l.core.TakeBack(from.node, r.ID, r.Generation, uint32(w.between(1, 4))); t != nil {
				from.down(func(c *client) { c.takeBack(t) })
			}
		}
	}
}
