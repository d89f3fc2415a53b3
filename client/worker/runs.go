package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/client/driver"
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// maxPrepareCrashes is how often preparing a run may take its driver down
// before the run is refused on this node.
const maxPrepareCrashes = 3

// runData is what the loop knows of a run beside the core.
type runData struct {
	spec      *wire.RunSpec // nil for a run of which only old results are here
	job       *sheaf.Job
	task      *sandbox.Task
	taskErr   error // the task cannot be compiled here
	engine    *engine
	store     *store.Run
	inputs    []stage.Input // opened with the first staging
	sources   []source.Source
	stager    *stage.Stager
	whole     sheaf.Shard // of a partition without a split: all inputs
	handle    string
	digest    string // of the image or module, as prepared
	preparing bool
	resolving []func(error) // splits that wait for digest
	asked     int           // how often it was prepared: only the answer to the latest counts
	crashes   int
	specSaved bool
	share     string  // whose executions may follow each other in one sandbox; "" where each has its own
	secrets   secrets // as of the last time it was prepared
	reading   bool    // its secrets are being read for logs
	reduce    bool    // it is the reduce of a run
}

func dataOf(r *execution.Run) *runData { return r.Data.(*runData) }

// bare makes a run known of which only results are here.
func (w *Worker) bare(id sheaf.RunID) (*execution.Run, error) {
	if r := w.core.Run(id); r != nil {
		return r, nil
	}
	st, err := w.cfg.Store.Run(id)
	if err != nil {
		return nil, fmt.Errorf("open the store of run %s: %w", id, err)
	}
	r := w.core.AddRun(execution.Spec{ID: id}, false)
	r.Data = &runData{store: st, job: &sheaf.Job{}}
	return r, nil
}

// addRun makes a run known, or takes its newer spec.
func (w *Worker) addRun(spec *wire.RunSpec) (*execution.Run, error) {
	id := sheaf.RunID(spec.GetRun())
	if r := w.core.Run(id); r != nil && dataOf(r).spec != nil && proto.Equal(dataOf(r).spec, spec) {
		return w.core.AddRun(r.Spec, false), nil
	}
	job := &sheaf.Job{}
	if err := json.Unmarshal(spec.GetJobJson(), job); err != nil {
		return nil, fmt.Errorf("read the job of run %s: %w", id, err)
	}
	r, err := w.bare(id)
	if err != nil {
		return nil, err
	}
	d := dataOf(r)
	d.spec, d.job, d.specSaved = spec, job, false
	d.engine = w.engines[job.Task.Driver]
	d.share = shareOf(job)
	d.task, d.taskErr = sandbox.Compile(id, job, int(spec.GetPartitions()), w.cfg.Place)
	if d.engine == nil {
		d.taskErr = &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("this node has no driver %q", job.Task.Driver)}
	}
	again := d.digest != "" && spec.GetImageDigest() != "" && spec.GetImageDigest() != d.digest
	return w.core.AddRun(specOf(spec, job), again), nil
}

// shareOf is the same for the runs of one task: a namespace's job of that name with exactly that task.
func shareOf(job *sheaf.Job) string {
	if job.Isolation != sheaf.IsolationRun {
		return ""
	}
	text, err := json.Marshal([]any{job.Namespace, job.Name, job.Task})
	if err != nil {
		panic("a task that was read from JSON cannot be written: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// specOf is the core's part of a run.
func specOf(spec *wire.RunSpec, job *sheaf.Job) execution.Spec {
	s := execution.Spec{
		ID: sheaf.RunID(spec.GetRun()), Generation: spec.GetGeneration(), Driver: job.Task.Driver,
		Need: execution.NeedOf(job.Task.Resources), Weight: weightOf(spec, job), Timeout: time.Duration(job.Task.Timeout),
		Shards: job.Split != nil || job.Splits() && len(job.Inputs) > 0, Stages: len(job.Inputs) > 0 || len(job.Outputs) > 0 || secret.HasFiles(&job.Task), Limits: job.Task.Resources,
	}
	for _, p := range job.Failure.OnExit {
		if p.Action == sheaf.ActionIgnore {
			s.Ignore = append(s.Ignore, p.Codes...)
		}
	}
	return s
}

// weightFloor is added to a run's priority, so that priority 100 gets about ten times of a
// node what priority 1 gets, not a hundred times; the servers weigh runs the same way.
const weightFloor = 10

func weightOf(spec *wire.RunSpec, job *sheaf.Job) int {
	if p := spec.GetPriority(); p > 0 {
		return weightFloor + int(p)
	}
	return weightFloor + job.Priority
}

// prepare has the driver make a run ready.
func (w *Worker) prepare(r *execution.Run) {
	d := dataOf(r)
	if d.taskErr != nil {
		w.prepared(r, nil, d.taskErr)
		return
	}
	e := d.engine
	e.used = w.now
	d.asked++
	if e.state != engineOpen {
		e.pending = append(e.pending, r)
		w.open(e)
		return
	}
	d.preparing = true
	req := &driverpb.PrepareRequest{
		Run: string(r.Of()), ConfigJson: d.task.Raw(), PinnedDigest: d.spec.GetImageDigest(),
		MemoryBytes: int64(d.job.Task.Resources.Memory), Network: d.job.Task.Network,
	}
	ctx, asked, job := w.ctx, d.asked, d.job
	w.jobs.Go(func() {
		given, err := w.equip(ctx, r, job)
		var resp *driverpb.PrepareResponse
		if err == nil {
			req.RegistryCredentials = given.set.Registry(&job.Task)
			resp, err = w.makeReady(ctx, e, job, req)
		}
		err = given.maskError(err)
		w.post(func() {
			if asked != d.asked {
				return // the driver's process has ended since: the handle means nothing to the next
			}
			if given.set != nil {
				d.secrets = given
			}
			d.preparing = false
			w.prepared(r, resp, err)
		})
	})
}

// makeReady fetches what the driver needs, and has it prepare.
func (w *Worker) makeReady(ctx context.Context, e *engine, job *sheaf.Job, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	files, err := w.bring(ctx, job, req.ConfigJson)
	if err != nil {
		return nil, err
	}
	defer files.done()
	req.ConfigJson = files.config
	resp, err := e.driver.Prepare(ctx, req)
	if err != nil && files.of != "" {
		err = fmt.Errorf("%s: %w", files.of, err)
	}
	return resp, err
}

// prepared goes on with a run that was prepared, or was not, and tells the servers.
func (w *Worker) prepared(r *execution.Run, resp *driverpb.PrepareResponse, err error) {
	d := dataOf(r)
	if w.ctx.Err() != nil {
		return
	}
	if err != nil && driver.Crashed(err) {
		if d.crashes++; d.crashes < maxPrepareCrashes {
			w.unprepare(d.engine)
			w.resolved(d, err)
			return
		}
	}
	result := &wire.PrepareResult{Run: string(r.Of()), Kind: r.Kind()}
	if err != nil {
		w.log.Warn("run cannot be prepared", "run", r.ID, "driver", r.Driver, "error", err)
		d.crashes = 0
		result.Error = execution.Clip(err.Error(), execution.MaxMessage)
		switch sheaf.ClassOf(err) {
		case sheaf.Invalid, sheaf.NotFound, sheaf.TooLarge, sheaf.Unsupported, sheaf.Denied:
			result.Invalid = true
		}
		w.core.PrepareFailed(r)
	} else {
		w.release(r, d)
		d.handle, d.digest, d.crashes = resp.GetHandle(), resp.GetDigest(), 0
		result.Digest = resp.GetDigest()
		w.core.Prepared(r, w.now)
	}
	w.up.prepared = append(w.up.prepared, result)
	w.sendPrepared()
	w.resolved(d, err)
}

// release gives up the handle that a run was prepared with, if it has one.
func (w *Worker) release(r *execution.Run, d *runData) {
	e, handle, ctx := d.engine, d.handle, w.ctx
	d.handle = ""
	if e == nil || handle == "" || e.state != engineOpen {
		return
	}
	w.jobs.Go(func() {
		if err := e.driver.Release(ctx, handle); err != nil && ctx.Err() == nil {
			w.log.Debug("handle not released", "run", r.ID, "error", err)
		}
	})
}

// forget lets go of a run of which nothing is left.
func (w *Worker) forget(r *execution.Run) {
	d := dataOf(r)
	for _, s := range d.sources {
		_ = s.Close() // nothing of it is open any more
	}
	d.sources, d.inputs = nil, nil
	w.reader.Forget(r.ID)
	w.cfg.Spaces.ForgetRun(r.Of())
	if secret.HasFiles(&d.job.Task) {
		w.forgetSecrets(r.ID)
	}
	if d.specSaved {
		w.saver.removeRun(r.ID)
	}
	w.release(r, d)
	if r.Deleted() && !d.reduce {
		w.deleteRun(r.ID)
	}
}
