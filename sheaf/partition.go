package sheaf

import "time"

// PartitionState is where a partition stands. Running is reported by clients
// and not committed: in the log a running partition is assigned.
type PartitionState uint8

// The states. Their order is part of the log's format.
const (
	PartitionPending PartitionState = iota
	PartitionAssigned
	PartitionRunning
	PartitionSucceeded
	PartitionFailed
	PartitionCancelled
	PartitionReused
	partitionStates
)

// PartitionStates is how many states there are.
const PartitionStates = int(partitionStates)

var partitionStateNames = [...]string{"pending", "assigned", "running", "succeeded", "failed", "cancelled", "reused"}

// String is the state's name.
func (s PartitionState) String() string {
	if int(s) < len(partitionStateNames) {
		return partitionStateNames[s]
	}
	return "unknown"
}

// MarshalText writes the state's name.
func (s PartitionState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *PartitionState) UnmarshalText(b []byte) error {
	for i, n := range partitionStateNames {
		if n == string(b) {
			*s = PartitionState(i)
			return nil
		}
	}
	return &Error{Class: Invalid, Msg: "unknown partition state " + string(b)}
}

// Terminal reports whether the state is final within a generation.
func (s PartitionState) Terminal() bool { return s >= PartitionSucceeded }

// PartitionCounts is how many partitions of a run are in each state. They sum to Total.
type PartitionCounts struct {
	Total     int `json:"total"`
	Pending   int `json:"pending"`
	Assigned  int `json:"assigned"`
	Running   int `json:"running"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
	Reused    int `json:"reused"`
}

// Partition is one partition as the API shows it.
type Partition struct {
	Index    int            `json:"index"`
	State    PartitionState `json:"state"`
	Attempt  uint32         `json:"attempt"`  // of the latest execution; 0 before the first
	Failures int            `json:"failures"` // tries that count against retry.attempts
	Losses   int            `json:"losses"`   // within this generation
	Node     NodeID         `json:"node,omitempty"`
	ExitCode *int           `json:"exit_code,omitempty"`
	Reason   string         `json:"reason,omitempty"` // why it failed, or why it is waiting
	Started  *time.Time     `json:"started,omitempty"`
	Ended    *time.Time     `json:"ended,omitempty"`
	CPUMs    int64          `json:"cpu_ms,omitempty"`
	PeakMem  int64          `json:"peak_memory_bytes,omitempty"`
	Output   string         `json:"output_digest,omitempty"` // sha256 of the output manifest, hex
	MadeBy   *MadeBy        `json:"made_by,omitempty"`       // of a reused partition, where its output comes from
}

// MadeBy names the partition of an earlier run whose output was taken over.
type MadeBy struct {
	Run       RunID `json:"run"`
	Partition int   `json:"partition"`
}
