package execution

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Phase is where an execution stands. What is queued is no object and has no
// phase; a run's preparing holds back all of its executions at once.
type Phase uint8

// The phases, in order. Each may be skipped where it has nothing to do.
const (
	Staging    Phase = iota // its directories are being made
	Running                 // with the driver
	Harvesting              // its outputs are being digested or removed, and its directories removed
	Storing                 // its record is on the way to the disk
	Durable                 // its result may be sent; what is left of it is the Result
)

var phaseNames = [...]string{"staging", "running", "harvesting", "storing", "durable"}

// String is the phase's name.
func (p Phase) String() string { return phaseNames[p] }

// Stop says why the client ends an execution before its time.
type Stop uint8

// The reasons. A later one never replaces an earlier one, except that Killed
// replaces all: nobody waits for that result any more.
const (
	StopNone Stop = iota
	StopTimeout
	StopDisk
	StopKilled // superseded or cancelled
)

// Execution is one attempt that has begun and is not durable yet. The core
// owns all of it but Data, which is the caller's own.
type Execution struct {
	Run        *Run
	Kind       wire.Kind
	Partition  uint32
	Attempt    uint32
	Generation uint32
	ID         string
	Phase      Phase
	Shard      *sheaf.Shard // nil without a split
	Need       Need         // reserved, and given back in two steps: all but disk when it ends, disk when it is durable
	Begun      time.Time    // when it left the queue
	Started    time.Time    // when the driver was told; zero before
	Stop       Stop
	StopSent   time.Time
	State      []byte // by which the driver would know it after a restart; empty when it cannot outlive the driver
	Data       any

	Saved  bool    // in the checkpoint, from which it must go once it is durable
	Result *Result // set when it has ended

	busy      bool // its own work (split, merge) is under way
	reported  bool // as running
	holdsDisk bool
	holdsRest bool
}

// Result is an execution that has ended. Text is nil where nothing is to be said.
type Result struct {
	Run        *Run
	Kind       wire.Kind
	Partition  uint32
	Attempt    uint32
	Generation uint32
	Outcome    sheaf.Outcome
	Failure    sheaf.FailureKind
	ExitCode   int32 // -1 where there is none
	StartedMs  int64 // Unix
	DurationMs uint32
	CPUMs      uint32
	PeakKiB    uint32
	Digest     [32]byte
	Text       *Text
	// Unwanted results are of executions that were killed: their record is kept
	// for its logs, and never sent.
	Unwanted bool
	// Ignored failures count as succeeded by the job's on_exit, which is the
	// servers' to say. Their outputs are kept, and their digest is sent, until the answer.
	Ignored bool
	// Stray results are of attempts whose output was found at the start of this
	// process, without a record: they ask whether it is committed, and are not
	// listed in Hello.
	Stray bool
}

// Keeps reports whether the outputs are kept until the result is answered.
func (r *Result) Keeps() bool { return r.Outcome == sheaf.OutcomeSucceeded || r.Ignored }

// Text is what is said of a failed execution.
type Text struct {
	Message string // at most MaxMessage bytes
	Stderr  string // at most MaxStderr bytes, the last lines
}

// Bounds of Text, by the protocol.
const (
	MaxMessage = 1 << 10
	MaxStderr  = 2 << 10
)

// next lists the phases that may follow each.
var next = [...][]Phase{
	Staging:    {Running, Harvesting, Storing},
	Running:    {Harvesting, Storing},
	Harvesting: {Storing},
	Storing:    {Durable},
	Durable:    nil,
}

// step moves e to phase to.
func (e *Execution) step(to Phase) {
	for _, p := range next[e.Phase] {
		if p == to {
			e.Phase = to
			return
		}
	}
	panic(fmt.Sprintf("execution: %s cannot go from %v to %v", e.ID, e.Phase, to))
}

// Deadline is when e has used up its timeout; zero while there is none.
func (e *Execution) Deadline() time.Time {
	if e.Run.Timeout <= 0 || e.Started.IsZero() {
		return time.Time{}
	}
	return e.Started.Add(e.Run.Timeout)
}

// Outlives reports whether the execution has a state by which a driver started
// anew can find it.
func (e *Execution) Outlives() bool { return len(e.State) > 0 }
