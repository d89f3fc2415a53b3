package sheaf

import "time"

// RunStatus is where a run stands.
type RunStatus string

// The states of a run, in the order it passes them.
const (
	RunPending   RunStatus = "pending"
	RunSplitting RunStatus = "splitting"
	RunRunning   RunStatus = "running"
	RunReducing  RunStatus = "reducing"
	RunMerging   RunStatus = "merging"
	RunSucceeded RunStatus = "succeeded"
	RunFailed    RunStatus = "failed"
	RunCancelled RunStatus = "cancelled"
)

// Terminal reports whether the run is over (until a retry raises its generation).
func (s RunStatus) Terminal() bool {
	return s == RunSucceeded || s == RunFailed || s == RunCancelled
}

// RunStub is a run as lists show it.
type RunStub struct {
	ID         RunID           `json:"id"`
	Name       string          `json:"name"` // the job's
	Namespace  string          `json:"namespace"`
	Priority   int             `json:"priority"`
	Held       bool            `json:"held,omitempty"` // nothing more of it is placed until it is released
	Status     RunStatus       `json:"status"`
	Generation int             `json:"generation"`
	Partitions PartitionCounts `json:"partitions"`
	Error      string          `json:"error,omitempty"` // the root cause
	Submitted  time.Time       `json:"submitted"`
	Started    *time.Time      `json:"started,omitempty"`
	Ended      *time.Time      `json:"ended,omitempty"`
}

// RunSummary is a run with what a person asks of it while it goes.
type RunSummary struct {
	RunStub
	Rate         float64         `json:"rate"`              // partitions ended a second, lately
	ETALow       *Duration       `json:"eta_low,omitempty"` // a range; absent when nothing can be said
	ETAHigh      *Duration       `json:"eta_high,omitempty"`
	Bytes        int64           `json:"bytes,omitempty"`         // of the shards, where there is a split
	Waiting      []string        `json:"waiting,omitempty"`       // what it waits for, in words
	Slowest      []Partition     `json:"slowest,omitempty"`       // running longest, at most 3
	Backups      int             `json:"backups,omitempty"`       // second attempts at slow partitions that are under way
	Failures     []ErrorGroup    `json:"failures,omitempty"`      // grouped by message, at most 10
	Warnings     []string        `json:"warnings,omitempty"`      // of the split, and of what is compared while it runs
	Conflict     *OutputConflict `json:"conflict,omitempty"`      // between outputs that are committed, as soon as it is known: the merge will fail of it
	Unreached    int             `json:"unreached,omitempty"`     // committed outputs whose node is gone
	ResultSHA    string          `json:"result_sha,omitempty"`    // digest of the sealed result's manifest
	Published    string          `json:"published,omitempty"`     // URL of the published result's manifest, or of the CAR file that it is
	PublishedCID string          `json:"published_cid,omitempty"` // root of that CAR file
	Reduce       *Partition      `json:"reduce,omitempty"`        // of a job with one, once its partitions are over; its index is how many these are
}

// ErrorGroup is the failures that share a cause.
type ErrorGroup struct {
	Message    string `json:"message"`
	ExitCode   *int   `json:"exit_code,omitempty"`
	Partitions Ranges `json:"partitions"`
	Count      int    `json:"count"`
	Example    string `json:"example,omitempty"` // last lines of one stderr
}
