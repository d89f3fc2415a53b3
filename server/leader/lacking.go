package leader

import (
	"context"
	"sync"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// maxLacking bounds the reports that wait for the log: what is beyond is found
// again by the next who reads it.
const maxLacking = 256

// lacking are what nodes said they lack, until it is in the log.
type lacking struct {
	mu      sync.Mutex
	reports []lack
	wake    chan struct{} // of size 1
}

type lack struct {
	node sheaf.NodeID
	*wire.Lacking
}

// Lacking implements rpc.Observer.
func (t *Term) Lacking(node sheaf.NodeID, l *wire.Lacking) {
	t.lacking.mu.Lock()
	if len(t.lacking.reports) < maxLacking {
		t.lacking.reports = append(t.lacking.reports, lack{node, l})
	}
	t.lacking.mu.Unlock()
	poke(t.lacking.wake)
}

// keepLacking has outputs made again that a live node says it lacks.
func (t *Term) keepLacking(ctx context.Context) error {
	for {
		t.lacking.mu.Lock()
		reports := t.lacking.reports
		t.lacking.reports = nil
		t.lacking.mu.Unlock()
		for _, l := range reports {
			if err := t.lacks(ctx, l); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				t.Logger.Error("have outputs made again that a node lacks", "node", l.node, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.lacking.wake:
		}
	}
}

// lacks logs those of a report that the log says are on that node: it speaks
// for nobody else.
func (t *Term) lacks(ctx context.Context, l lack) error {
	o := l.Outputs
	if o == nil || len(o.First) != len(o.Count) || len(o.First) != len(o.Attempt) {
		return nil
	}
	snap := t.Store.Snapshot()
	r, n := snap.Run(sheaf.RunID(o.Run)), snap.Node(l.node)
	if r == nil || n == nil || r.Partitions == nil {
		return nil
	}
	e := &wire.Executions{Run: o.Run, Generation: r.Generation}
	for i, first := range o.First {
		end := min(int(first)+int(o.Count[i]), r.Partitions.Len())
		for p := int(first); p < end && len(e.First) < rangesAtOnce; p++ {
			if row := r.Partitions.Row(p); row.State == sheaf.PartitionSucceeded && row.Attempt == o.Attempt[i] && row.Node == n.Number {
				state.AppendExecution(e, p, row.Attempt)
			}
		}
	}
	if len(e.First) == 0 {
		return nil
	}
	reply, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: e, Reason: l.Reason, Note: true}}})
	if class := sheaf.ClassOf(err); err != nil && (class == sheaf.Conflict || class == sheaf.NotFound) {
		return nil // gone meanwhile
	}
	if err == nil && reply.Partitions+reply.Lost > 0 {
		t.Logger.Warn("a node lacks committed outputs", "node", l.node, "run", o.Run, "made again", reply.Partitions, "noted", reply.Lost, "reason", l.Reason)
	}
	return err
}
