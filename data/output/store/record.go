package store

import (
	"crypto/sha256"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Record is what is kept of one attempt that ended.
type Record struct {
	Partition  int
	Attempt    uint32 // from 1
	Generation uint32
	Outcome    sheaf.Outcome
	Failure    sheaf.FailureKind
	ExitCode   int32 // -1 where there is none
	Started    time.Time
	Duration   time.Duration // whole milliseconds are kept
	CPU        time.Duration // whole milliseconds are kept
	PeakMemory int64         // bytes; whole KiB are kept
	Message    string        // why it failed; at most MaxMessage bytes are kept

	Manifest []byte            // of its outputs, as output.Manifest.Encode gives it; empty where it left none
	Digest   [sha256.Size]byte // of Manifest; zeros unless it succeeded

	Stdout, Stderr LogInfo // set by Append from the attempt's logs
	Answered       bool    // set on reading
}

// LogInfo is what a record says of one log.
type LogInfo struct {
	Size    int64 // bytes that the task wrote
	Dropped int64 // of them, those cut out of the middle
}

// MaxMessage is the longest message that is kept, in bytes: it goes up with the result.
const MaxMessage = 1024

// Key names an attempt at a partition.
type Key struct {
	Partition int
	Attempt   uint32
}

// Span names the partitions First to First+Count-1 at one attempt; attempt 0
// is the latest that is kept of each.
type Span struct {
	First, Count int
	Attempt      uint32
}
