package fsm

import (
	"fmt"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// CheckResults reports why results are malformed. The state machine answers
// malformed ones without a verdict; check before they go into the log.
func CheckResults(x *wire.Results) error {
	n := len(x.Partition)
	if len(x.Attempt) != n || len(x.Outcome) != n || len(x.Failure) != n || len(x.ExitCode) != n ||
		len(x.StartedMs) != n || len(x.DurationMs) != n || len(x.CpuMs) != n || len(x.PeakMemoryKib) != n || len(x.Digest) != 32*n {
		return refuse(sheaf.Invalid, "results of run %s: the columns differ in length", x.Run)
	}
	for i, o := range x.Outcome {
		if o < byte(sheaf.OutcomeSucceeded) || o > byte(sheaf.OutcomeLost) {
			return refuse(sheaf.Invalid, "results of run %s: partition %d has outcome %d", x.Run, x.Partition[i], o)
		}
	}
	for _, t := range x.Text {
		if int(t.Item) >= n {
			return refuse(sheaf.Invalid, "results of run %s: a text belongs to item %d of %d", x.Run, t.Item, n)
		}
	}
	return nil
}

// commitPartitions answers every item of every client, in order.
func (s *step) commitPartitions(c *CommitPartitions) error {
	s.reply.Answers = make([]*wire.Answers, len(c.Results))
	for i, x := range c.Results {
		s.reply.Answers[i] = s.commit(x)
	}
	return nil
}

// batch is the results of one run from one client.
type batch struct {
	*wire.Results
	r     *state.RunTxn
	node  *state.Node    // nil if it is not known
	fresh bool           // the session is the node's
	texts map[int]string // messages, of items that have one; looked up, never ranged over
	tails map[int]string // stderr
}

func (s *step) commit(x *wire.Results) *wire.Answers {
	a := &wire.Answers{Run: x.Run, Generation: x.Generation, Kind: x.Kind, Index: s.Index()}
	if CheckResults(x) != nil {
		return a
	}
	a.Partition, a.Attempt = x.Partition, x.Attempt
	a.Verdict = make([]byte, len(x.Partition))
	b := &batch{Results: x, r: s.Run(sheaf.RunID(x.Run)), node: s.Node(sheaf.NodeID(x.Node))}
	b.fresh = b.node != nil && b.node.Session == x.Session
	for _, t := range x.Text {
		if b.texts == nil {
			b.texts, b.tails = map[int]string{}, map[int]string{}
		}
		b.texts[int(t.Item)], b.tails[int(t.Item)] = short(t.Message, maxMessage), tail(t.Stderr, maxStderr)
	}
	for i := range x.Partition {
		v := wire.Verdict_VERDICT_SUPERSEDED
		switch {
		case b.r == nil:
		case x.Kind == wire.Kind_KIND_PARTITION && b.r.IsReduce(int(x.Partition[i])):
			v = s.endOne(b, wire.Kind_KIND_REDUCE, i) // by a client that has its record, and no longer the run's job
		case x.Kind == wire.Kind_KIND_PARTITION:
			v = s.commitOne(b, i)
		default:
			v = s.endOne(b, x.Kind, i)
		}
		a.Verdict[i] = byte(v)
	}
	if b.r != nil {
		s.settle(b.r)
	}
	return a
}

// commitOne is the verdict on one partition's result. What stands committed
// is compared first, whatever the session or the state of the run; validity next; the session last.
func (s *step) commitOne(b *batch, i int) wire.Verdict {
	r, p, attempt := b.r, int(b.Partition[i]), b.Attempt[i]
	if r.Partitions == nil || p >= r.Partitions.Len() {
		return over(r)
	}
	t := r.Table()
	row := t.Row(p)
	if row.State == sheaf.PartitionSucceeded && row.Attempt == attempt {
		return wire.Verdict_VERDICT_ALREADY
	}
	if r.Masked() {
		return over(r)
	}
	outcome := sheaf.Outcome(b.Outcome[i])
	if row.State != sheaf.PartitionAssigned && row.Attempt == attempt && row.State != sheaf.PartitionSucceeded && outcome == sheaf.OutcomeFailed && row.Failures > 0 {
		if faultDoubleCount {
			row.Failures++
			t.Set(p, row)
		}
		return wire.Verdict_VERDICT_RECORDED // this failure is on record; the answer was lost
	}
	if !s.valid(r, row, p, attempt, b.node) && !(faultNoFence && b.node != nil && outcome == sheaf.OutcomeSucceeded) {
		return over(r)
	}
	if !b.fresh {
		return wire.Verdict_VERDICT_RESEND
	}
	if outcome == sheaf.OutcomeLost {
		s.endAttempt(r, p, attempt, b.node, lost{"of " + b.text(i, "its client knew it no more")})
		return wire.Verdict_VERDICT_RECORDED
	}
	if outcome == sheaf.OutcomeFailed {
		f := b.failed(i)
		if f.kind == sheaf.FailPrepare {
			s.endAttempt(r, p, attempt, b.node, freed{})
			s.markPrepare(r, b.node, f.message, false)
			return wire.Verdict_VERDICT_RECORDED
		}
		if onExit(r.Job, f) != sheaf.ActionIgnore {
			s.endAttempt(r, p, attempt, b.node, f)
			return wire.Verdict_VERDICT_RECORDED
		}
	}
	if row.Failures > 0 || row.Failure != sheaf.FailNone {
		r.Succeeded(p)
	}
	if r.Backups > 0 {
		if other := s.Backup(r.ID, uint32(p)); other != nil {
			s.DeleteBackup(r, other)
		}
	}
	row.State, row.Attempt, row.Node, row.Failure = sheaf.PartitionSucceeded, attempt, b.node.Number, sheaf.FailNone
	row.ExitCode, row.StartedMs, row.DurationMs = b.ExitCode[i], b.StartedMs[i], b.DurationMs[i]
	row.CPUMs, row.PeakKiB = b.CpuMs[i], b.PeakMemoryKib[i]
	row.Output = table.Digest(b.Digest[32*i : 32*i+32])
	t.Set(p, row)
	return wire.Verdict_VERDICT_COMMITTED
}

// valid is the fence: the attempt is assigned to that very node and nothing
// has ended it.
func (s *step) valid(r *state.RunTxn, row table.Row, p int, attempt uint32, n *state.Node) bool {
	if n == nil || row.State != sheaf.PartitionAssigned {
		return false
	}
	if row.Attempt == attempt && row.Node == n.Number {
		return true
	}
	if r.Backups == 0 {
		return false
	}
	other := s.Backup(r.ID, uint32(p))
	return other != nil && other.Attempt == attempt && other.Node == n.Number
}

// over is the verdict on an attempt that is not valid.
func over(r *state.RunTxn) wire.Verdict {
	if r.Masked() {
		return wire.Verdict_VERDICT_CANCELLED
	}
	return wire.Verdict_VERDICT_SUPERSEDED
}

// endOne is the verdict on the result of a split, merge or reduce. The first two succeed by
// their seal alone, which comes before the result; a reduce by its result, like a partition.
func (s *step) endOne(b *batch, kind wire.Kind, i int) wire.Verdict {
	r, attempt := b.r, b.Attempt[i]
	e := execOf(r.Run, kind)
	outcome := sheaf.Outcome(b.Outcome[i])
	switch {
	case e.Done && e.Attempt == attempt:
		return wire.Verdict_VERDICT_ALREADY
	case r.Status == sheaf.RunCancelled || kind == wire.Kind_KIND_REDUCE && r.Masked():
		return wire.Verdict_VERDICT_CANCELLED
	case !e.Active && e.Attempt == attempt && outcome == sheaf.OutcomeFailed:
		return wire.Verdict_VERDICT_RECORDED
	case b.node == nil || !e.Valid(attempt, b.node.Number):
		return wire.Verdict_VERDICT_SUPERSEDED
	case !b.fresh:
		return wire.Verdict_VERDICT_RESEND
	}
	if kind == wire.Kind_KIND_REDUCE && (outcome == sheaf.OutcomeSucceeded || outcome == sheaf.OutcomeFailed && onExit(r.Job, b.failed(i)) == sheaf.ActionIgnore) {
		s.commitReduce(b, i)
		return wire.Verdict_VERDICT_COMMITTED
	}
	switch outcome {
	case sheaf.OutcomeLost:
		s.endExec(r, kind, lost{"of " + b.text(i, "its client knew it no more")})
	case sheaf.OutcomeSucceeded:
		s.endExec(r, kind, &failed{kind: sheaf.FailDriver, exitCode: -1, message: "it ended without sealing what it made"})
	default:
		f := b.failed(i)
		if kind == wire.Kind_KIND_REDUCE && f.kind == sheaf.FailPrepare {
			s.endExec(r, kind, freed{})
			s.markPrepare(r, b.node, f.message, false)
			break
		}
		s.endExec(r, kind, f)
	}
	return wire.Verdict_VERDICT_RECORDED
}

func (b *batch) text(i int, otherwise string) string {
	if t := b.texts[i]; t != "" {
		return t
	}
	return otherwise
}

// failed is item i's failure.
func (b *batch) failed(i int) *failed {
	f := &failed{kind: sheaf.FailureKind(b.Failure[i]), exitCode: b.ExitCode[i], stderr: b.tails[i],
		startedMs: b.StartedMs[i], durationMs: b.DurationMs[i], cpuMs: b.CpuMs[i], peakKiB: b.PeakMemoryKib[i]}
	otherwise := "failed: " + f.kind.String()
	if f.kind == sheaf.FailExit {
		otherwise = fmt.Sprintf("exit code %d", f.exitCode)
	}
	f.message = b.text(i, otherwise)
	return f
}
