package fsm

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// changeRun changes how a run is scheduled. What runs goes on.
func (s *step) changeRun(c *ChangeRun) error {
	r := s.Run(sheaf.RunID(c.Run))
	switch {
	case r == nil:
		return s.noRun(c.Run)
	case r.Status.Terminal():
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("run %s is over: %s", c.Run, r.Status), Hint: "only a run that is not over can be changed"}
	case c.Priority != nil && (*c.Priority < 1 || *c.Priority > 100):
		return &sheaf.Error{Class: sheaf.Invalid, Field: "priority", Msg: fmt.Sprintf("priority is %d", *c.Priority), Limit: "1 to 100"}
	case c.Parallelism != nil && *c.Parallelism > sheaf.MaxPartitions:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "parallelism", Msg: fmt.Sprintf("parallelism is %d", *c.Parallelism), Limit: fmt.Sprintf("0 (no bound) to %d", sheaf.MaxPartitions)}
	}
	to := r.Adjusted
	if c.Held != nil {
		to.Held = *c.Held
	}
	if c.Priority != nil {
		to.Priority = int(*c.Priority)
	}
	if c.Parallelism != nil {
		n := int(*c.Parallelism)
		to.Parallelism = &n
	}
	r.Change().Adjusted = to
	s.reply.Status = r.Status
	return nil
}
