package fsm

import (
	"fmt"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Sets of states that a retry tells apart.
var (
	unfinished = table.Set(sheaf.PartitionPending, sheaf.PartitionAssigned)
	retryable  = table.Set(sheaf.PartitionFailed, sheaf.PartitionCancelled)
	kept       = table.Set(sheaf.PartitionSucceeded, sheaf.PartitionReused)
)

func (s *step) retryRun(c *RetryRun) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil:
		return s.noRun(c.Run)
	case r.Status == sheaf.RunMerging || r.Status == sheaf.RunReducing:
		return &sheaf.Error{Class: sheaf.Conflict, Msg: "run " + c.Run + " is " + string(r.Status) + " its outputs", Hint: "wait until it is over, then retry"}
	}
	for _, id := range r.Reads {
		if s.Peek(id) == nil {
			return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s, whose result it reads, was deleted", id), Hint: "submit the job again: it reads the newest result"}
		}
	}
	if err := s.waitAgain(r); err != nil {
		return err
	}
	if r.Partitions == nil {
		return s.retrySplit(r, c)
	}
	wanted, err := selection(r.Run, c)
	if err != nil {
		return err
	}
	over := r.Status.Terminal()
	before := r.Counts()
	t := r.Table()
	again := retryable
	if over { // what the stop masked counts as cancelled
		again |= unfinished
	}
	if c.Which == RetryRun_WHICH_LOST {
		s.reply.Partitions = s.retryLost(r)
	} else {
		for _, w := range wanted {
			t.Turn(w.First, w.Last, again, sheaf.PartitionPending, true)
		}
		s.reply.Partitions = before.Failed + before.Cancelled - s.leftAfter(r, wanted, over)
	}
	remerge, reduced := false, r.Reduce
	if s.reply.Partitions == 0 {
		remerge = c.Which == RetryRun_WHICH_FAILED && r.Status.Terminal() && r.Status != sheaf.RunSucceeded && r.HasOutputs() && (!r.Result.Sealed || r.Reduce.Error != "" || r.Job.Publish != nil && !r.Result.Published) ||
			c.Which == RetryRun_WHICH_LOST && r.Status.Terminal() && s.reduceLost(r)
		if !remerge {
			return nothingAgain(r, c)
		}
		if s.reduceLost(r) {
			reduced = reduced.Again()
		}
	}
	row := s.begin(r)
	if r.Counts().Failed == 0 {
		r.ForgetErrors()
	} else {
		for _, w := range wanted {
			for i := w.First; i <= w.Last; i++ {
				r.Succeeded(i)
			}
		}
	}
	row.Status = sheaf.RunRunning
	if remerge {
		if reduced.Done {
			row.Reduce = reduced
		}
		s.gather(r)
	}
	s.reply.Status = row.Status
	return nil
}

// nothingAgain is the refusal of a retry that names nothing to run.
func nothingAgain(r *state.RunTxn, c *RetryRun) error {
	e := &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s is %s, and none of its partitions has failed or was cancelled", c.Run, r.Status), Hint: "see: agent job status " + c.Run}
	switch c.Which {
	case RetryRun_WHICH_LOST:
		e.Msg = fmt.Sprintf("run %s is %s, and none of its outputs is lost", c.Run, r.Status)
	case RetryRun_WHICH_PARTITIONS:
		e.Msg = fmt.Sprintf("run %s is %s, and those of its partitions are under way or wait already", c.Run, r.Status)
	}
	return e
}

// selection is the partitions that a retry names.
func selection(r *state.Run, c *RetryRun) (sheaf.Ranges, error) {
	n := r.Partitions.Len()
	if c.Which == RetryRun_WHICH_FAILED && n > 0 {
		return sheaf.Ranges{{First: 0, Last: n - 1}}, nil
	}
	if c.Which != RetryRun_WHICH_PARTITIONS {
		return nil, nil
	}
	if len(c.First) == 0 || len(c.First) != len(c.Count) {
		return nil, refuse(sheaf.Invalid, "no partitions are named")
	}
	var wanted sheaf.Ranges
	for i, first := range c.First {
		last := uint64(first) + uint64(c.Count[i]) - 1
		limit := sheaf.Ranges{{First: 0, Last: n - 1}}.String()
		if c.Count[i] == 0 || i > 0 && int(first) <= wanted[len(wanted)-1].Last {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "partition", Msg: "the partitions are not in ascending order", Limit: limit}
		}
		if last >= uint64(n) {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "partition", Msg: fmt.Sprintf("run %s has no partition %d: it has %d", c.Run, max(uint64(first), uint64(n)), n), Limit: limit}
		}
		wanted = wanted.AddRange(int(first), int(last))
	}
	for _, w := range wanted {
		if done := r.Partitions.Ranges(kept, w.First, 1); len(done) > 0 && done[0].First <= w.Last {
			return nil, &sheaf.Error{Class: sheaf.Conflict, Field: "partition", Msg: "partition " + done[:1].String() + " of run " + string(r.ID) + " has succeeded", Hint: "name only partitions that failed or were cancelled"}
		}
	}
	return wanted, nil
}

// leftAfter is how many failed and cancelled partitions a retry leaves. Of a run that was
// over, what was masked and not named becomes cancelled for good.
func (s *step) leftAfter(r *state.RunTxn, wanted sheaf.Ranges, over bool) int {
	t := r.Table()
	if over {
		next := 0
		for _, w := range wanted {
			if w.First > next {
				t.Turn(next, w.First-1, unfinished, sheaf.PartitionCancelled, false)
			}
			next = w.Last + 1
		}
		if next < t.Len() {
			t.Turn(next, t.Len()-1, unfinished, sheaf.PartitionCancelled, false)
		}
	}
	c := t.Counts()
	return c[sheaf.PartitionFailed] + c[sheaf.PartitionCancelled]
}

// retryLost runs again what is committed on nodes that are down.
func (s *step) retryLost(r *state.RunTxn) int {
	t := r.Table()
	if r.Status.Terminal() && t.Len() > 0 {
		t.Turn(0, t.Len()-1, unfinished, sheaf.PartitionCancelled, false)
	}
	again := 0
	for _, l := range r.Lost {
		for i := l.First; i <= l.Last; i++ {
			if row := t.Row(i); row.State == sheaf.PartitionSucceeded {
				s.giveUp(r, i, row)
				again++
			}
		}
	}
	for i := range s.UnreachedReused(s.Peek(r.ID)) {
		if row := t.Row(i); row.State == sheaf.PartitionReused {
			s.giveUp(r, i, row)
			again++
		}
	}
	for _, c := range r.Partitions.NodeCounts() {
		n := s.NodeByNumber(c.Node)
		if c.Committed == 0 || n != nil && n.Status == sheaf.NodeReady {
			continue
		}
		for i := range r.Partitions.Held(sheaf.PartitionSucceeded, c.Node) {
			if row := t.Row(i); row.State == sheaf.PartitionSucceeded {
				s.giveUp(r, i, row)
				again++
			}
		}
	}
	return again
}

// uncommitted is a committed row, or one that was taken over, whose output must be made again.
func uncommitted(row table.Row) table.Row {
	row.State, row.StartedMs, row.Attempt, row.Node = sheaf.PartitionPending, 0, 0, 0
	row.Generation++
	row.Failures, row.Losses, row.Failure = 0, 0, sheaf.FailNone
	row.Output = table.Digest{}
	return row
}

// retrySplit begins a run again that never had partitions.
func (s *step) retrySplit(r *state.RunTxn, c *RetryRun) error {
	if !r.Status.Terminal() || c.Which != RetryRun_WHICH_FAILED {
		return refuse(sheaf.Conflict, "run %s has no partitions yet", c.Run)
	}
	row := s.begin(r)
	row.Status = sheaf.RunPending
	row.Split = state.Exec{Fence: row.Split.Fence}
	row.Manifest = state.Manifest{}
	r.ForgetErrors()
	s.reply.Status = row.Status
	return nil
}

// begin raises a run's generation. What ended the last is forgotten.
func (s *step) begin(r *state.RunTxn) *state.Run {
	row := r.Change()
	row.Generation++
	row.Stop, row.Error, row.EndedMs, row.DeadlineMs = state.StopNone, "", 0, 0
	row.Prepare, row.Lost, row.Conflict = nil, nil, nil
	row.Result = row.Result.Kept()
	row.Merge, row.Reduce = state.Exec{Fence: row.Merge.Fence}, row.Reduce.Again()
	return row
}
