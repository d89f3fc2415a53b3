package worker

import (
	"context"
	"errors"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/merge"
	"github.com/sheaf-run/agent/client/split"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// own is a split or merge under way.
type own struct{ cancel context.CancelFunc }

// beginOwn runs a split or merge beside the loop.
func (w *Worker) beginOwn(x *execution.Execution) {
	ctx, cancel := context.WithCancel(w.ctx)
	x.Data = &own{cancel: cancel}
	d := dataOf(x.Run)
	if x.Kind == wire.Kind_KIND_SPLIT && d.job.Reuse && d.spec.GetImageDigest() == "" && !w.core.Ready(x.Run) {
		d.resolving = append(d.resolving, func(err error) {
			if err != nil {
				cancel()
				w.core.OwnFailed(x, sheaf.OutcomeFailed, sheaf.FailPrepare, "it cannot be made ready: "+execution.Clip(err.Error(), execution.MaxMessage), w.now)
				return
			}
			w.runOwn(ctx, cancel, x)
		})
		if w.core.AskPrepare(x.Run) {
			w.prepare(x.Run)
		}
		return
	}
	w.runOwn(ctx, cancel, x)
}

// resolved goes on with the splits that waited to learn the digest of their run's image or module:
// whether a partition is made anew depends on it.
func (w *Worker) resolved(d *runData, err error) {
	waiting := d.resolving
	d.resolving = nil
	for _, f := range waiting {
		f(err)
	}
}

func (w *Worker) runOwn(ctx context.Context, cancel context.CancelFunc, x *execution.Execution) {
	d := dataOf(x.Run)
	var run func(context.Context) error
	switch x.Kind {
	case wire.Kind_KIND_SPLIT:
		u := &split.Upload{
			Run: x.Run.ID, Attempt: x.Attempt, Node: w.cfg.Place.NodeID, Job: d.job,
			Sources: w.cfg.Sources, Dir: w.cfg.TempDir, Leader: w.session.Leader, Image: d.spec.GetImageDigest(),
		}
		if u.Image == "" {
			u.Image = d.digest
		}
		run = u.Do
	case wire.Kind_KIND_MERGE:
		m := &merge.Merge{
			Run: x.Run.ID, Generation: x.Generation, Attempt: x.Attempt, Node: w.cfg.Place.NodeID, Job: d.job,
			Dir: w.cfg.TempDir, Store: d.store, Leader: w.session.Leader, Peer: w.cfg.Peer, Places: w.cfg.Places, Logger: w.log,
			Stores: w.cfg.Store.Run, Lacks: w.Lacks,
		}
		run = m.Do
	default:
		run = func(context.Context) error {
			return &sheaf.Error{Class: sheaf.Unsupported, Msg: "this client does not know executions of kind " + x.Kind.String()}
		}
	}
	w.jobs.Go(func() {
		defer cancel()
		err := run(ctx)
		w.post(func() { w.ownEnded(x, err, ctx.Err() != nil) })
	})
}

func (w *Worker) ownEnded(x *execution.Execution, err error, cancelled bool) {
	if err == nil || errors.Is(err, split.ErrSuperseded) || errors.Is(err, merge.ErrSuperseded) || cancelled && errors.Is(err, context.Canceled) {
		w.core.OwnSealed(x)
		return
	}
	w.log.Warn("execution failed", "execution", x.ID, "error", err)
	// What a person must mend is told by its kind: the servers do not try it again.
	kind := sheaf.FailDriver
	switch class := sheaf.ClassOf(err); {
	case class == sheaf.Internal || class == sheaf.Unavailable || class == sheaf.TimedOut:
	case x.Kind == wire.Kind_KIND_MERGE:
		kind = sheaf.FailOutput
	default:
		kind = sheaf.FailStage
	}
	msg := err.Error()
	if e, ok := errors.AsType[*sheaf.Error](err); ok && e.Hint != "" {
		msg += "; " + e.Hint
	}
	w.core.OwnFailed(x, sheaf.OutcomeFailed, kind, msg, w.now)
}
