package leader

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/planner"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxReady is how many pending partitions one evaluation looks at: more
	// than the nodes take at a time. Where they took all, another follows at once.
	maxReady = 1 << 18
	// maxRetries is how many partitions that failed before are looked at, to keep
	// them from the node that failed them; others go where they go.
	maxRetries = 4096
	// refusedPause is the wait after a plan of which nothing could be applied.
	refusedPause = 250 * time.Millisecond
)

// evaluate works through evaluations until ctx ends.
func (t *Term) evaluate(ctx context.Context) error {
	for {
		lease, err := t.broker.Next(ctx)
		if err != nil {
			return err
		}
		placed, err := t.evaluateRun(ctx, lease.Run)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Logger.Warn("evaluate a run", "run", lease.Run, "error", err)
			t.broker.Nack(lease, err.Error())
			continue
		}
		t.broker.Ack(lease, placed)
	}
}

// evaluateRun places what a run needs, and asks to be called again where more
// is to be had now or at a known time.
func (t *Term) evaluateRun(ctx context.Context, id sheaf.RunID) (placed int, err error) {
	snap := t.Store.Snapshot()
	r := snap.Run(id)
	if r == nil || r.Status.Terminal() {
		return 0, nil
	}
	now := t.clock.nowMs()
	need := r.Need(now)
	at := need.NextMs
	defer func() {
		if at > 0 && err == nil {
			t.broker.EnqueueAfter(id, shareOf(r), t.clock.until(at))
		}
	}()
	for _, m := range r.Prepare {
		if !m.Exhausted && m.NotBeforeMs > now && (at == 0 || m.NotBeforeMs < at) {
			at = m.NotBeforeMs
		}
	}
	req, kind, ok := t.request(snap, r, need, now)
	if !ok {
		return 0, nil
	}
	plan := scheduler.Schedule(req)
	if rested := now + plan.Again.Milliseconds() + 1; plan.Again > 0 && (at == 0 || rested < at) {
		at = rested
	}
	result, err := t.planner.Submit(ctx, planner.Plan{Run: id, Kind: kind, Placements: plan.Placements})
	if err != nil {
		return result.Placed, err
	}
	if result.Refused > 0 {
		t.Logger.Debug("part of a plan was refused", "run", id, "partitions", result.Refused, "reason", result.Reason)
		t.broker.EnqueueAfter(id, shareOf(r), refusedPause)
	}
	if asked := req.Ready.Len(); kind == wire.Kind_KIND_PARTITION && asked > 0 && plan.Left == 0 && need.Ready > asked && (asked == maxReady || asked < room(snap, r) && r.Nodes == nil) {
		// There is more than is looked at at once, or these were the large ones.
		t.broker.Enqueue(id, shareOf(r))
	}
	return result.Placed, nil
}

// request is what the scheduler is asked for a run, if it needs anything.
func (t *Term) request(snap *state.Snapshot, r *state.Run, need state.Need, nowMs int64) (scheduler.Request, wire.Kind, bool) {
	req := scheduler.Request{Job: r.Job, Pin: pin(snap, r)}
	kind := wire.Kind_KIND_PARTITION
	switch {
	case need.Split:
		req.Kind, kind = scheduler.Split, wire.Kind_KIND_SPLIT
	case need.Merge:
		req.Kind, kind = scheduler.Merge, wire.Kind_KIND_MERGE
		if r.Publishes() || r.Result.Publishing {
			req.Publish = r.Job.Publish.To
		}
		if r.Result.Publishing {
			req.Wrote = forgotten
			if n := snap.NodeByNumber(r.Result.Node); n != nil {
				req.Wrote = n.ID
			}
		}
		if snap.Unreached(r) > 0 && !r.Result.Publishing {
			return req, kind, false // keepOutputs decides: the node comes back, or they are made again
		}
	case need.Reduce:
		req.Job, req.Kind, kind = r.Job.Reducing(), scheduler.Reduce, wire.Kind_KIND_REDUCE
		if snap.Unreached(r) > 0 {
			return req, kind, false // as for a merge
		}
	case need.Ready > 0:
		most := room(snap, r)
		if most == 0 {
			return req, kind, false // an execution that ends makes room
		}
		if r.Nodes != nil {
			return t.opsRequest(snap, r, most, nowMs), kind, true
		}
		if req.Ready = large(r, most); req.Ready == nil {
			req.Ready = r.Ready(nowMs, 0, min(most, maxReady))
		}
		req.Retries = retries(snap, r, req.Ready)
	default:
		return req, kind, false
	}
	req.Nodes = t.nodes(snap, req.Job, r, nowMs)
	return req, kind, true
}

// forgotten stands for a node that was purged: no node has this ID, so that
// what was pinned there goes nowhere else.
const forgotten sheaf.NodeID = "(forgotten)"

// pin is the node by whose listing a run goes: that of its split, else any
// that has work of it already.
func pin(snap *state.Snapshot, r *state.Run) sheaf.NodeID {
	number := uint32(0)
	if r.Split.Done {
		number = r.Split.Node
	} else if !r.Job.Splits() && len(r.Job.Inputs) > 0 {
		for _, c := range r.NodeCounts() {
			if c.Assigned+c.Committed > 0 {
				number = c.Node
				break
			}
		}
	}
	if number == 0 {
		return ""
	}
	if n := snap.NodeByNumber(number); n != nil {
		return n.ID
	}
	return forgotten
}

// retries finds those of ready that failed before, by the run's record of failures.
func retries(snap *state.Snapshot, r *state.Run, ready sheaf.Ranges) []scheduler.Retry {
	if r.Errors == nil || !r.Job.Retry.OtherNode {
		return nil
	}
	var out []scheduler.Retry
	looked := 0
	for _, g := range r.Errors.Groups {
		common(ready, g.Group.Partitions, func(x sheaf.Range) bool {
			for p := x.First; p <= x.Last; p++ {
				if looked++; looked > maxRetries {
					return false
				}
				row := r.Partitions.Row(p)
				if row.Failures == 0 || row.Node == 0 {
					continue
				}
				if n := snap.NodeByNumber(row.Node); n != nil {
					out = append(out, scheduler.Retry{Range: sheaf.Range{First: p, Last: p}, Node: n.ID})
				}
			}
			return true
		})
	}
	slices.SortFunc(out, func(a, b scheduler.Retry) int { return cmp.Compare(a.Range.First, b.Range.First) })
	return slices.CompactFunc(out, func(a, b scheduler.Retry) bool { return a.Range == b.Range })
}

// common calls yield for each range that is in both a and b, in order, until it says no.
func common(a, b sheaf.Ranges, yield func(sheaf.Range) bool) {
	for len(a) > 0 && len(b) > 0 {
		x := sheaf.Range{First: max(a[0].First, b[0].First), Last: min(a[0].Last, b[0].Last)}
		if x.First <= x.Last && !yield(x) {
			return
		}
		if a[0].Last < b[0].Last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
}

// nodes is how the nodes look to an evaluation of r, a run of job; nil for a job that has no run.
func (t *Term) nodes(snap *state.Snapshot, job *sheaf.Job, r *state.Run, nowMs int64) []scheduler.Node {
	var list []scheduler.Node
	index := map[uint32]int{}
	for n := range snap.Nodes() {
		index[n.Number] = len(list)
		list = append(list, scheduler.Node{Node: &n.Node, Joined: n.Joined, Suspected: t.suspects.has(n.ID)})
	}
	if len(list) > 1 {
		t.loads.fill(snap, list, index)
	}
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	now := time.Now()
	var track *runTrack
	var counts map[uint32]table.NodeCount
	if r != nil {
		track = t.track.runs[r.ID]
		counts = map[uint32]table.NodeCount{}
		for _, c := range r.NodeCounts() {
			counts[c.Node] = c
		}
	}
	from := origins(job)
	avoided := t.track.blame.Avoided(now)
	for number, i := range index {
		n := &list[i]
		n.Refuses = t.track.refuses[n.ID]
		for _, origin := range from {
			n.Held += t.track.held[n.ID][origin]
		}
		if x, ok := avoided[n.ID]; ok {
			n.Avoid, n.AvoidWhy, n.Rests = x.Share, x.Why, max(x.Until.Sub(now), 0)
		}
		if r == nil {
			continue
		}
		n.Assigned = snap.AssignedOn(r, number)
		n.Committed = int(counts[number].Committed)
		n.Blocked, _ = r.PrepareBlocked(number, nowMs)
		if track == nil || track.nodes[n.ID] == nil {
			continue
		}
		x := track.nodes[n.ID]
		n.Slots, n.Succeeded, n.Failed = x.slots, x.succeeded, x.failed
		n.Rate = max(x.reported, x.rate.over(now, 2))
	}
	return list
}

// origins are where a job's inputs come from, each once.
func origins(job *sheaf.Job) []string {
	var list []string
	for _, in := range job.Inputs {
		if o := sheaf.Origin(in.Source); o != "" && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}
