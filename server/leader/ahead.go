package leader

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

// ETA is a range in which a run will be over, from how long its partitions took; not ok where nothing
// can be said.
func (t *Term) ETA(snap *state.Snapshot, r *state.Run) (low, high time.Duration, ok bool) {
	c := r.Counts()
	if r.Partitions == nil || r.Masked() || r.Held() || c.Pending+c.Assigned == 0 {
		return 0, 0, false
	}
	now := time.Now()
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	track := t.track.runs[r.ID]
	if track == nil {
		return 0, 0, false
	}
	a := straggler.Ahead{Backups: r.Job.Backups, Durations: &track.tail.took}
	a.Running = track.longest(r, straggler.MaxLooked, now)
	a.Waiting = max(c.Pending+c.Assigned-len(track.running), 0)
	a.Ends, a.Within = track.rate.count(now, windowSeconds)
	for _, n := range r.NodeCounts() {
		if n.Assigned == 0 {
			continue
		}
		at := int(n.Assigned)
		if node := snap.NodeByNumber(n.Node); node != nil {
			if x := track.nodes[node.ID]; x != nil && x.slots > 0 {
				at = min(at, x.slots)
			} else {
				at = min(at, slots(node.Resources, r.Job.Task.Resources))
			}
		}
		a.Slots += at
	}
	return straggler.ETA(a)
}

// WhyBackedUp is why a partition got a second attempt in this term; empty where it got none.
func (t *Term) WhyBackedUp(run sheaf.RunID, partition int) string {
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	if r := t.track.runs[run]; r != nil {
		return r.tail.why[uint32(partition)]
	}
	return ""
}

// AboutTail says what was done about what is slow in a run.
func (t *Term) AboutTail(run sheaf.RunID) []string {
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	r := t.track.runs[run]
	if r == nil || r.tail.made == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d second attempts were made at slow partitions, and %d of these came first", r.tail.made, r.tail.won)}
}
