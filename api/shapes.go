package api

import (
	"encoding/json"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// SubmitRequest asks for a run of a job. The same ID with the same job again is the same run;
// with another job it is a Conflict.
type SubmitRequest struct {
	ID    sheaf.RunID `json:"id,omitempty"`    // made by the agent when empty
	Hold  bool        `json:"hold,omitempty"`  // nothing of it is placed until it is released
	Rerun bool        `json:"rerun,omitempty"` // nothing is taken over from earlier runs, although the job has reuse
	Job   sheaf.Job   `json:"job"`
}

// ChangeRequest changes how a run that is not over is scheduled. What is nil stays.
type ChangeRequest struct {
	Held        *bool `json:"held,omitempty"`
	Priority    *int  `json:"priority,omitempty"`    // 1..100
	Parallelism *int  `json:"parallelism,omitempty"` // executions under way at once, in place of the job's bound; 0 is no bound
}

// SubmitReply says which run it is, and whether this request made it.
type SubmitReply struct {
	Run     sheaf.RunStub `json:"run"`
	Created bool          `json:"created"`
	Index   uint64        `json:"index"` // at which it stands in the log
}

// ParseRequest asks the agent to read a jobspec.
type ParseRequest struct {
	HCL  string            `json:"hcl"`
	Vars map[string]string `json:"vars,omitempty"`
}

// Run is a run with its job.
type Run struct {
	sheaf.RunStub
	Job      sheaf.Job `json:"job"`
	Image    string    `json:"image_digest,omitempty"` // of the image or module, once resolved
	Warnings []string  `json:"warnings,omitempty"`
}

// RetryRequest asks for partitions to run again. Exactly one of the fields is set.
type RetryRequest struct {
	Failed     bool         `json:"failed,omitempty"`
	Lost       bool         `json:"lost,omitempty"`
	Partitions sheaf.Ranges `json:"partitions,omitempty"`
}

// Reason is one thing that holds something up or led to it.
type Reason struct {
	What string       `json:"what"`           // in words
	Node sheaf.NodeID `json:"node,omitempty"` // whom it concerns
	Name string       `json:"name,omitempty"` // of that node
	// Nodes is of how many nodes it is true, where none is named.
	Nodes int `json:"nodes,omitempty"`
}

// Explanation answers why a run or partition is where it is.
type Explanation struct {
	Subject string   `json:"subject"` // "run" or "partition N"
	State   string   `json:"state"`
	Reasons []Reason `json:"reasons"`
}

// PreviewRequest asks how the inputs of a job would be split.
type PreviewRequest struct {
	Job   sheaf.Job `json:"job"`
	Limit int       `json:"limit,omitempty"` // partitions wanted whole; 0 is all
	Diff  bool      `json:"diff,omitempty"`  // instead of the partitions, which of them would run, and why
}

// PreviewLine is a line of the reply: a partition, or at last the total.
type PreviewLine struct {
	Partition json.RawMessage `json:"partition,omitempty"`
	Diff      *DiffLine       `json:"diff,omitempty"`
	Total     *PreviewTotal   `json:"total,omitempty"`
}

// DiffLine is what would become of partitions in a row.
type DiffLine struct {
	First   int         `json:"first"`
	Last    int         `json:"last"`
	From    sheaf.RunID `json:"from,omitempty"`    // the run of which their outputs are taken over; without it they run
	MadeAs  int         `json:"made_as,omitempty"` // the partition of that run that First is
	Reasons []string    `json:"reasons,omitempty"` // why they run
}

// PreviewTotal sums a preview up.
type PreviewTotal struct {
	Partitions    int      `json:"partitions"`
	Atoms         int64    `json:"atoms"`
	Bytes         int64    `json:"bytes"`
	SmallestBytes int64    `json:"smallest_bytes"`
	LargestBytes  int64    `json:"largest_bytes"`
	Listed        int64    `json:"listed"`
	Warnings      []string `json:"warnings,omitempty"`
}

// PlanReply is what would hold a job up.
type PlanReply struct {
	Eligible  int      `json:"eligible_nodes"`
	Obstacles []Reason `json:"obstacles,omitempty"`
	// Reads are the runs whose results the job would read, in the order of its inputs that name one.
	Reads []sheaf.RunID `json:"reads,omitempty"`
}

// Record is what is kept of a partition's latest ended execution. In a stream of
// records Stdout and Stderr may come in several lines: More says that the next
// line goes on with this record's logs.
type Record struct {
	Partition int          `json:"partition"`
	Attempt   uint32       `json:"attempt"`
	ExitCode  int          `json:"exit_code"`
	Files     []sheaf.File `json:"files,omitempty"`
	Stdout    []byte       `json:"stdout,omitempty"` // base64
	Stderr    []byte       `json:"stderr,omitempty"`
	More      bool         `json:"more,omitempty"`
}

// ErrorsReply is a run's failures grouped by their message.
type ErrorsReply struct {
	Groups []sheaf.ErrorGroup `json:"groups"`
}

// Self describes an agent.
type Self struct {
	Version    string       `json:"version"`
	Region     string       `json:"region"`
	Datacenter string       `json:"datacenter"`
	Name       string       `json:"name"`
	Server     bool         `json:"server"`
	Client     bool         `json:"client"`
	NodeID     sheaf.NodeID `json:"node_id,omitempty"`
	Dev        bool         `json:"dev"`
	Started    time.Time    `json:"started"`
}

// Member is an agent as gossip knows it.
type Member struct {
	Name    string            `json:"name"`
	Address string            `json:"address"` // of gossip
	RPC     string            `json:"rpc,omitempty"`
	Role    string            `json:"role"` // "server", "client" or "server,client"
	Status  string            `json:"status"`
	Leader  bool              `json:"leader,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// Health says whether an agent can do its work, and why not.
type Health struct {
	Live    bool     `json:"live"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

// State is what a server has applied of the log.
type State struct {
	Index  uint64 `json:"index"`  // of the newest entry
	Digest string `json:"digest"` // of all that it holds
}

// DrainRequest empties a node: it gets nothing new, what it has not begun goes elsewhere,
// what runs goes on until the deadline, and its outputs move to other nodes.
type DrainRequest struct {
	Deadline string `json:"deadline,omitempty"` // from now, as in "1h"; "" waits for as long as it takes
	Force    bool   `json:"force,omitempty"`    // what runs is ended at once
	Cancel   bool   `json:"cancel,omitempty"`   // use the node again; the other two do not count
}

// EligibilityRequest says whether a node gets new work.
type EligibilityRequest struct {
	Eligible bool `json:"eligible"`
}
