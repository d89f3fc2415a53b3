package worker

import (
	"slices"
	"time"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
)

// carryOut carries out effects until the core has none left.
func (w *Worker) carryOut() {
	for {
		w.core.Effects(w.now, &w.fx)
		if w.fx.Empty() {
			return
		}
		w.apply(&w.fx)
	}
}

func (w *Worker) apply(fx *execution.Effects) {
	for _, r := range fx.Prepare {
		w.prepare(r)
	}
	for _, f := range fx.Fetch {
		w.fetch(f)
	}
	for _, x := range fx.Stage {
		w.stage(x)
	}
	for _, x := range fx.Start {
		w.start(x)
	}
	for _, x := range fx.Stop {
		w.stop(x)
	}
	if len(fx.Start)+len(fx.Stop) > 0 {
		for _, e := range w.engines {
			w.flushCommands(e)
		}
	}
	for _, x := range fx.Harvest {
		w.harvest(x)
	}
	w.durable.add(fx.Store, fx.Keep, fx.Drop)
	w.straysAnswered(fx.Keep, fx.Drop)
	w.sendResults(fx.Send)
	for _, x := range fx.Own {
		w.beginOwn(x)
	}
	for _, x := range fx.End {
		x.Data.(*own).cancel()
	}
	for _, r := range fx.Forget {
		w.forget(r)
	}
	w.report(fx.Reports)
	w.save(fx.Save)
	w.watchDisk(fx.Watch)
	for _, x := range fx.Hung {
		w.kill(dataOf(x.Run).engine)
	}
}

// kill ends a driver's process that does not answer; its end is handled as a crash.
func (w *Worker) kill(e *engine) {
	if e.state == engineOpen {
		w.jobs.Go(e.driver.Kill)
	}
}

// fetch reads shards for a run's window.
func (w *Worker) fetch(f execution.Fetch) {
	r, ctx := f.Run, w.ctx
	spec := dataOf(r).spec
	w.jobs.Go(func() {
		shards, err := w.reader.Shards(ctx, r.ID, spec.GetSplitAttempt(), spec.GetPartitions(), f.First, f.Count)
		w.post(func() {
			if err != nil {
				w.log.Warn("shards not read", "run", r.ID, "error", err)
				w.core.FetchFailed(r, w.now)
				return
			}
			w.core.Fetched(r, execution.Shards{First: f.First, Shards: shards})
		})
	})
}

// startCommand is the three objects of a Start in one allocation.
type startCommand struct {
	command driverpb.Command
	body    driverpb.Command_Start
	start   driverpb.Start
}

// start queues the command that starts x; flushCommands sends it.
func (w *Worker) start(x *execution.Execution) {
	d := dataOf(x.Run)
	if d.engine.state != engineOpen {
		w.core.Lost(x, "its driver's process ended before it started", w.now)
		return
	}
	c := &startCommand{}
	s := &c.start
	s.Execution, s.Handle, s.Share = x.ID, d.handle, d.share
	index := x.Partition
	if x.Kind == wire.Kind_KIND_REDUCE {
		index = 0 // it is the one there is
	}
	s.ConfigJson, s.Env = d.task.Expand(index, x.Attempt, x.ID)
	s.Env = d.secrets.set.Env(s.Env)
	if t, ok := x.Data.(*task); ok && t.space != nil {
		s.Mounts, s.WorkDir = t.space.Mounts, t.space.Scratch
		if len(d.secrets.mounts) > 0 {
			s.Mounts = append(slices.Clone(s.Mounts), d.secrets.mounts...)
		}
		if d.engine.hostPaths {
			sandbox.HostPaths(s.Env, s.Mounts)
		}
	}
	res := &d.job.Task.Resources
	s.CpuMhz, s.MemoryBytes, s.Pids, s.Network = int64(res.CPU), int64(res.Memory), int64(res.Pids), d.job.Task.Network
	c.body.Start = s
	c.command.Body = &c.body
	d.engine.batch = append(d.engine.batch, &c.command)
}

// stop queues the command that ends x.
func (w *Worker) stop(x *execution.Execution) {
	d := dataOf(x.Run)
	d.engine.batch = append(d.engine.batch, &driverpb.Command{Body: &driverpb.Command_Stop{Stop: &driverpb.Stop{
		Execution: x.ID, Signal: d.job.Task.KillSignal, GraceMs: d.grace().Milliseconds(),
	}}})
}

// grace is the time between the request to end and the kill. A task that can
// see no request has none: it would only run on.
func (d *runData) grace() time.Duration {
	if d.engine != nil && d.engine.deaf {
		return 0
	}
	return time.Duration(d.job.Task.KillTimeout)
}

// flushCommands sends what is queued for a driver. Before it is open nothing
// is: what was started is lost with the stream that it was started on.
func (w *Worker) flushCommands(e *engine) {
	if len(e.batch) == 0 {
		return
	}
	if e.state == engineOpen {
		e.driver.Send(e.batch...)
	}
	clear(e.batch)
	e.batch = e.batch[:0]
}
