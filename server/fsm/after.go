package fsm

import (
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// comesAfter pins what a job comes after to runs: a run by its ID, else the latest
// run of a job by that name. Those that succeeded are not waited for. What is pinned has been
// there before, so that runs never wait for each other in a circle.
func (s *step) comesAfter(r *state.Run) error {
	for i, name := range r.Job.After {
		before := s.Peek(sheaf.RunID(name))
		if before == nil || before.Job.Namespace != r.Job.Namespace {
			before = s.LatestRun(r.Job.Namespace, name)
		}
		if before == nil {
			return &sheaf.Error{Class: sheaf.Invalid, Field: fmt.Sprintf("after[%d]", i), Msg: fmt.Sprintf("there is no run or job %q in namespace %q to come after", name, r.Job.Namespace), Hint: "submit that job first"}
		}
		if slices.Contains(r.After, before.ID) {
			continue
		}
		r.After = append(r.After, before.ID)
		if before.Status != sheaf.RunSucceeded {
			r.Waits = append(r.Waits, before.ID)
		}
	}
	return nil
}

// unmet says which of the runs that are waited for can not succeed any more; "" is none.
func (s *step) unmet(waits []sheaf.RunID) string {
	for _, id := range waits {
		switch before := s.Peek(id); {
		case before == nil:
			return fmt.Sprintf("run %s, which it comes after, was deleted", id)
		case before.Status.Terminal() && before.Status != sheaf.RunSucceeded:
			return notSucceeded(before)
		}
	}
	return ""
}

func notSucceeded(before *state.Run) string {
	why := fmt.Sprintf("run %s, which it comes after, was %s", before.ID, before.Status)
	if before.Status == sheaf.RunFailed {
		why = fmt.Sprintf("run %s, which it comes after, failed", before.ID)
	}
	if before.Error != "" {
		why += ": " + before.Error
	}
	return short(why, maxMessage)
}

// letGo tells the runs that wait for one that has ended: they wait no longer for
// it, or fail with it.
func (s *step) letGo(ended *state.RunTxn) {
	for _, id := range s.WaitingRuns() {
		if !slices.Contains(s.Peek(id).Waits, ended.ID) {
			continue
		}
		r := s.Run(id)
		if r.Status.Terminal() || !slices.Contains(r.Waits, ended.ID) {
			continue
		}
		s.reply.Freed = append(s.reply.Freed, id)
		if ended.Status != sheaf.RunSucceeded {
			s.stop(r, state.StopAfterRun, notSucceeded(ended.Run))
			continue
		}
		r.Change().Waits = slices.DeleteFunc(slices.Clone(r.Waits), func(x sheaf.RunID) bool { return x == ended.ID })
	}
}

// waitAgain begins to wait again, for a retry of a run that failed with one that it comes after.
func (s *step) waitAgain(r *state.RunTxn) error {
	if !r.Status.Terminal() || len(r.Waits) == 0 {
		return nil
	}
	if why := s.unmet(r.Waits); why != "" {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: why, Hint: "retry that run first, or submit this job again"}
	}
	r.Change().Waits = slices.DeleteFunc(slices.Clone(r.Waits), func(id sheaf.RunID) bool { return s.Peek(id).Status == sheaf.RunSucceeded })
	return nil
}
