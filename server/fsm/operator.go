package fsm

import (
	"time"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// setOperator replaces the settings that the command has.
func (s *step) setOperator(c *SetOperator) error {
	was := s.Operator()
	if c.IfIndex != 0 && c.IfIndex != was.Modified {
		return refuse(sheaf.Conflict, "the settings were changed at index %d, not %d", was.Modified, c.IfIndex)
	}
	if c.Autopilot == nil {
		return refuse(sheaf.Invalid, "there are no settings to set")
	}
	ms := func(v uint64) sheaf.Duration {
		return sheaf.Duration(time.Duration(min(v, maxMs)) * time.Millisecond)
	}
	a := sheaf.Autopilot{
		CleanupDeadServers: c.Autopilot.CleanupDeadServers, DeadServerAfter: ms(c.Autopilot.DeadServerAfterMs),
		LastContactThreshold: ms(c.Autopilot.LastContactThresholdMs), MaxTrailingLogs: c.Autopilot.MaxTrailingLogs,
		MinQuorum: c.Autopilot.MinQuorum, ServerStabilizationTime: ms(c.Autopilot.ServerStabilizationMs),
	}
	if err := a.Check(); err != nil {
		return err
	}
	s.SetOperator(state.Operator{Modified: s.Index(), Autopilot: a})
	return nil
}

// maxMs keeps milliseconds within a time.Duration.
const maxMs = 1 << 40

// NewSetOperator is the command that sets a, where the settings are as index left them or index is 0.
func NewSetOperator(a sheaf.Autopilot, index uint64) *Command {
	ms := func(d sheaf.Duration) uint64 { return uint64(time.Duration(d).Milliseconds()) }
	return &Command{Body: &Command_SetOperator{SetOperator: &SetOperator{IfIndex: index, Autopilot: &Autopilot{
		CleanupDeadServers: a.CleanupDeadServers, DeadServerAfterMs: ms(a.DeadServerAfter),
		LastContactThresholdMs: ms(a.LastContactThreshold), MaxTrailingLogs: a.MaxTrailingLogs,
		MinQuorum: a.MinQuorum, ServerStabilizationMs: ms(a.ServerStabilizationTime),
	}}}}
}
