package scheduler

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/sheaf"
)

// Code says why a node was refused, for programs; Reason.Text says it for people.
type Code = match.Code

// The codes, in the order in which a node is tested: the first that holds is given.
// Those of package match are what the node itself falls short of.
const (
	Down       Code = "down"       // declared lost, or gossip holds it for dead
	Ineligible Code = "ineligible" // a person set it aside
	Joining    Code = "joining"    // registered, not reconciled yet
	Datacenter      = match.Datacenter
	NoDriver        = match.NoDriver
	Unhealthy       = match.Unhealthy
	Constraint      = match.Constraint
	NoSource        = match.NoSource
	NoFile          = match.NoFile
	NoPlace         = match.NoPlace
	CPU             = match.CPU
	Memory          = match.Memory
	Disk            = match.Disk
	Pids            = match.Pids
	Pinned     Code = "pinned"         // the work is bound to another node's files
	Refusing   Code = "refusing"       // the client said that it takes no work
	Prepare    Code = "prepare_failed" // the image or module could not be made ready there
	Full       Code = "full"           // fits, and has its share of this run already
	Failing    Code = "failing"        // executions of other runs fail there: others come first
	Near       Code = "near"           // has data of the run: not why it takes no work, but why it does
)

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
	// Preferred are nodes that get work before others or after them, and why.
	Preferred []Reason `json:"preferred,omitempty"`
}

// Placeable reports whether any node could take the work, now or later.
func (e Explanation) Placeable() bool { return e.Feasible > 0 }

// textReasons is how many reasons Text gives in full.
const textReasons = 4

// Text is the reasons in a sentence, with how many nodes each holds for; empty without any.
func (e Explanation) Text() string {
	var parts []string
	for i, r := range e.Reasons {
		if i == textReasons {
			parts = append(parts, fmt.Sprintf("and %d more reasons", len(e.Reasons)-i))
			break
		}
		who := fmt.Sprintf("%d nodes", len(r.Nodes))
		if len(r.Nodes) == 1 {
			who = "node " + string(r.Nodes[0])
		}
		parts = append(parts, who+": "+r.Text)
	}
	return strings.Join(parts, "; ")
}
