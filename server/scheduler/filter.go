package scheduler

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/sheaf"
)

// maxTexts is how many texts one code may have: nodes that each differ by a name of
// their own are told in one.
const maxTexts = 16

// collector groups nodes by reason.
type collector struct {
	byText map[string]int
	texts  map[Code]int
	list   []Reason
}

func (c *collector) add(code Code, text string, node sheaf.NodeID) {
	if c.byText == nil {
		c.byText, c.texts = map[string]int{}, map[Code]int{}
	}
	i, ok := c.byText[text]
	if !ok && c.texts[code] >= maxTexts {
		text = "does not do either, for a reason of its own like the others (" + string(code) + ")"
		i, ok = c.byText[text]
	}
	if !ok {
		i = len(c.list)
		c.byText[text] = i
		c.texts[code]++
		c.list = append(c.list, Reason{Code: code, Text: text})
	}
	c.list[i].Nodes = append(c.list[i].Nodes, node)
}

// reasons gives those with the most nodes first.
func (c *collector) reasons() []Reason {
	slices.SortStableFunc(c.list, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(len(b.Nodes), len(a.Nodes)), cmp.Compare(a.Text, b.Text))
	})
	return c.list
}

// filter keeps the nodes that can do the work, by ID, with their slots.
func filter(r *Request) ([]candidate, Explanation) {
	in, wants := match.Inputs(r.Job), match.Of(r.Job)
	var refused collector
	var kept []candidate
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if code, text := refuse(r, n, wants); code != "" {
			refused.add(code, text, n.ID)
			continue
		}
		c := candidate{Node: n, preference: wants.Preference(n.Node)}
		c.slots, c.limit = slots(n, r.Job)
		kept = append(kept, c)
	}
	kept = pin(r, kept, in, &refused)
	slices.SortFunc(kept, func(a, b candidate) int { return cmp.Compare(a.ID, b.ID) })
	return kept, Explanation{Nodes: len(r.Nodes), Feasible: len(kept), Reasons: refused.reasons(), Preferred: append(avoided(kept), near(r, kept)...)}
}

// nearness is what having the run's data counts for, beside the job's own affinities. It is small:
// work goes to a node that has to fetch rather than wait for one that is full.
const nearness = 0.25

// near prefers candidates on which data of the run lies already, by how much of it,
// and says which these are.
func near(r *Request, kept []candidate) []Reason {
	if r.Kind != Partitions {
		return nil
	}
	most := int64(0)
	for i := range kept {
		most = max(most, kept[i].Held)
	}
	var list []Reason
	for i := range kept {
		c := &kept[i]
		if c.Held <= 0 {
			continue
		}
		c.preference += nearness * float64(c.Held) / float64(most)
		list = append(list, Reason{Code: Near, Text: "is preferred: it has " + sheaf.Size(c.Held).String() + " from where the run's inputs come from", Nodes: []sheaf.NodeID{c.ID}})
	}
	return list
}

// refuse says why a node cannot do the work, whatever else it has to do.
func refuse(r *Request, n *Node, wants *match.Requirement) (Code, string) {
	switch {
	case n.Status == sheaf.NodeDown:
		return Down, "is down"
	case n.Suspected:
		return Down, "is held for dead by gossip, and is being asked"
	case !n.Eligible:
		return Ineligible, "is set ineligible for new work"
	case !n.Joined:
		return Joining, "has registered and is not connected yet"
	}
	if r.Kind != Merge { // a merge reads manifests of other clients: any client can
		if code, text := wants.Lacks(n.Node); code != "" {
			return code, text
		}
	}
	if r.Kind == Merge && r.Publish != "" {
		if code, text := refusePlace(r, n); code != "" {
			return code, text
		}
	}
	switch {
	case n.Refuses != "":
		return Refusing, "takes no work at present: " + n.Refuses
	case n.Blocked != "" && (r.Kind == Partitions || r.Kind == Reduce):
		return Prepare, "could not prepare the task: " + n.Blocked
	}
	return "", ""
}

// refusePlace says why a node cannot publish the result.
func refusePlace(r *Request, n *Node) (Code, string) {
	if code, text := match.LacksPlace(n.Node, r.Publish); code != "" {
		return code, text
	}
	if s, _ := match.PlaceOf(n.Node, r.Publish); !s.Shared && r.Wrote != "" && n.ID != r.Wrote {
		return Pinned, fmt.Sprintf("the result was written by node %s, in a directory that is not shared", r.Wrote)
	}
	return "", ""
}

// private reports whether the node reads an input from files that other nodes
// may see otherwise.
func private(n *Node, in []match.Input) bool {
	return slices.ContainsFunc(in, func(x match.Input) bool {
		s, ok := x.SourceOf(n.Node)
		return ok && s.Scheme == "file" && !s.Shared
	})
}

// pin keeps a run with one view of its files. Once a node listed them (the
// pin), either that node alone may work, or, where it read shared directories only, all that share.
func pin(r *Request, kept []candidate, in []match.Input, refused *collector) []candidate {
	if r.Kind == Merge || r.Kind == Reduce || r.Bound != nil || !slices.ContainsFunc(in, func(x match.Input) bool { return x.Scheme == "file" }) {
		return kept
	}
	at := slices.IndexFunc(r.Nodes, func(n Node) bool { return n.ID == r.Pin })
	alone := at >= 0 && private(&r.Nodes[at], in)
	if r.Pin == "" && r.Kind == Partitions {
		// Nothing was listed: the first node to work is the pin, unless files are shared.
		shared := slices.IndexFunc(kept, func(c candidate) bool { return !private(c.Node, in) })
		if shared < 0 && len(kept) > 1 {
			first := pick(Split, kept).ID
			return slices.DeleteFunc(kept, func(c candidate) bool {
				if c.ID != first {
					refused.add(Pinned, fmt.Sprintf("its directories are not shared, and the run's work goes to node %s", first), c.ID)
				}
				return c.ID != first
			})
		}
	}
	if r.Pin == "" && r.Kind == Split {
		return kept
	}
	return slices.DeleteFunc(kept, func(c candidate) bool {
		switch {
		case c.ID == r.Pin:
			return false
		case alone || at < 0 && r.Pin != "":
			refused.add(Pinned, fmt.Sprintf("the run's files were listed by node %s and are not shared", r.Pin), c.ID)
			return true
		case private(c.Node, in) && len(kept) > 1:
			refused.add(Pinned, "its directories are not shared, and the run goes by those that are", c.ID)
			return true
		}
		return false
	})
}

// slots is how many executions of the job a node runs at once: as measured
// there, else as its resources say, and what no more would fit into.
func slots(n *Node, j *sheaf.Job) (int, string) {
	fit, what := match.Slots(n.Resources, j.Task.Resources)
	if n.Slots > 0 {
		return n.Slots, what
	}
	return fit, what
}
