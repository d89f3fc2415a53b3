package state

import (
	"sync/atomic"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Run is one run. A Run in a snapshot never changes; nor does what it points to.
type Run struct {
	ID         sheaf.RunID     `json:"id"`
	Job        *sheaf.Job      `json:"-"`
	JobJSON    []byte          `json:"job"`      // as submitted: the same again is the same run
	Created    uint64          `json:"created"`  // raft index
	Modified   uint64          `json:"modified"` // raft index of the last change of the run or a partition
	Status     sheaf.RunStatus `json:"status"`
	Generation uint32          `json:"generation"` // from 1; raised by every retry
	Stop       StopReason      `json:"stop,omitempty"`

	// Partitions is nil until their number is known.
	Partitions *table.Table `json:"-"`
	// Backups is how many partitions have a second valid attempt.
	Backups int `json:"backups,omitempty"`

	Split    Exec     `json:"split"`
	Merge    Exec     `json:"merge"`
	Reduce   Reduce   `json:"reduce,omitzero"`
	Manifest Manifest `json:"manifest"`
	Image    string   `json:"image,omitempty"` // digest of the image or module, once resolved
	Result   Result   `json:"result"`

	// Adjusted is what was changed of how it is scheduled.
	Adjusted Adjusted `json:"adjusted,omitzero"`
	// After are the runs it comes after, as its job's names were at submission,
	// and Waits those of them that have not succeeded yet.
	After []sheaf.RunID `json:"after,omitempty"`
	Waits []sheaf.RunID `json:"waits,omitempty"`
	// Reads are the runs whose results are its inputs, pinned at submission, in the order of the inputs that
	// name one. Job names them; JobJSON is as submitted.
	Reads []sheaf.RunID `json:"reads,omitempty"`
	// Rerun says that nothing is taken over although the job has reuse.
	Rerun bool  `json:"rerun,omitempty"`
	Reuse Reuse `json:"reuse,omitzero"`
	// Remade counts the committed outputs that were given up, of a job with reuse: while it is 0, what
	// others have taken over from here stands committed.
	Remade int `json:"remade,omitempty"`
	// Nodes holds, for each partition of an ops run, the number of the one node
	// that it is for; nil for others.
	Nodes []uint32 `json:"nodes,omitempty"`

	SubmittedMs int64 `json:"submitted"`          // cluster time, Unix ms, as all here
	StartedMs   int64 `json:"started,omitempty"`  // first placement
	EndedMs     int64 `json:"ended,omitempty"`    // 0 until terminal
	DeadlineMs  int64 `json:"deadline,omitempty"` // of the job's timeout, from the generation's first placement; 0 is none

	// Conflict is what keeps the outputs from being merged, as far as it is known before the merge; see [Snapshot.Conflict].
	Conflict *Conflict `json:"conflict,omitempty"`

	Error   string        `json:"error,omitempty"` // the root cause
	Lost    sheaf.Ranges  `json:"lost,omitempty"`  // committed outputs that their nodes say they lack, of a run that is over; at most MaxLost ranges
	Errors  *ErrorLog     `json:"errors,omitempty"`
	Prepare []PrepareMark `json:"prepare,omitempty"` // ascending by node number

	digest *atomic.Uint64 // of the row and its partitions, 0 while not computed
}

// MaxLost bounds Run.Lost: a node that lost its disk reports in few ranges, and
// what is beyond is found when it is read.
const MaxLost = 1024

// StopReason says what ended a run's partitions all at once. While it is set, pending and
// assigned partitions read as cancelled.
type StopReason uint8

// The reasons. Their order is part of the snapshot's format.
const (
	StopNone      StopReason = iota
	StopCancelled            // a person did
	StopAfter                // more failed than failure.stop_after
	StopExit                 // an exit code with the action fail_job
	StopTimeout              // the job's timeout passed
	StopPrepare              // it cannot be made ready on any node
	StopSplit                // the split failed
	StopAfterRun             // a run that it comes after did not succeed
	StopConflict             // what two partitions committed cannot be merged, and the job has failure.stop_after
)

// Adjusted is how a run's scheduling differs from what its job says. The zero value is not at all.
type Adjusted struct {
	Held        bool `json:"held,omitempty"` // nothing more of it is placed
	Priority    int  `json:"priority,omitempty"`
	Parallelism *int `json:"parallelism,omitempty"` // 0 is no bound
}

// Reduce is the execution of a run's reduce, and what it made.
type Reduce struct {
	Exec
	Image      string            `json:"image,omitempty"`   // digest of its image or module, once resolved
	Output     table.Digest      `json:"output,omitzero"`   // of the manifest of its outputs, once it is done
	Started    int64             `json:"started,omitempty"` // of the try that ended last, Unix ms by its client's clock
	DurationMs uint32            `json:"duration,omitempty"`
	CPUMs      uint32            `json:"cpu,omitempty"`
	PeakKiB    uint32            `json:"peak,omitempty"`
	ExitCode   int32             `json:"exit,omitempty"`
	Failure    sheaf.FailureKind `json:"failure,omitempty"` // of that try
	Lost       bool              `json:"lost,omitempty"`    // its node says that it lacks the output, of a run that is over
	Error      string            `json:"error,omitempty"`   // why it cannot be had: the run fails with it once what is committed is merged
}

// Again is the reduce as it is before it begins, in this generation or the next.
func (r Reduce) Again() Reduce { return Reduce{Exec: Exec{Fence: r.Fence}, Image: r.Image} }

// Exec is the execution of a run's split, merge or reduce.
type Exec struct {
	Fence       uint32 `json:"fence,omitempty"`     // highest attempt ever placed
	Active      bool   `json:"active,omitempty"`    // Attempt is valid on Node
	Attempt     uint32 `json:"attempt,omitempty"`   // valid (active), committed (done), or recorded as failed; 0 if it ended without a result
	Node        uint32 `json:"node,omitempty"`      // number of its node
	Done        bool   `json:"done,omitempty"`      // Attempt stands committed: the manifest or result is sealed
	Failures    uint32 `json:"failures,omitempty"`  // in this generation
	Losses      uint32 `json:"losses,omitempty"`    // in this generation
	NotBeforeMs int64  `json:"notBefore,omitempty"` // cluster time before which it is not placed again
}

// Valid reports whether this attempt on this node may still commit.
func (e Exec) Valid(attempt, node uint32) bool {
	return e.Active && e.Attempt == attempt && e.Node == node
}

// Ready reports whether it may be placed at cluster time nowMs.
func (e Exec) Ready(nowMs int64) bool { return !e.Active && !e.Done && e.NotBeforeMs <= nowMs }

// Place begins the next attempt, on a node.
func (e *Exec) Place(node uint32) {
	e.Fence++
	e.Active, e.Attempt, e.Node = true, e.Fence, node
}

// Drop ends the valid attempt, if there is one, without a result.
func (e *Exec) Drop() {
	if e.Active {
		e.Active, e.Attempt = false, 0
	}
}

// Manifest indexes the chunks of a run's shard manifest; their bytes are in the [ChunkStore].
type Manifest struct {
	Attempt    uint32       `json:"attempt,omitempty"` // the split attempt that writes or wrote it
	Chunks     []Chunk      `json:"chunks,omitempty"`
	Sealed     bool         `json:"sealed,omitempty"`
	Partitions uint32       `json:"partitions,omitempty"`
	Root       table.Digest `json:"root"`
	Bytes      uint64       `json:"bytes,omitempty"` // sizes of all atoms
	Warnings   []string     `json:"warnings,omitempty"`
	Largest    []uint32     `json:"largest,omitempty"` // partitions with far more bytes than the mean, ascending; at most sheaf.MaxLargest
}

// Chunk is one piece of a manifest.
type Chunk struct {
	First  uint32       `json:"first"` // first partition that begins in it
	Count  uint32       `json:"count"` // partitions that begin in it
	Offset int64        `json:"offset"`
	Length uint32       `json:"length"`
	Digest table.Digest `json:"digest"`
}

// Result is the sealed result.
type Result struct {
	Sealed  bool         `json:"sealed,omitempty"`
	Attempt uint32       `json:"attempt,omitempty"` // of the merge
	Node    uint32       `json:"node,omitempty"`    // where the merged manifest lies
	Digest  table.Digest `json:"digest"`
	Files   uint64       `json:"files,omitempty"`
	Bytes   uint64       `json:"bytes,omitempty"`
	// Publishing says that the run is not over before the result is published, and Published that
	// one is: that of this generation, or of an earlier one, since a run is published once.
	Publishing bool `json:"publishing,omitempty"`
	Published  bool `json:"published,omitempty"`
	// Car is the CAR file that the result is published as, if it is: as Published, of this generation or of an earlier one.
	Car Car `json:"car,omitzero"`
}

// Kept is what of a result outlives it when the run gets another: a run is published once.
func (r Result) Kept() Result {
	if !r.Published {
		return Result{}
	}
	return Result{Published: true, Car: r.Car}
}

// Car is a CAR file.
type Car struct {
	Root    string `json:"root"`    // its CID
	Attempt uint32 `json:"attempt"` // of the merge that wrote it
}

// PrepareMark says that preparing a run on a node failed.
type PrepareMark struct {
	Node        uint32 `json:"node"`
	Tries       uint32 `json:"tries"`
	NotBeforeMs int64  `json:"notBefore"` // cluster time; before it the run gets no placement there
	Exhausted   bool   `json:"exhausted,omitempty"`
	Error       string `json:"error"`
}

// Need is what a run waits for the scheduler to place.
type Need struct {
	Split, Merge, Reduce bool
	Ready                int   // pending partitions that may be placed now
	NextMs               int64 // cluster time at which more may be placed; 0 is none
}
