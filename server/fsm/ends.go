package fsm

import (
	"strconv"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// MaxLosses is how many losses within a generation fail a partition, a split,
// a merge or a reduce: what takes its node down every time must not go round for ever.
const MaxLosses = 5

// ending is how an attempt ends without a commit: freed, lost or failed.
type ending interface{ ending() }

// freed ends an attempt at no cost.
type freed struct{}

// lost ends an attempt as a loss.
type lost struct{ why string }

// failed ends an attempt by its program's or its client's fault.
type failed struct {
	kind     sheaf.FailureKind
	exitCode int32 // -1 is none
	message  string
	stderr   string
	// of the try
	startedMs  int64
	durationMs uint32
	cpuMs      uint32
	peakKiB    uint32
}

func (freed) ending()   {}
func (lost) ending()    {}
func (*failed) ending() {}

// endAttempt ends an attempt at partition i that is valid on n. Where another
// attempt is valid, only the counters move; else they decide between pending and failed.
func (s *step) endAttempt(r *state.RunTxn, i int, attempt uint32, n *state.Node, how ending) {
	t := r.Table()
	row := t.Row(i)
	var other *state.Backup
	if r.Backups > 0 {
		other = s.Backup(r.ID, uint32(i))
	}
	policy := ""
	switch how := how.(type) {
	case freed:
	case lost:
		row.Losses++
	case *failed:
		policy = onExit(r.Job, how)
		row.Failures++
		row.Failure, row.ExitCode = how.kind, how.exitCode
		row.DurationMs, row.CPUMs, row.PeakKiB = how.durationMs, how.cpuMs, how.peakKiB
		r.Failed(i, state.ErrorItem{Kind: how.kind, ExitCode: how.exitCode, Message: how.message, Stderr: how.stderr})
	}
	if other != nil {
		if other.Attempt != attempt {
			row.Attempt, row.Node = other.Attempt, other.Node
		}
		s.DeleteBackup(r, other)
		t.Set(i, row)
		return
	}
	row.State, row.StartedMs = sheaf.PartitionPending, 0
	switch how := how.(type) {
	case freed:
		row.Attempt, row.Node = 0, 0
	case lost:
		row.Attempt = 0
	case *failed:
		row.StartedMs = how.startedMs
	}
	s.decide(r, i, row, policy, n, how)
}

// decide settles a partition whose last valid attempt ended uncommitted. Its
// row is pending, with StartedMs still that of the try.
func (s *step) decide(r *state.RunTxn, i int, row table.Row, policy string, n *state.Node, how ending) {
	t := r.Table()
	switch {
	case row.Losses >= MaxLosses:
		row.State, row.Failure = sheaf.PartitionFailed, sheaf.FailLosses
		why := "its execution was lost"
		if l, ok := how.(lost); ok {
			why = l.why
		}
		r.Failed(i, state.ErrorItem{Kind: sheaf.FailLosses, ExitCode: -1, Message: "lost too often, the last time since " + why})
	case policy == sheaf.ActionFailPartition, policy == sheaf.ActionFailJob, int(row.Failures) >= r.Job.Retry.Attempts:
		row.State = sheaf.PartitionFailed
	default:
		row.StartedMs = 0
		if _, ok := how.(*failed); ok {
			row.StartedMs = s.notBefore(r.Job.Retry, uint32(row.Failures))
		}
	}
	t.Set(i, row)
	if row.State == sheaf.PartitionFailed {
		s.heed(r, policy)
	}
}

// heed stops a run of which a partition has failed, where its job says so.
func (s *step) heed(r *state.RunTxn, policy string) {
	t := r.Table()
	switch {
	case policy == sheaf.ActionFailJob:
		s.stop(r, state.StopExit, "")
	case r.Job.Failure.StopAfter != nil && t.Counts()[sheaf.PartitionFailed] > r.Job.Failure.StopAfter.Of(t.Len()):
		s.stop(r, state.StopAfter, "")
	}
}

// onExit is the action that the job's policy has for a failure; "" is none.
func onExit(job *sheaf.Job, f *failed) string {
	if f.kind != sheaf.FailExit {
		return ""
	}
	for _, p := range job.Failure.OnExit {
		for _, c := range p.Codes {
			if int32(c) == f.exitCode {
				return p.Action
			}
		}
	}
	return ""
}

// notBefore is the cluster time at which the try after so many failures may begin.
func (s *step) notBefore(retry sheaf.Retry, failures uint32) int64 {
	delay := time.Duration(retry.Delay)
	most := time.Duration(retry.MaxDelay)
	if retry.Backoff == sheaf.BackoffExponential {
		for range failures - 1 {
			if delay >= most {
				break
			}
			delay *= 2
		}
	}
	delay = min(delay, max(most, 0))
	if delay <= 0 {
		return 0
	}
	return s.TimeMs() + delay.Milliseconds()
}

// wholes are the kinds of executions that are for a run as a whole.
var wholes = [...]wire.Kind{wire.Kind_KIND_SPLIT, wire.Kind_KIND_MERGE, wire.Kind_KIND_REDUCE}

// execOf is a run's split, merge or reduce.
func execOf(r *state.Run, k wire.Kind) state.Exec {
	switch k {
	case wire.Kind_KIND_SPLIT:
		return r.Split
	case wire.Kind_KIND_REDUCE:
		return r.Reduce.Exec
	}
	return r.Merge
}

// endExec ends the valid execution of a run's split, merge or reduce without a seal or commit.
func (s *step) endExec(r *state.RunTxn, k wire.Kind, how ending) {
	row := r.Change()
	e, name := &row.Split, "splitting"
	switch k {
	case wire.Kind_KIND_MERGE:
		e, name = &row.Merge, "merging"
	case wire.Kind_KIND_REDUCE:
		e, name = &row.Reduce.Exec, "reduce "+strconv.Quote(r.Job.Reduce.Name)
	}
	switch how := how.(type) {
	case freed:
		e.Drop()
	case lost:
		e.Drop()
		e.Losses++
		if e.Losses >= MaxLosses {
			s.failWhole(r, k, name+" was lost too often, the last time since "+how.why)
		}
	case *failed:
		e.Active = false
		e.Failures++
		policy := ""
		if k == wire.Kind_KIND_REDUCE {
			noteTry(&row.Reduce, how)
			policy = onExit(r.Job, how)
		}
		if finalFailure(k, how.kind) || policy == sheaf.ActionFailPartition || policy == sheaf.ActionFailJob || int(e.Failures) >= r.Job.Retry.Attempts {
			s.failWhole(r, k, name+" failed: "+explain(how.message, how.stderr))
			return
		}
		e.NotBeforeMs = s.notBefore(r.Job.Retry, e.Failures)
	}
}

// finalFailure reports whether trying a split or merge again cannot help: the
// inputs are not as the job says, or outputs are in conflict. What a reduce cannot stage is tried
// again like a partition's.
func finalFailure(k wire.Kind, f sheaf.FailureKind) bool {
	return k == wire.Kind_KIND_SPLIT && f == sheaf.FailStage || k == wire.Kind_KIND_MERGE && f == sheaf.FailOutput
}

// failWhole fails a run whose split, merge or reduce cannot be had.
func (s *step) failWhole(r *state.RunTxn, k wire.Kind, why string) {
	if k == wire.Kind_KIND_SPLIT {
		s.stop(r, state.StopSplit, why)
		return
	}
	if k == wire.Kind_KIND_REDUCE { // what the partitions made is merged all the same
		r.Change().Reduce.Error = why
		s.gather(r)
		return
	}
	if cause := r.Error; cause != "" {
		why = cause + "; " + why
	}
	s.finish(r, sheaf.RunFailed, why)
}
