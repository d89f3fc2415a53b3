package state

import "github.com/sheaf-run/agent/sheaf"

// Operator is how the servers themselves are run.
type Operator struct {
	Modified  uint64          `json:"modified"` // index of the entry that set it; 0 where none has
	Autopilot sheaf.Autopilot `json:"autopilot"`
}

// Operator is how the servers are run; the defaults until somebody set it.
func (s *Snapshot) Operator() Operator { return s.meta.operator() }

// Operator is how the servers are run.
func (t *Txn) Operator() Operator { return t.meta.operator() }

// SetOperator sets how the servers are run.
func (t *Txn) SetOperator(o Operator) { t.meta.Operator = &o }

func (m meta) operator() Operator {
	if m.Operator == nil {
		return Operator{Autopilot: sheaf.DefaultAutopilot()}
	}
	return *m.Operator
}
