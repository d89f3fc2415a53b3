package leader

import (
	"context"
	"sync"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// takeBacks are the runs of which work that has not begun is to be got back from
// the nodes.
type takeBacks struct {
	mu   sync.Mutex
	runs map[sheaf.RunID]bool
	wake chan struct{} // of size 1
}

func newTakeBacks() takeBacks {
	return takeBacks{runs: map[sheaf.RunID]bool{}, wake: make(chan struct{}, 1)}
}

func (b *takeBacks) add(run sheaf.RunID) {
	b.mu.Lock()
	b.runs[run] = true
	b.mu.Unlock()
	poke(b.wake)
}

func (b *takeBacks) take() []sheaf.RunID {
	b.mu.Lock()
	defer b.mu.Unlock()
	runs := make([]sheaf.RunID, 0, len(b.runs))
	for r := range b.runs {
		runs = append(runs, r)
	}
	clear(b.runs)
	return runs
}

// placed hands over what a plan placed. A run may have been held, or its bound lowered, while the
// plan was on its way: whoever asked for it back by then found nothing at the node.
func (t *Term) placed(node sheaf.NodeID, e *wire.Executions) {
	t.hub.Placed(node, e)
	snap := t.Store.Snapshot()
	r := snap.Run(sheaf.RunID(e.Run))
	if r == nil {
		return
	}
	if n := snap.Node(node); n != nil {
		t.loads.add(n, r.Job, e)
	}
	if over(r) > 0 {
		t.back.add(r.ID)
	}
}

// holdBack has what waits at nodes taken back of the runs that are held or have more under way than they may: a node may
// have come back with some, or this term be new, and the one before have ended before it asked.
func (t *Term) holdBack() {
	for r := range t.Store.Snapshot().LiveRuns() {
		if over(r) > 0 {
			t.back.add(r.ID)
		}
	}
}

// keepBack gets work back that has not begun: all of a held run, and of others what
// is over their bound. Nodes that are asked for more than is needed cost nothing: it is placed again.
func (t *Term) keepBack(ctx context.Context) error {
	for {
		for _, id := range t.back.take() {
			snap := t.Store.Snapshot()
			r := snap.Run(id)
			if r == nil || r.Status.Terminal() {
				continue
			}
			over := over(r)
			for _, c := range r.NodeCounts() {
				n := snap.NodeByNumber(c.Node)
				if n == nil || c.Assigned == 0 || over <= 0 {
					continue
				}
				if err := t.hub.TakeBack(ctx, n.ID, id, min(over, int(c.Assigned))); err != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					t.Logger.Warn("take work back", "run", id, "node", n.ID, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.back.wake:
		}
	}
}

// over is how many executions of a run are under way beyond what may be.
func over(r *state.Run) int {
	if r.Held() {
		return r.UnderWay()
	}
	if bound := r.Bound(0); bound > 0 && !r.BoundByNodes() {
		return r.UnderWay() - bound
	}
	return 0
}
