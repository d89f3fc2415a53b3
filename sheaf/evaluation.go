package sheaf

import "time"

// EvaluationStatus is where a request to look at a run stands.
type EvaluationStatus string

// The states of an evaluation.
const (
	EvaluationQueued  EvaluationStatus = "queued"  // it waits for its turn
	EvaluationWaiting EvaluationStatus = "waiting" // it waits for a time
	EvaluationRunning EvaluationStatus = "running" // an evaluator has it
	EvaluationFailing EvaluationStatus = "failing" // it failed and is tried again after a pause
	EvaluationAside   EvaluationStatus = "aside"   // it failed too often: it waits for a change of its run, or for minutes
)

// Evaluation is the leader's request to itself to look at a run and place what it needs. A
// run has at most one; one that needs nothing has none.
type Evaluation struct {
	Run       RunID            `json:"run"`
	Namespace string           `json:"namespace"`
	Priority  int              `json:"priority"`
	Status    EvaluationStatus `json:"status"`
	Failures  int              `json:"failures,omitempty"` // in a row
	Cause     string           `json:"cause,omitempty"`    // of the last failure
	Due       *time.Time       `json:"due,omitempty"`      // when it is tried again
}
