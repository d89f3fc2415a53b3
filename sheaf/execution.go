package sheaf

// Outcome is how an execution ended, as its client reports it.
type Outcome uint8

// The outcomes. Their order is part of the log's format.
const (
	OutcomeSucceeded Outcome = iota + 1
	OutcomeFailed            // counts against retry.attempts
	OutcomeLost              // the driver crashed or the client no longer knows it: counts as a loss
)

// FailureKind says why an execution failed, apart from its message.
type FailureKind uint8

// The kinds. Their order is part of the log's format.
const (
	FailNone    FailureKind = iota
	FailExit                // the program ended non-zero
	FailSignal              // the program died of a signal, or trapped
	FailTimeout             // over the task's timeout
	FailMemory              // over its memory
	FailPids                // over its pids
	FailDisk                // over its disk
	FailPrepare             // the image or module could not be made ready
	FailStage               // its inputs could not be laid out, or changed since the split
	FailOutput              // its outputs could not be kept
	FailDriver              // the driver refused or could not start it
	FailLosses              // lost too often
)

var failureKindNames = [...]string{"", "exit", "signal", "timeout", "memory", "pids", "disk", "prepare", "stage", "output", "driver", "losses"}

// String is the kind's name.
func (k FailureKind) String() string {
	if int(k) < len(failureKindNames) {
		return failureKindNames[k]
	}
	return "unknown"
}

// Retryable reports whether another try could end otherwise without a change
// by a person. A missing image or a file that changed since the split stays so.
func (k FailureKind) Retryable() bool { return k != FailLosses }
