package leader

import (
	"fmt"
	"strings"
	"time"

	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Measures are what is measured of a run.
func (t *Term) Measures(run sheaf.RunID) Measures { return t.track.measures(run, time.Now()) }

// Results is how many results were answered in this term: committed ones, and
// those that failed or were lost.
func (t *Term) Results() (committed, failed uint64) {
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	return t.track.committed, t.track.failed
}

// Obstacles is how the nodes would take a job that has no run yet.
func (t *Term) Obstacles(job *sheaf.Job) scheduler.Explanation {
	snap := t.Store.Snapshot()
	kind := scheduler.Partitions
	if job.Splits() {
		kind = scheduler.Split
	}
	first := scheduler.Schedule(scheduler.Request{
		Job: job, Kind: kind, Ready: sheaf.Ranges{{First: 0, Last: 0}}, Nodes: t.nodes(snap, job, nil, t.clock.nowMs()),
	}).Explanation
	if job.Reduce != nil && first.Placeable() {
		after := job.Reducing()
		last := scheduler.Schedule(scheduler.Request{Job: after, Kind: scheduler.Reduce, Nodes: t.nodes(snap, after, nil, t.clock.nowMs())}).Explanation
		if !last.Placeable() {
			for i := range last.Reasons {
				last.Reasons[i].Text = "for the reduce: " + last.Reasons[i].Text
			}
			return last
		}
	}
	return t.unpublished(snap, job, first)
}

// unpublished adds that no node may write where the job's result is to be published: what could run, and never
// be published, is no better.
func (t *Term) unpublished(snap *state.Snapshot, job *sheaf.Job, found scheduler.Explanation) scheduler.Explanation {
	if job.Publish == nil {
		return found
	}
	end := scheduler.Schedule(scheduler.Request{Job: job, Kind: scheduler.Merge, Publish: job.Publish.To, Nodes: t.nodes(snap, job, nil, t.clock.nowMs())}).Explanation
	if end.Placeable() {
		return found
	}
	found.Feasible = 0
	for _, r := range end.Reasons {
		if r.Code == scheduler.NoPlace {
			found.Reasons = append(found.Reasons, r)
		}
	}
	return found
}

// Explain is how the nodes look to a run now, and what it waits for, in words;
// nothing when it waits for nothing.
func (t *Term) Explain(snap *state.Snapshot, r *state.Run) (scheduler.Explanation, []string) {
	if r.Status.Terminal() {
		return scheduler.Explanation{}, nil
	}
	waits := standstill(snap, r)
	now := t.clock.nowMs()
	need := r.Need(now)
	if why := t.broker.Failing(r.ID); why != "" {
		waits = append(waits, "placing it fails and is tried again: "+why)
	}
	if need.NextMs > now {
		waits = append(waits, fmt.Sprintf("some of it waits %v before it is tried again", t.clock.until(need.NextMs).Round(time.Second)))
	}
	if r.Status == sheaf.RunMerging && !r.Merge.Active || r.Status == sheaf.RunReducing && !r.Reduce.Active {
		if n := snap.Unreached(r); n > 0 && !r.Result.Publishing {
			waits = append(waits, fmt.Sprintf("%d outputs lie on nodes that are down: what reads them waits for them to come back, and after %v they are made again", n, t.OutputsGrace))
		}
	}
	if b := bound(snap, r); b > 0 && need.Ready > 0 && r.UnderWay() >= b {
		waits = append(waits, fmt.Sprintf("%d of its executions are under way, and its parallelism allows %d", r.UnderWay(), b))
	}
	var explanation scheduler.Explanation
	if req, _, ok := t.request(snap, r, need, now); ok {
		plan := scheduler.Schedule(req)
		explanation = plan.Explanation
		waits = append(waits, obstacle(snap, r, req, plan)...)
	} else if r.Status == sheaf.RunRunning { // all is placed: say at least what spoke for where it is
		req := scheduler.Request{Job: r.Job, Nodes: t.nodes(snap, r.Job, r, now)}
		explanation.Preferred = scheduler.Schedule(req).Explanation.Preferred
	}
	if n := r.UnderWay(); n > 0 && now-r.StartedMs > quietMs && t.track.measures(r.ID, time.Now()).Running.Len() == 0 {
		waits = append(waits, fmt.Sprintf("%d of its executions are at nodes, and none has run there for long: they wait for room beside other work, are being made ready, or are short", n))
	}
	return explanation, waits
}

// quietMs is how long a run goes on before it is said that nothing of it is seen running.
const quietMs = 2000

// maxNamed is how many runs or nodes a sentence names.
const maxNamed = 5

// standstill is what keeps a run from being placed at all.
func standstill(snap *state.Snapshot, r *state.Run) []string {
	var waits []string
	if r.Held() {
		waits = append(waits, "it is held: nothing more of it is placed before `agent job release "+string(r.ID)+"`")
	}
	if len(r.Waits) > 0 {
		var names []string
		for _, id := range r.Waits[:min(len(r.Waits), maxNamed)] {
			is := "gone"
			if before := snap.Run(id); before != nil {
				is = string(before.Status)
			}
			names = append(names, fmt.Sprintf("%s (%s)", id, is))
		}
		if more := len(r.Waits) - len(names); more > 0 {
			names = append(names, fmt.Sprintf("%d more", more))
		}
		waits = append(waits, "it comes after runs that have not succeeded yet: "+strings.Join(names, ", "))
	}
	return waits
}

// obstacle is why a plan places nothing, or leaves something.
func obstacle(snap *state.Snapshot, r *state.Run, req scheduler.Request, plan scheduler.Plan) []string {
	e := plan.Explanation
	switch {
	case req.Bound != nil:
		return away(snap, r)
	case e.Nodes == 0:
		return []string{"there is no node yet"}
	case !e.Placeable():
		return []string{fmt.Sprintf("none of %d nodes can take it: %s", e.Nodes, e.Text())}
	case req.Kind == scheduler.Partitions && len(plan.Placements) == 0:
		return []string{fmt.Sprintf("the nodes that can take it (%d of %d) have all that fits: %s", e.Feasible, e.Nodes, e.Text())}
	}
	return nil
}

// away says which partitions of an ops run wait for their node to come back.
func away(snap *state.Snapshot, r *state.Run) []string {
	var waits []string
	for _, x := range r.Ranges(sheaf.PartitionPending) {
		for p := x.First; p <= x.Last; p++ {
			n := snap.NodeByNumber(r.Nodes[p])
			is := "gone"
			switch {
			case n == nil:
			case n.Placeable():
				continue
			case n.Status == sheaf.NodeDown:
				is = "down"
			case !n.Eligible:
				is = "set ineligible for new work"
			default:
				is = "not connected yet"
			}
			if len(waits) == maxNamed {
				return append(waits, "and more of its partitions wait for their nodes")
			}
			name := fmt.Sprint(r.Nodes[p])
			if n != nil {
				name = string(n.ID)
			}
			waits = append(waits, fmt.Sprintf("partition %d is for node %s alone, which is %s", p, name, is))
		}
	}
	return waits
}
