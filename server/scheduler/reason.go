package scheduler

import "github.com/sheaf-run/agent/sheaf"

// Code says why a node was refused, for programs; Reason.Text says it for people.
type Code string

// The codes, in the order in which a node is tested: the first that holds is given.
const (
	Down       Code = "down"       // declared lost, or gossip holds it for dead
	Ineligible Code = "ineligible" // a person set it aside
	Joining    Code = "joining"    // registered, not reconciled yet
	NoDriver   Code = "no_driver"
	Unhealthy  Code = "unhealthy_driver"
	NoSource   Code = "no_source" // cannot read an input
	Pinned     Code = "pinned"    // the work is bound to another node's files
	CPU        Code = "cpu"       // the node is too small for one execution, in all
	Memory     Code = "memory"
	Disk       Code = "disk"
	Pids       Code = "pids"
	Refusing   Code = "refusing"       // the client said that it takes no work
	Prepare    Code = "prepare_failed" // the image or module could not be made ready there
	Full       Code = "full"           // fits, and has its share of this run already
)

// Permanent reports whether the reason stays until the node or the job changes.
func (c Code) Permanent() bool { return c != Full && c != Joining && c != Refusing && c != Down }

// Reason is why one or more nodes take no further work of a run.
type Reason struct {
	Code  Code           `json:"code"`
	Text  string         `json:"text"` // one sentence, with the numbers
	Nodes []sheaf.NodeID `json:"nodes"`
}

// Explanation is how one evaluation saw the nodes.
type Explanation struct {
	Nodes    int      `json:"nodes"`    // known in all
	Feasible int      `json:"feasible"` // could take the work, now or when space frees
	Reasons  []Reason `json:"reasons,omitempty"`
}

// Placeable reports whether any node could take the work, now or later.
func (e Explanation) Placeable() bool { return e.Feasible > 0 }
