package scheduler

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// input is what an input asks of a node.
type input struct {
	name, scheme, path string
}

func inputsOf(j *sheaf.Job) []input {
	var in []input
	for _, i := range j.Inputs {
		x := input{name: i.Name}
		if u, err := url.Parse(i.Source); err == nil {
			x.scheme, x.path = u.Scheme, path.Clean("/"+u.Path)
		}
		in = append(in, x)
	}
	return in
}

// collector groups nodes by reason.
type collector struct {
	byText map[string]int
	list   []Reason
}

func (c *collector) add(code Code, text string, node sheaf.NodeID) {
	i, ok := c.byText[text]
	if !ok {
		if c.byText == nil {
			c.byText = map[string]int{}
		}
		i = len(c.list)
		c.byText[text] = i
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
	in := inputsOf(r.Job)
	var refused collector
	var kept []candidate
	anyDriver := false
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if code, text := refuse(r, n, in); code != "" {
			refused.add(code, text, n.ID)
			anyDriver = anyDriver || code != NoDriver
			continue
		}
		kept = append(kept, candidate{Node: n, slots: slots(n, r.Job)})
	}
	kept = pin(r, kept, in, &refused)
	slices.SortFunc(kept, func(a, b candidate) int { return cmp.Compare(a.ID, b.ID) })
	return kept, Explanation{Nodes: len(r.Nodes), Feasible: len(kept), Reasons: refused.reasons()}
}

// refuse says why a node cannot do the work, whatever else it has to do.
func refuse(r *Request, n *Node, in []input) (Code, string) {
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
		if code, text := lacks(r.Job, n, in); code != "" {
			return code, text
		}
	}
	switch {
	case n.Refuses != "":
		return Refusing, "takes no work at present: " + n.Refuses
	case n.Blocked != "" && r.Kind == Partitions:
		return Prepare, "could not prepare the task: " + n.Blocked
	}
	return "", ""
}

// lacks says what a node would need in order to run the job's tasks.
func lacks(j *sheaf.Job, n *Node, in []input) (Code, string) {
	i := slices.IndexFunc(n.Drivers, func(d sheaf.NodeDriver) bool { return d.Name == j.Task.Driver })
	if i < 0 {
		return NoDriver, fmt.Sprintf("has no driver %q", j.Task.Driver)
	}
	if d := n.Drivers[i]; !d.Healthy {
		return Unhealthy, fmt.Sprintf("driver %q is not healthy: %s", d.Name, cmp.Or(d.Reason, "it gives no reason"))
	}
	for _, x := range in {
		if _, ok := sourceOf(n, x); !ok {
			if x.scheme == "file" {
				return NoSource, fmt.Sprintf("may not read %s of input %q: no directory that its configuration lets jobs read holds it", x.path, x.name)
			}
			return NoSource, fmt.Sprintf("cannot read %s:// of input %q", x.scheme, x.name)
		}
	}
	need, has := j.Task.Resources, n.Resources
	switch {
	case need.CPU > has.CPU:
		return CPU, fmt.Sprintf("one execution needs %d MHz of cpu, the node has %d MHz", need.CPU, has.CPU)
	case need.Memory > has.Memory:
		return Memory, fmt.Sprintf("one execution needs %v of memory, the node has %v", need.Memory, has.Memory)
	case need.Disk > has.Disk:
		return Disk, fmt.Sprintf("one execution needs %v of disk, the node has %v", need.Disk, has.Disk)
	case need.Pids > has.Pids:
		return Pids, fmt.Sprintf("one execution needs %d pids, the node has %d", need.Pids, has.Pids)
	}
	return "", ""
}

// sourceOf is the node's source that an input is read from. Of several
// directories that hold a file, a shared one serves best.
func sourceOf(n *Node, x input) (best sheaf.NodeSource, ok bool) {
	for _, s := range n.Sources {
		if s.Scheme != x.scheme || s.Scheme == "file" && !within(x.path, s.Root) {
			continue
		}
		if !ok || s.Shared {
			best, ok = s, true
		}
	}
	return best, ok
}

func within(p, root string) bool {
	root = path.Clean("/" + root)
	return root == "/" || p == root || strings.HasPrefix(p, root+"/")
}

// private reports whether the node reads an input from files that other nodes
// may see otherwise.
func private(n *Node, in []input) bool {
	return slices.ContainsFunc(in, func(x input) bool {
		s, ok := sourceOf(n, x)
		return ok && s.Scheme == "file" && !s.Shared
	})
}

// pin keeps a run with one view of its files. Once a node listed them (the
// pin), either that node alone may work, or, where it read shared directories only, all that share.
func pin(r *Request, kept []candidate, in []input, refused *collector) []candidate {
	if r.Kind == Merge || !slices.ContainsFunc(in, func(x input) bool { return x.scheme == "file" }) {
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
// there, else as its resources say.
func slots(n *Node, j *sheaf.Job) int {
	if n.Slots > 0 {
		return n.Slots
	}
	return Slots(n.Resources, j.Task.Resources)
}

// Slots is how many executions that need so much fit at once where there is so much, at least 1.
func Slots(has, need sheaf.Resources) int {
	s := maxSlots
	for _, x := range [][2]int64{
		{int64(has.CPU), int64(need.CPU)},
		{int64(has.Memory), int64(need.Memory)},
		{int64(has.Disk), int64(need.Disk)},
		{int64(has.Pids), int64(need.Pids)},
	} {
		if x[1] > 0 {
			s = min(s, x[0]/x[1])
		}
	}
	return int(max(1, s))
}
