package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/merge"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// addReduce makes the reduce of a run known, or takes its newer spec; nil where the run was not described
// or has none. To the core it is a run of its own, with one task. It shares the run's store, where what it
// makes is kept behind the partitions'.
func (w *Worker) addReduce(id sheaf.RunID) *execution.Run {
	base := w.core.Run(id)
	if base == nil || dataOf(base).spec == nil || dataOf(base).job.Reduce == nil {
		return nil
	}
	of := dataOf(base)
	job := of.job.Reducing()
	spec := proto.CloneOf(of.spec)
	spec.ImageDigest = spec.GetReduceDigest()
	s := specOf(spec, job)
	s.ID = execution.RunKey(id, wire.Kind_KIND_REDUCE)
	r := w.core.Run(s.ID)
	if r != nil && proto.Equal(dataOf(r).spec, spec) {
		return w.core.AddRun(r.Spec, false)
	}
	again := r != nil && dataOf(r).digest != "" && spec.GetImageDigest() != "" && spec.GetImageDigest() != dataOf(r).digest
	r = w.core.AddRun(s, again)
	d, _ := r.Data.(*runData)
	if d == nil {
		d = &runData{store: of.store, reduce: true}
		r.Data = d
	}
	d.spec, d.job, d.engine = spec, job, w.engines[job.Task.Driver]
	d.task, d.taskErr = sandbox.Compile(id, job, 1, w.cfg.Place)
	if d.engine == nil {
		d.taskErr = &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("this node has no driver %q", job.Task.Driver)}
	}
	return r
}

// merged is a directory with one of the outputs, merged.
type merged string

// Local implements stage.Source.
func (m merged) Local(rel string) (string, bool) { return filepath.Join(string(m), rel), true }

// gather lays the merged outputs of all partitions out for an attempt at the reduce.
func (w *Worker) gather(x *execution.Execution) func(context.Context, string) ([]stage.Input, error) {
	run := x.Run.Of()
	d, inputs := dataOf(w.core.Run(run)), dataOf(x.Run).job.Inputs
	m := &merge.Merge{
		Run: run, Generation: x.Generation, Attempt: x.Attempt, Reduce: true, Node: w.cfg.Place.NodeID, Job: d.job,
		Dir: w.cfg.TempDir, Store: d.store, Leader: w.session.Leader, Peer: w.cfg.Peer, Logger: w.log,
		Stores: w.cfg.Store.Run, Lacks: w.Lacks,
	}
	return func(ctx context.Context, dir string) ([]stage.Input, error) {
		if err := m.Gather(ctx, dir); err != nil {
			return nil, fmt.Errorf("gather the outputs of the partitions: %w", err)
		}
		var list []stage.Input
		for _, in := range inputs {
			host := filepath.Join(dir, "outputs", in.Name)
			if err := os.MkdirAll(host, 0o755); err != nil { // which has no files
				return nil, err
			}
			list = append(list, stage.Input{Name: in.Name, Mount: in.Mount, Source: merged(host)})
		}
		return list, nil
	}
}
