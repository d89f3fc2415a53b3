package worker

import (
	"github.com/sheaf-run/agent/client/transfer"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// transfersAtOnce is how many batches of outputs are copied from other nodes
	// at once; more would wait for the same disk.
	transfersAtOnce = 2
	// maxDeleted is how many confirmed deletions one message names.
	maxDeleted = 1024
)

// transfer copies outputs from another node, and answers when they are durable here.
func (w *Worker) transfer(f *wire.Fetch) {
	ctx := w.ctx
	w.jobs.Go(func() {
		select {
		case w.transfers <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-w.transfers }()
		t := &transfer.Transfer{Fetch: f, Store: w.cfg.Store, Peer: w.cfg.PeerAt}
		answer := t.Do(ctx)
		if ctx.Err() != nil {
			return
		}
		w.post(func() { w.send(&wire.FromClient{Body: &wire.FromClient_Fetched{Fetched: answer}}) })
	})
}

// Lacks tells the servers that an output that is said to lie here is gone or
// damaged. Without a session nothing is told: the next who reads it finds it again.
func (w *Worker) Lacks(run sheaf.RunID, partition int, attempt uint32, reason string) {
	w.log.Error("a committed output cannot be read; the servers are told", "run", run, "partition", partition, "attempt", attempt, "reason", reason)
	w.post(func() {
		w.send(&wire.FromClient{Body: &wire.FromClient_Lacking{Lacking: &wire.Lacking{
			Outputs: &wire.Executions{Run: string(run), First: []uint32{uint32(partition)}, Count: []uint32{1}, Attempt: []uint32{attempt}},
			Reason:  reason,
		}}})
	})
}

// Crowded tells the servers that the disk is too full, unless deletions are under way:
// what they gain is not seen yet.
func (w *Worker) Crowded(c *wire.Crowded) {
	w.post(func() {
		if w.deleting == 0 {
			w.send(&wire.FromClient{Body: &wire.FromClient_Crowded{Crowded: c}})
		}
	})
}

// deleteRun removes all that is kept of a run, and confirms it.
func (w *Worker) deleteRun(id sheaf.RunID) {
	w.deleting++
	w.durable.later(func() {
		err := w.cfg.Store.DeleteRun(id)
		w.post(func() {
			w.deleting--
			if err != nil {
				w.log.Error("run's data not deleted", "run", id, "error", err)
				return
			}
			w.deleted(id)
		})
	})
}

// deleted confirms that nothing is kept of a run.
func (w *Worker) deleted(id sheaf.RunID) {
	if w.up.out == nil || !w.up.welcomed {
		return // the next Hello does not list it
	}
	w.up.deleted = append(w.up.deleted, string(id))
	if len(w.up.deleted) >= maxDeleted {
		w.sendDeleted()
	}
}

// sendDeleted sends the confirmations that have gathered.
func (w *Worker) sendDeleted() {
	if len(w.up.deleted) > 0 {
		w.send(&wire.FromClient{Body: &wire.FromClient_Deleted{Deleted: &wire.Deleted{Runs: w.up.deleted}}})
		w.up.deleted = nil
	}
}
