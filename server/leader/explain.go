package leader

import (
	"fmt"
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
	if job.Split != nil {
		kind = scheduler.Split
	}
	return scheduler.Schedule(scheduler.Request{
		Job: job, Kind: kind, Ready: sheaf.Ranges{{First: 0, Last: 0}}, Nodes: t.nodes(snap, nil, t.clock.nowMs()),
	}).Explanation
}

// Explain is how the nodes look to a run now, and what it waits for, in words;
// nothing when it waits for nothing.
func (t *Term) Explain(snap *state.Snapshot, r *state.Run) (scheduler.Explanation, []string) {
	if r.Status.Terminal() {
		return scheduler.Explanation{}, nil
	}
	now := t.clock.nowMs()
	need := r.Need(now)
	var waits []string
	if why := t.broker.Failing(r.ID); why != "" {
		waits = append(waits, "placing it fails and is tried again: "+why)
	}
	if need.NextMs > now {
		waits = append(waits, fmt.Sprintf("some of it waits %v before it is tried again", t.clock.until(need.NextMs).Round(time.Second)))
	}
	if r.Status == sheaf.RunMerging && !r.Merge.Active {
		if n := snap.Unreached(r); n > 0 {
			waits = append(waits, fmt.Sprintf("%d outputs lie on nodes that are down: the merge waits for them to come back, and after %v they are made again", n, t.OutputsGrace))
		}
	}
	req, _, ok := t.request(snap, r, need, now)
	if !ok {
		return scheduler.Explanation{}, waits
	}
	plan := scheduler.Schedule(req)
	switch {
	case plan.Explanation.Nodes == 0:
		waits = append(waits, "there is no node yet")
	case !plan.Explanation.Placeable():
		waits = append(waits, fmt.Sprintf("no node can take it: %s", first(plan.Explanation)))
	case req.Kind == scheduler.Partitions && len(plan.Placements) == 0 && r.Counts().Assigned == 0:
		waits = append(waits, "the nodes that can take it are full")
	}
	return plan.Explanation, waits
}

func first(e scheduler.Explanation) string {
	if len(e.Reasons) == 0 {
		return "it is being looked at"
	}
	r := e.Reasons[0]
	s := fmt.Sprintf("node %s %s", r.Nodes[0], r.Text)
	if n := e.Nodes - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}
