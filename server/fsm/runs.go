package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

func (s *step) registerJob(c *RegisterJob) error {
	if err := sheaf.CheckName("run", c.Run); err != nil {
		return err
	}
	id := sheaf.RunID(c.Run)
	if old := s.Peek(id); old != nil {
		if !bytes.Equal(old.JobJSON, c.JobJson) {
			return &sheaf.Error{Class: sheaf.Conflict, Field: "id", Msg: "run " + c.Run + " exists with another job", Hint: "choose another ID"}
		}
		s.reply.Existing, s.reply.Status = true, old.Status
		return nil
	}
	if s.Tombstone(id) != nil {
		return &sheaf.Error{Class: sheaf.Conflict, Field: "id", Msg: "run " + c.Run + " was deleted", Hint: "choose another ID"}
	}
	job := new(sheaf.Job)
	if err := json.Unmarshal(c.JobJson, job); err != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "job", Msg: "the job cannot be read", Err: err}
	}
	if job.Type != sheaf.JobOps && job.Split == nil && (job.Count < 1 || job.Count > sheaf.MaxPartitions) {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "count", Msg: fmt.Sprintf("count is %d", job.Count), Limit: fmt.Sprintf("1 to %d", sheaf.MaxPartitions)}
	}
	if job.Retry.Attempts < 1 || job.Retry.Attempts > 100 {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "retry.attempts", Msg: fmt.Sprintf("retry.attempts is %d", job.Retry.Attempts), Limit: "1 to 100"}
	}
	if name := s.MissingSecret(job); name != "" {
		return noSecret(job.Namespace, name, job.Name)
	}
	if s.Namespace(namespaceOf(job)) == nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "namespace", Msg: fmt.Sprintf("there is no namespace %q", job.Namespace), Hint: "`agent namespace list` shows those there are"}
	}
	r := &state.Run{ID: id, Job: job, JobJSON: c.JobJson, Status: sheaf.RunPending, Generation: 1, SubmittedMs: s.TimeMs()}
	switch {
	case job.Type == sheaf.JobOps:
		if err := s.bind(r); err != nil {
			return err
		}
	case !job.Splits():
		r.Partitions = table.New(job.Count)
	}
	r.Adjusted.Held, r.Rerun = c.Held, c.Rerun
	if err := s.comesAfter(r); err != nil {
		return err
	}
	if err := s.Pin(r); err != nil {
		return err
	}
	row := s.InsertRun(r)
	if why := s.unmet(r.Waits); why != "" {
		s.stop(row, state.StopAfterRun, why)
	}
	s.reply.Status = row.Status
	return nil
}

// cancelRun ends a run at once. One that is over stays what it is, and so does one whose
// result is sealed: all that is left is to publish it.
func (s *step) cancelRun(c *CancelRun) error {
	r := s.Run(sheaf.RunID(c.Run))
	if r == nil {
		return s.noRun(c.Run)
	}
	if !r.Status.Terminal() && !r.Result.Publishing {
		r.Change().Stop = state.StopCancelled
		s.finish(r, sheaf.RunCancelled, "")
	}
	s.reply.Status = r.Status
	return nil
}

func (s *step) deleteRun(c *DeleteRun) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil && s.Tombstone(sheaf.RunID(c.Run)) != nil:
		return nil
	case r == nil:
		return s.noRun(c.Run)
	case !r.Status.Terminal():
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s is %s", c.Run, r.Status), Hint: "stop it first"}
	}
	if other := s.HeldBy(r.Run); other != nil {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s has taken over outputs of run %s", other.ID, c.Run), Hint: "delete that run first"}
	}
	readers := s.Readers()
	if other := readers[r.ID]; other != "" {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s reads the result of run %s", other, c.Run), Hint: "wait until it is over, or stop it"}
	}
	if err := s.bury(r); err != nil {
		return err
	}
	for _, id := range c.More {
		if r := s.Run(sheaf.RunID(id)); r != nil && r.Status.Terminal() && s.HeldBy(r.Run) == nil && readers[r.ID] == "" {
			if err := s.bury(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *step) bury(r *state.RunTxn) error {
	s.Txn.DeleteRun(r, &state.Tombstone{Run: r.ID, DeletedMs: s.TimeMs(), Unpublished: r.Unpublished()})
	if err := s.Chunks().Delete(r.ID, 0); err != nil {
		return fmt.Errorf("delete its manifest: %w", err)
	}
	return nil
}

func (s *step) reapRuns(c *ReapRuns) error {
	for _, id := range c.Runs {
		if t := s.Tombstone(sheaf.RunID(id)); t != nil {
			s.DeleteTombstone(t)
		}
	}
	return nil
}

func (s *step) setImageDigest(c *SetImageDigest) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil:
		return s.noRun(c.Run)
	case c.Digest == "":
		return refuse(sheaf.Invalid, "the digest is empty")
	}
	is := r.Image
	if c.Kind == wire.Kind_KIND_REDUCE {
		is = r.Reduce.Image
	}
	switch {
	case is != "":
	case c.Kind == wire.Kind_KIND_REDUCE:
		r.Change().Reduce.Image = c.Digest
		is = c.Digest
	default:
		r.Change().Image = c.Digest
		is = c.Digest
	}
	s.reply.Digest = is
	if is != c.Digest {
		return refuse(sheaf.Conflict, "run %s uses %s, and %s was resolved", c.Run, is, c.Digest)
	}
	return nil
}

// stop ends all of a run's partitions at once, and fails it. An empty why
// is made from the failures. What is committed is still merged.
func (s *step) stop(r *state.RunTxn, reason state.StopReason, why string) {
	if r.Stop != state.StopNone || r.Status.Terminal() || r.Result.Publishing {
		return
	}
	row := r.Change()
	row.Stop = reason
	row.Split.Drop()
	if why == "" {
		why = rootCause(r)
	}
	row.Error = why
	s.dropBackups(r)
	if r.Partitions == nil || r.Status == sheaf.RunMerging || r.Status == sheaf.RunReducing {
		s.finish(r, sheaf.RunFailed, why)
		return
	}
	s.settle(r)
}

// settle moves a run on whose last partition may have become terminal.
func (s *step) settle(r *state.RunTxn) {
	if r.Status != sheaf.RunRunning && r.Status != sheaf.RunPending || r.Partitions == nil {
		return
	}
	if c := r.Counts(); c.Pending+c.Assigned > 0 {
		return
	}
	if r.HasOutputs() && r.Stop != state.StopConflict { // what cannot be merged need not be tried
		s.gather(r)
		return
	}
	s.conclude(r)
}

// conclude ends a run whose partitions are all terminal, and merged if they had
// outputs. Those that a retry left cancelled are as little done as failed ones.
func (s *step) conclude(r *state.RunTxn) {
	switch c := r.Counts(); {
	case r.Stop != state.StopNone:
		s.finish(r, sheaf.RunFailed, r.Error)
	case c.Failed+c.Cancelled > r.Job.Failure.Tolerate.Of(c.Total):
		s.finish(r, sheaf.RunFailed, rootCause(r))
	case r.Reduce.Error != "":
		s.finish(r, sheaf.RunFailed, r.Reduce.Error)
	default:
		s.finish(r, sheaf.RunSucceeded, "")
	}
}

// finish makes a run terminal.
func (s *step) finish(r *state.RunTxn, status sheaf.RunStatus, why string) {
	row := r.Change()
	row.Status, row.Error, row.EndedMs, row.DeadlineMs = status, why, s.TimeMs(), 0
	row.Result.Publishing = false
	row.Split.Drop()
	row.Merge.Drop()
	row.Reduce.Drop()
	s.dropBackups(r)
	s.letGo(r)
}

func (s *step) dropBackups(r *state.RunTxn) {
	if r.Backups > 0 {
		for _, b := range s.Backups(r.ID) {
			s.DeleteBackup(r, b)
		}
	}
}

// rootCause is a run's error: how many failed, and of what most of them did.
func rootCause(r *state.RunTxn) string {
	c := r.Counts()
	why := fmt.Sprintf("%d of %d partitions failed", c.Failed, c.Total)
	if c.Cancelled > 0 && r.Stop == state.StopNone {
		why += fmt.Sprintf(" and %d stayed cancelled", c.Cancelled)
	}
	if n := r.Job.Failure.Tolerate.Of(c.Total); n > 0 {
		why += fmt.Sprintf(", %d are tolerated", n)
	}
	if r.Errors == nil {
		return why
	}
	var most *sheaf.ErrorGroup
	for i := range r.Errors.Groups {
		if g := &r.Errors.Groups[i].Group; most == nil || g.Count > most.Count {
			most = g
		}
	}
	if most == nil {
		return why
	}
	where := ""
	if len(most.Partitions) > 0 {
		where = fmt.Sprintf("partition %d: ", most.Partitions[0].First)
	}
	return why + "; " + where + explain(most.Message, most.Example)
}

// explain is a message with the last line of stderr behind it.
func explain(message, stderr string) string {
	lines := strings.Split(strings.TrimRight(stderr, "\n\r \t"), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	switch {
	case last == "":
		return message
	case message == "":
		return last
	}
	return message + ": " + last
}
