package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// errUnknownRun ends a stream on which a run was assigned that was not
// described. Both sides begin anew and agree on what there is.
var errUnknownRun = errors.New("executions of a run were assigned that was not described")

// Hello lists what the client has, for a stream that begins; see session.Handler.
func (w *Worker) Hello(ctx context.Context, number uint64, out *session.Outbox) (*wire.Hello, error) {
	kept, err := w.cfg.Store.Runs()
	if err != nil {
		return nil, err
	}
	var hello *wire.Hello
	err = w.ask(ctx, func() {
		l := w.core.Hello()
		hello = &wire.Hello{Node: string(w.cfg.Place.NodeID), Queued: l.Queued, Executing: l.Executing, Finished: l.Finished}
		for _, id := range kept {
			hello.Kept = append(hello.Kept, string(id))
		}
		w.up.out, w.up.number, w.up.welcomed, w.up.deleted = out, number, false, nil
	})
	return hello, err
}

// Closed forgets a stream that is over.
func (w *Worker) Closed(ctx context.Context, out *session.Outbox) {
	_ = w.ask(ctx, func() { // an error says that the loop is over, and the stream with it
		if w.up.out == out {
			w.up.out, w.up.welcomed = nil, false
		}
	})
}

// Receive handles the leader's messages, in order.
func (w *Worker) Receive(ctx context.Context, m *wire.FromServer) error {
	if a := m.GetAssign(); a != nil {
		var known bool
		if err := w.ask(ctx, func() { known = w.assign(a) }); err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("run %s: %w", a.GetRun(), errUnknownRun)
		}
		return nil
	}
	w.post(func() { w.receive(m) })
	return ctx.Err()
}

func (w *Worker) assign(a *wire.Executions) bool {
	if a.GetKind() == wire.Kind_KIND_REDUCE && w.addReduce(sheaf.RunID(a.GetRun())) == nil {
		return false
	}
	return w.core.Assign(a, w.now)
}

func (w *Worker) receive(m *wire.FromServer) {
	switch b := m.GetBody().(type) {
	case *wire.FromServer_Welcome:
		w.up.welcomed = true
		w.up.lease = time.Duration(b.Welcome.GetLeaseMs()) * time.Millisecond
		w.cfg.Keys.Learn(b.Welcome.GetDataKey(), b.Welcome.GetTimeMs())
		w.core.Welcome(b.Welcome, w.now)
		w.repeatPrepared()
		w.sendPrepared()
		w.pulse(true)
	case *wire.FromServer_Run:
		if _, err := w.addRun(b.Run); err != nil {
			w.log.Error("run not understood", "run", b.Run.GetRun(), "error", err)
		}
	case *wire.FromServer_Kill:
		w.core.Kill(b.Kill, w.now)
	case *wire.FromServer_TakeBack:
		t := b.TakeBack
		dropped := w.core.TakeBack(sheaf.RunID(t.GetRun()), t.GetGeneration(), t.GetMost())
		w.send(&wire.FromClient{Body: &wire.FromClient_TakenBack{TakenBack: &wire.TakenBack{Id: t.GetId(), Dropped: dropped}}})
	case *wire.FromServer_Answers:
		w.core.Answered(b.Answers)
	case *wire.FromServer_Lease:
		w.up.lease = time.Duration(b.Lease.GetLeaseMs()) * time.Millisecond
		w.core.Lease(w.now.Add(w.up.lease))
		w.core.Gather(time.Duration(b.Lease.GetGatherMs()) * time.Millisecond)
	case *wire.FromServer_Fetch:
		w.transfer(b.Fetch)
	case *wire.FromServer_End:
		if b.End.GetUnpublished() != "" {
			w.sweep(b.End)
			return
		}
		w.end(b.End)
	}
}

// end lets go of a run that is over or deleted.
func (w *Worker) end(end *wire.RunEnd) {
	id := sheaf.RunID(end.GetRun())
	if w.core.Run(id) == nil && end.GetDelete() {
		w.deleteRun(id)
		return
	}
	w.core.RunEnd(id, end.GetDelete(), w.now)
}

// sweepTimeout bounds the deletion of what merges of a deleted run have left: the servers keep its
// tombstone meanwhile.
const sweepTimeout = 5 * time.Minute

// sweep deletes what merges of a deleted run have left where it was to be published, if this client may write
// there, and then what it keeps of the run.
func (w *Worker) sweep(end *wire.RunEnd) {
	ctx, id := w.ctx, sheaf.RunID(end.GetRun())
	w.jobs.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
		defer cancel()
		place, err := w.cfg.Places.Open(end.GetUnpublished())
		if err == nil {
			err = errors.Join(publish.Sweep(ctx, place, id), place.Close())
		}
		if err != nil && sheaf.ClassOf(err) != sheaf.Denied {
			w.log.Error("what merges of a deleted run have left is not deleted", "run", id, "place", end.GetUnpublished(), "error", err)
		}
		w.post(func() { w.end(end) })
	})
}
