package fsm

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// gather begins what follows when the last partition is over: the reduce, where the job has one that can
// still be had and the run is to succeed, else the merge. Whatever of the merge went before is void.
func (s *step) gather(r *state.RunTxn) {
	c := r.Counts()
	row := r.Change()
	row.Merge = state.Exec{Fence: row.Merge.Fence}
	row.Status = sheaf.RunMerging
	if row.Job.Reduce == nil || row.Reduce.Done || row.Reduce.Error != "" || r.Stop != state.StopNone || c.Failed+c.Cancelled > row.Job.Failure.Tolerate.Of(c.Total) {
		return
	}
	row.Status = sheaf.RunReducing
	row.Prepare = nil // the marks were of another task
}

// regather begins it anew, since an output that was read is given up: the reduce may have read it.
func (s *step) regather(r *state.RunTxn) {
	row := r.Change()
	row.Reduce = row.Reduce.Again()
	s.gather(r)
}

// placeReduce begins the reduce. Like a merge it reads what is committed, and whatever changes
// that ends this attempt.
func (s *step) placeReduce(r *state.RunTxn, n *state.Node) Placed {
	if r.Status != sheaf.RunReducing || !r.Reduce.Ready(s.TimeMs()) {
		return Placed{Refused: 1, Reason: "the run needs no reduce now"}
	}
	row := r.Change()
	row.Reduce.Place(n.Number)
	return Placed{Executions: state.One(row, wire.Kind_KIND_REDUCE, row.Reduce.Attempt)}
}

// commitReduce takes what the valid attempt made: once, and the merge follows.
func (s *step) commitReduce(b *batch, i int) {
	row := b.r.Change()
	e := &row.Reduce
	e.Active, e.Done, e.Lost, e.Failure = false, true, false, sheaf.FailNone
	e.Output = table.Digest(b.Digest[32*i : 32*i+32])
	e.ExitCode, e.Started, e.DurationMs, e.CPUMs, e.PeakKiB = b.ExitCode[i], b.StartedMs[i], b.DurationMs[i], b.CpuMs[i], b.PeakMemoryKib[i]
	s.gather(b.r)
}

// noteTry takes down how a try at the reduce failed.
func noteTry(e *state.Reduce, f *failed) {
	e.Failure, e.ExitCode, e.Started = f.kind, f.exitCode, f.startedMs
	e.DurationMs, e.CPUMs, e.PeakKiB = f.durationMs, f.cpuMs, f.peakKiB
}

// reduceLost reports whether what the reduce made is gone, or lies on a node that is down.
func (s *step) reduceLost(r *state.RunTxn) bool {
	if !r.Reduce.Done {
		return false
	}
	n := s.NodeByNumber(r.Reduce.Node)
	return r.Reduce.Lost || n == nil || n.Status != sheaf.NodeReady
}

// taskOf is the task that a run's preparing is about now.
func taskOf(r *state.Run) *sheaf.Task {
	if r.Status == sheaf.RunReducing {
		return &r.Job.Reduce.Task
	}
	return &r.Job.Task
}

// unpreparable fails a run, or its reduce, that cannot be made ready.
func (s *step) unpreparable(r *state.RunTxn, why string) {
	if r.Status == sheaf.RunReducing {
		r.Change().Reduce.Drop()
		s.failWhole(r, wire.Kind_KIND_REDUCE, "the reduce cannot be made ready"+why)
		return
	}
	s.stop(r, state.StopPrepare, "it cannot be made ready"+why)
}
