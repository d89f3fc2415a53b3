package server

import (
	"context"
	"io"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/events"
	"github.com/sheaf-run/agent/server/provenance"
	"github.com/sheaf-run/agent/server/reuse"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// RetryKind says which partitions a retry runs again.
type RetryKind string

// The kinds of retry.
const (
	RetryFailed     RetryKind = "failed"     // failed and cancelled ones
	RetryPartitions RetryKind = "partitions" // those named
	RetryLost       RetryKind = "lost"       // committed ones whose outputs are on lost nodes
)

// RunChange is what to change of how a run is scheduled; nil fields stay.
type RunChange struct {
	Held        *bool // nothing more of it is placed; what runs goes on
	Priority    *int  // 1..100
	Parallelism *int  // executions under way at once; 0 is no bound
}

// Submitted answers a submission or another change of a run.
type Submitted struct {
	Run     sheaf.RunStub
	Index   uint64 // raft index at which it is so
	Created bool   // false: the same run was there before
}

// Progress is what the leader measures of a run while it goes; none of it is in the log.
type Progress struct {
	Rate            float64 // partitions ended a second, lately
	ETALow, ETAHigh time.Duration
	ETA             bool              // whether the two above say anything
	Running         sheaf.Ranges      // assigned partitions that clients reported started
	Slowest         []sheaf.Partition // running longest, at most 3
	Waiting         []string          // what the run waits for, in words
	Backups         int               // second attempts at slow partitions that are under way
	Warnings        []string
}

// Explanation is why a run or a partition is where it is.
type Explanation struct {
	Run       sheaf.RunID           `json:"run"`
	Status    sheaf.RunStatus       `json:"status"`
	Summary   []string              `json:"summary"` // in words, the most important first
	Placement scheduler.Explanation `json:"placement"`
	Partition *sheaf.Partition      `json:"partition,omitempty"`
}

// Member is one server of the region.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"` // in gossip; empty where that does not know it
	Version string `json:"version,omitempty"`
	Address string `json:"address"` // host:port of its RPC listener
	HTTP    string `json:"http,omitempty"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"` // as gossip says

	// What the leader knows of it; nil elsewhere.
	Health *Health `json:"health,omitempty"`
}

// Health is how a server does, as the leader sees it.
type Health struct {
	Healthy     bool           `json:"healthy"`
	StableSince time.Time      `json:"stable_since"` // when healthy last changed
	LastContact sheaf.Duration `json:"last_contact"` // since it heard of the leader; negative never
	LastTerm    uint64         `json:"last_term"`
	LastIndex   uint64         `json:"last_index"`
}

// SubmitOptions are what a submission says of a run beside its job.
type SubmitOptions struct {
	Held  bool // nothing of it is placed until a Change releases it
	Rerun bool // it takes over nothing from earlier runs, although its job has reuse
}

// API is what the HTTP layer may ask of a server. Writes are for the leader: elsewhere they
// fail with class NotLeader. All methods may be called concurrently.
type API interface {
	Access

	// Ready is closed once the server knows its cluster's leader and, where
	// it leads itself, takes work.
	Ready() <-chan struct{}
	// Leader is the RPC address of the leader, empty when none is known, and
	// whether it is this server.
	Leader() (address string, self bool)
	// Leads reports whether this server leads and takes work: a little later than raft made it the leader.
	Leads() bool
	// LastContact is how long ago this server heard of its leader; 0 on the leader.
	LastContact() time.Duration
	// VerifyRead returns once what Snapshot gives holds everything that was
	// acknowledged before the call.
	VerifyRead(ctx context.Context) error
	// LeaderChanged is closed when another server leads, or none, or Leads changes. Take it before asking.
	LeaderChanged() <-chan struct{}
	Members() []Member
	// Leave hands leadership on and takes this server out of the cluster. The process
	// should end then. The only voter cannot leave (Conflict).
	Leave(ctx context.Context) error
	// RemovePeer takes a server out of the configuration. One that is alive is refused unless
	// force is given: the leader would take it in again.
	RemovePeer(ctx context.Context, id string, force bool) error
	// Transfer hands leadership to the voter id; with "" to whichever is furthest.
	Transfer(ctx context.Context, id string) error
	// SetAutopilot replaces the settings where they are as index left them; 0 asks no such thing.
	SetAutopilot(ctx context.Context, a sheaf.Autopilot, index uint64) (at uint64, err error)
	// Tolerance is how many servers may fail while a quorum is left; -1 where this server does not lead.
	Tolerance() int
	// SaveSnapshot writes a snapshot of all that was acknowledged to w, in the form that
	// consensus.OpenArchive reads.
	SaveSnapshot(ctx context.Context, w io.Writer) error
	// RestoreSnapshot reads such a snapshot, verifies it, and makes it the state of all servers. One of another
	// cluster is refused (Conflict) unless force is given; nothing has changed then.
	RestoreSnapshot(ctx context.Context, r io.Reader, force bool) (state.Summary, error)
	// RaftStats is what raft says of itself, in its own words.
	RaftStats() map[string]string
	// Snapshot is the newest state that this server has applied. It never
	// changes; its watches say when to look again.
	Snapshot() *state.Snapshot

	// Submit makes a run of a complete job, or finds that it is there already
	// (Conflict where the same ID has another job).
	Submit(ctx context.Context, id sheaf.RunID, job sheaf.Job) (Submitted, error)
	// SubmitWith is Submit with options.
	SubmitWith(ctx context.Context, id sheaf.RunID, job sheaf.Job, with SubmitOptions) (Submitted, error)
	// Grant is a token by which a node may read the result of a run for a preview. Only the leader gives one.
	Grant(node sheaf.NodeID, run sheaf.RunID) ([]byte, error)
	// Diff says of each partition of a job whose split makes this manifest whether it would run, and why.
	Diff(ctx context.Context, job sheaf.Job, manifest [][]byte, each func(reuse.Line) error) error
	// Shards calls each for partitions of a run in a row with what they read, of each at most so many atoms.
	Shards(ctx context.Context, run *state.Run, first, count, atoms int, each func(provenance.Read) error) error
	// WhyRan says of a partition of a run with reuse why it was not taken over from an earlier run.
	WhyRan(ctx context.Context, r *state.Run, partition int) ([]string, error)
	// Cancel ends a run; one that is over stays as it is, without an error.
	Cancel(ctx context.Context, id sheaf.RunID) (Submitted, error)
	// Retry runs partitions again in the next generation. Conflict says why not.
	Retry(ctx context.Context, id sheaf.RunID, kind RetryKind, partitions sheaf.Ranges) (Submitted, error)
	// Change changes how a run that is not over is scheduled.
	Change(ctx context.Context, id sheaf.RunID, change RunChange) (Submitted, error)
	// Delete forgets a run that is over, and its outputs.
	Delete(ctx context.Context, id sheaf.RunID) (index uint64, err error)
	// SetEligible sets whether a node gets new work.
	SetEligible(ctx context.Context, id sheaf.NodeID, eligible bool) (index uint64, err error)

	// Events is what happened lately, as this server has applied it.
	Events() *events.Log
	// Drain begins to empty a node, or gives the emptying another deadline. What still
	// runs there after the deadline is ended and placed elsewhere; 0 is at once,
	// less than 0 waits for ever.
	Drain(ctx context.Context, id sheaf.NodeID, deadline time.Duration) (index uint64, err error)
	// CancelDrain makes a node that is being emptied, or was, eligible again.
	CancelDrain(ctx context.Context, id sheaf.NodeID) (index uint64, err error)
	// DrainProgress says how far the emptying of a node is.
	DrainProgress(id sheaf.NodeID) (sheaf.DrainProgress, error)
	// Avoided says of nodes to which others are preferred, since too much fails there, why; none on followers.
	Avoided() map[sheaf.NodeID]string
	// Purge forgets a node that is down; with force although outputs lie only there.
	Purge(ctx context.Context, id sheaf.NodeID, force bool) (index uint64, err error)
	// PutSecret makes a secret, or gives it a new value; no jobs keep the grants that are there,
	// and for a new one are all of its namespace.
	PutSecret(ctx context.Context, namespace, name string, jobs []string, value sheaf.Secret) (stub sheaf.SecretStub, index uint64, err error)
	// GrantSecret changes which jobs may use a secret.
	GrantSecret(ctx context.Context, namespace, name string, jobs []string) (stub sheaf.SecretStub, index uint64, err error)
	// DeleteSecret forgets a secret. Runs that have it keep it.
	DeleteSecret(ctx context.Context, namespace, name string) (index uint64, err error)
	// ResealSecrets seals all secrets with the newest key that are sealed with another.
	ResealSecrets(ctx context.Context) (resealed int, err error)

	// Progress is what is measured of a run; the zero value on followers.
	Progress(id sheaf.RunID) Progress
	// Explain says why a run, or with partition >= 0 that partition, is where it is.
	Explain(id sheaf.RunID, partition int) (Explanation, error)
	// Evaluations are the leader's requests to itself to look at runs, by run; none on followers.
	Evaluations() []sheaf.Evaluation
	// Obstacles is how the nodes would take the job if it were submitted now.
	Obstacles(job sheaf.Job) scheduler.Explanation
	// Node is a connection to a node's own service. It is shared: callers do not close it.
	Node(id sheaf.NodeID) (wire.NodesClient, error)
}
