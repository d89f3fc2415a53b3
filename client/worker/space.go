package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// watchEvery is how often what executions have written is measured.
const watchEvery = time.Second

// stage makes the directories of x beside the loop.
func (w *Worker) stage(x *execution.Execution) {
	d := dataOf(x.Run)
	if err := w.openInputs(d); err != nil {
		w.core.StageFailed(x, sheaf.FailStage, "its inputs cannot be read: "+err.Error())
		return
	}
	req := sandbox.Request{
		Run: x.Run.Of(), Partition: x.Partition, Attempt: x.Attempt, Store: d.store,
		Outputs: d.job.Outputs, Inputs: d.inputs, Shard: d.whole, Whole: true, Stager: d.stager,
	}
	if x.Shard != nil {
		req.Shard, req.Whole = *x.Shard, false
	}
	ctx, beside := w.ctx, w.do
	if x.Kind == wire.Kind_KIND_REDUCE { // which takes long, and waits for other nodes
		req.Gather, beside = w.gather(x), w.jobs.Go
	}
	beside(func() {
		space, err := w.cfg.Spaces.Make(ctx, req)
		w.post(func() {
			switch {
			case err == nil:
				taskOf(x).space = space
				w.core.Staged(x, w.now)
			case noRoom(err) && ctx.Err() == nil && x.Stop != execution.StopKilled:
				w.stageLater(x, err)
			case errors.Is(err, sandbox.ErrOutputs):
				w.core.StageFailed(x, sheaf.FailOutput, err.Error())
			default:
				w.core.StageFailed(x, sheaf.FailStage, err.Error())
			}
		})
	})
}

// noRoom reports whether a disk is full: no fault of the task, and it may pass.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// stageLater tries again after a while; until then the node takes no more work.
func (w *Worker) stageLater(x *execution.Execution, err error) {
	w.refuse(err)
	time.AfterFunc(noRoomPause, func() {
		w.post(func() {
			w.refuse(nil)
			w.stage(x)
		})
	})
}

// openInputs opens the sources of a run, once.
func (w *Worker) openInputs(d *runData) error {
	if d.stager != nil {
		return nil
	}
	st := &stage.Stager{Links: !d.engine.hostPaths, ShardMount: sandbox.ShardMount}
	if d.job.Split != nil {
		st.ShardFile = func(to io.Writer, s sheaf.Shard) error {
			_, err := to.Write(shard.AppendShardFile(nil, &s))
			return err
		}
	}
	d.whole = shard.Whole(d.job.Inputs)
	if d.reduce { // its inputs are what each attempt gathers
		d.stager = st
		return nil
	}
	for _, in := range d.job.Inputs {
		src, err := source.Open(in.Source, w.cfg.Sources)
		if err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
		d.sources = append(d.sources, src)
		d.inputs = append(d.inputs, stage.Input{Name: in.Name, Mount: in.Mount, Source: src})
	}
	d.stager = st
	return nil
}

// harvest digests what x left, if that is wanted, and removes the rest.
func (w *Worker) harvest(x *execution.Execution) {
	t := taskOf(x)
	d := dataOf(x.Run)
	wanted := x.Result.Keeps() && x.Stop != execution.StopKilled
	limit := int64(d.job.Task.Resources.Disk)
	ctx := w.ctx
	w.do(func() {
		h := harvested{}
		if t.space != nil {
			h = harvest(ctx, t.space, wanted, limit)
		}
		if (!wanted || h.err != nil) && len(d.job.Outputs) > 0 {
			if err := d.store.DeleteOutput(keyOf(x.Partition, x.Attempt)); err != nil {
				w.log.Warn("output not deleted", "execution", x.ID, "error", err)
			}
		}
		if t.space != nil {
			if err := t.space.Remove(); err != nil {
				w.log.Warn("directories not removed", "execution", x.ID, "error", err)
			}
		}
		w.post(func() {
			if ctx.Err() != nil {
				return // nothing is known of it; the next process finds it unrecorded
			}
			if h.err != nil {
				w.core.HarvestFailed(x, h.kind, h.err.Error())
				return
			}
			t.manifest = h.manifest
			w.core.Harvested(x, h.digest)
		})
	})
}

// harvested is what came of a harvest.
type harvested struct {
	manifest []byte
	digest   [32]byte
	kind     sheaf.FailureKind
	err      error
}

func harvest(ctx context.Context, space *sandbox.Space, wanted bool, limit int64) harvested {
	if !wanted {
		return harvested{}
	}
	if err := space.Verify(); err != nil {
		return harvested{kind: sheaf.FailStage, err: err}
	}
	if len(space.Outputs) == 0 {
		return harvested{digest: output.Digest(nil)}
	}
	m, err := output.Harvest(ctx, space.Outputs, output.Limits{Bytes: limit})
	if err != nil {
		kind := sheaf.FailOutput
		if sheaf.ClassOf(err) == sheaf.TooLarge {
			kind = sheaf.FailDisk
		}
		return harvested{kind: kind, err: err}
	}
	b := m.Encode()
	return harvested{manifest: b, digest: output.Digest(b)}
}

// watch is the measuring of what executions write; one pass at a time.
type watch struct {
	busy bool
	last time.Time
}

// watchDisk measures executions that are no longer young, and stops those that
// have written more than their disk.
func (w *Worker) watchDisk(list []*execution.Execution) {
	if len(list) == 0 || w.watch.busy || w.now.Sub(w.watch.last) < watchEvery {
		return
	}
	type watched struct {
		id    string
		space *sandbox.Space
		most  int64
	}
	var all []watched
	for _, x := range list {
		t := taskOf(x)
		most := int64(dataOf(x.Run).job.Task.Resources.Disk)
		if t.space != nil && most > 0 {
			all = append(all, watched{x.ID, t.space, most})
		}
	}
	w.watch.busy, w.watch.last = true, w.now
	w.jobs.Go(func() {
		var over []string
		for _, a := range all {
			if a.space.Used(a.most) > a.most {
				over = append(over, a.id)
			}
		}
		w.post(func() {
			w.watch.busy = false
			for _, id := range over {
				if x := w.core.Find(id); x != nil {
					w.core.OverDisk(x, w.now)
				}
			}
		})
	})
}
