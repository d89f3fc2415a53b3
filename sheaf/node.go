package sheaf

import "time"

// NodeStatus is what the servers hold of a client.
type NodeStatus string

// The states of a node.
const (
	NodeReady NodeStatus = "ready"
	NodeDown  NodeStatus = "down" // its executions were declared lost
)

// Node is a client as the servers see it.
type Node struct {
	ID         NodeID            `json:"id"`
	Name       string            `json:"name"`
	Region     string            `json:"region"`
	Datacenter string            `json:"datacenter"`
	Class      string            `json:"class,omitempty"`
	Address    string            `json:"address"` // host:port of its RPC listener
	Status     NodeStatus        `json:"status"`
	Eligible   bool              `json:"eligible"`
	Session    uint64            `json:"session"`   // raised by every registration
	Resources  Resources         `json:"resources"` // what executions may take in all
	Attributes map[string]string `json:"attributes,omitempty"`
	Drivers    []NodeDriver      `json:"drivers"`
	Sources    []NodeSource      `json:"sources,omitempty"`
	Registered time.Time         `json:"registered"`
	Drain      *NodeDrain        `json:"drain,omitempty"` // nil unless it is being emptied, or was
	// Avoided is why others are preferred to it at present, in words; empty where they are not. Only the leader knows, and only its
	// answers say so: it is in no state.
	Avoided string `json:"avoided,omitempty"`
}

// NodeDrain is the emptying of a node: it gets nothing new, what runs there
// goes on until the deadline, and committed outputs move to other nodes.
type NodeDrain struct {
	Began    time.Time  `json:"began"`
	Deadline *time.Time `json:"deadline,omitempty"` // what still runs then is ended and placed elsewhere; nil is none
	Done     *time.Time `json:"done,omitempty"`     // since then nothing is left there
}

// DrainProgress is how far the emptying of a node is.
type DrainProgress struct {
	Node    Node     `json:"node"`
	Running int      `json:"running"` // executions assigned there
	Outputs int      `json:"outputs"` // committed outputs and merged results that still lie there
	Waiting []string `json:"waiting"` // what it waits for, in words
}

// NodeDriver is a task driver of a node.
type NodeDriver struct {
	Name       string            `json:"name"`
	Healthy    bool              `json:"healthy"`
	Reason     string            `json:"reason,omitempty"` // why it is not healthy
	Attributes map[string]string `json:"attributes,omitempty"`
}

// NodeSource is a kind of source that a node can read. For "file" there is
// one for each directory that jobs may read, for "s3" one for each pattern of buckets, for "https" of hosts.
type NodeSource struct {
	Scheme string `json:"scheme"`
	Root   string `json:"root,omitempty"`   // "file": the directory, "/" allows any; "s3", "https": a pattern of buckets or hosts
	Shared bool   `json:"shared,omitempty"` // every client that lists it sees the same files
	// Writable says that results may be published there.
	Writable bool `json:"writable,omitempty"`
}
