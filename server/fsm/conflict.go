package fsm

import (
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// noteConflict takes down that two outputs cannot be merged, and ends the run where its job says when it is to be given
// up. The merge decides all the same: it is not told.
func (s *step) noteConflict(c *NoteConflict) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil:
		return s.noRun(c.Run)
	case len(c.FirstDigest) != len(table.Digest{}) || len(c.SecondDigest) != len(table.Digest{}) || c.First >= c.Second:
		return refuse(sheaf.Invalid, "the conflict of run %s does not name two outputs", c.Run)
	case r.Status != sheaf.RunRunning && r.Status != sheaf.RunPending || r.Masked():
		return nil // it is being merged, or over
	}
	is := &state.Conflict{Output: c.Output, Path: c.Path, Directory: c.Directory, Between: [2]int{int(c.First), int(c.Second)},
		Manifests: [2]table.Digest{table.Digest(c.FirstDigest), table.Digest(c.SecondDigest)}}
	origins := s.Origins()
	if !origins.Between(r.Run, is) || r.Conflict != nil && origins.Between(r.Run, r.Conflict) {
		return nil
	}
	r.Change().Conflict = is
	if r.Job.Failure.StopAfter != nil {
		s.stop(r, state.StopConflict, is.Of(r.Job).Message)
	}
	return nil
}
