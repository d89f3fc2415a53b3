package fsm

import (
	"fmt"
	"path"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// noSecret is the refusal of a job that uses what it may not, or what is not
// there: which of the two is not said, and other namespaces are not looked at.
func noSecret(namespace, name, job string) *sheaf.Error {
	return &sheaf.Error{
		Class: sheaf.NotFound, Field: "task.secrets",
		Msg:  fmt.Sprintf("namespace %q has no secret %q for job %q", namespace, name, job),
		Hint: fmt.Sprintf("agent secret put %s -namespace %s -job %s", name, namespace, job),
	}
}

// writeSecret puts, grants, seals again or deletes. What a run was given already it keeps.
func (s *step) writeSecret(c *WriteSecret) error {
	if err := sheaf.CheckName("namespace", c.Namespace); err != nil {
		return err
	}
	if err := sheaf.CheckName("secret", c.Name); err != nil {
		return err
	}
	if err := checkGrants(c.Jobs); err != nil {
		return err
	}
	old := s.Secret(c.Namespace, c.Name)
	if old == nil && c.What != WriteSecret_WHAT_PUT {
		return refuse(sheaf.NotFound, "namespace %q has no secret %q", c.Namespace, c.Name)
	}
	x := &state.Secret{Namespace: c.Namespace, Name: c.Name, Jobs: c.Jobs, CreatedMs: s.TimeMs(), UpdatedMs: s.TimeMs()}
	if old != nil {
		x.CreatedMs = old.CreatedMs
		x.Sealed, x.Version = old.Sealed, old.Version
		if len(c.Jobs) == 0 {
			x.Jobs = old.Jobs
		}
	} else if len(c.Jobs) == 0 {
		x.Jobs = []string{"*"}
	}
	switch c.What {
	case WriteSecret_WHAT_PUT:
		x.Sealed, x.Version = c.Sealed, s.Index()
	case WriteSecret_WHAT_GRANT:
	case WriteSecret_WHAT_RESEAL:
		if c.Version != old.Version {
			return refuse(sheaf.Conflict, "secret %q was put again meanwhile", c.Name)
		}
		x.Sealed, x.UpdatedMs = c.Sealed, old.UpdatedMs
	case WriteSecret_WHAT_DELETE:
		s.DeleteSecret(old)
		return nil
	default:
		return fmt.Errorf("%w: WriteSecret %d", ErrUnknownCommand, c.What)
	}
	if len(x.Sealed) == 0 {
		return refuse(sheaf.Invalid, "secret %q has no value", c.Name)
	}
	s.PutSecret(x)
	return nil
}

func checkGrants(patterns []string) error {
	if len(patterns) > sheaf.MaxSecretGrants {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "jobs", Msg: fmt.Sprintf("a secret is granted to %d patterns of jobs", len(patterns)), Limit: fmt.Sprint(sheaf.MaxSecretGrants), Hint: "write patterns that take in more jobs"}
	}
	for _, p := range patterns {
		if len(p) == 0 || len(p) > sheaf.MaxNameLen {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "jobs", Msg: fmt.Sprintf("pattern of job names %.24q is %d bytes long", p, len(p)), Limit: fmt.Sprintf("1 to %d", sheaf.MaxNameLen), Hint: `write a job's name, or a pattern as in "train-*"`}
		}
		if _, err := path.Match(p, ""); err != nil {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "jobs", Msg: fmt.Sprintf("%q is no pattern of job names", p), Hint: `write a job's name, or a pattern as in "train-*"`}
		}
	}
	return nil
}
