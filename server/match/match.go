// Package match says which nodes can run a job: datacenters, drivers, inputs, constraints
// and size. It is pure, and is asked by the scheduler, which places by it, and by the state
// machine, which counts and freezes nodes by it; so both mean the same. What a job asks for is read once
// for all nodes.
package match

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// Code says in what a node falls short, for programs.
type Code string

// The codes, in the order in which they are tested: the first that holds is given.
const (
	Datacenter Code = "datacenter"
	NoDriver   Code = "no_driver"
	Unhealthy  Code = "unhealthy_driver"
	Constraint Code = "constraint"
	NoSource   Code = "no_source" // cannot read an input
	NoFile     Code = "no_file"   // cannot fetch a module, or an image's archive
	NoPlace    Code = "no_place"  // may not write where the result is published
	CPU        Code = "cpu"       // the node is too small for one execution, in all
	Memory     Code = "memory"
	Disk       Code = "disk"
	Pids       Code = "pids"
)

// Requirement is what a job asks of every node. It is not safe for concurrent use: it
// remembers what it has compared.
type Requirement struct {
	job         *sheaf.Job
	everywhere  bool // any datacenter will do
	constraints []condition
	affinities  []condition
	weights     int // of affinities, without their signs
	inputs      []Input
	files       []Input // that the task's driver needs
}

// Of reads what a job asks for.
func Of(job *sheaf.Job) *Requirement {
	r := &Requirement{job: job, inputs: Inputs(job)}
	for _, f := range sheaf.TaskFiles(&job.Task) {
		r.files = append(r.files, readOf("the "+f.Argument, f.URL))
	}
	r.everywhere = len(job.Datacenters) == 0 || slices.Contains(job.Datacenters, "*")
	for _, c := range job.Constraints {
		r.constraints = append(r.constraints, compile(c))
	}
	for _, a := range job.Affinities {
		r.affinities = append(r.affinities, compile(a.Constraint))
		r.weights += max(a.Weight, -a.Weight)
	}
	return r
}

// Lacks says what a node would need in order to run the job's tasks; an empty code is nothing.
func (r *Requirement) Lacks(n *sheaf.Node) (Code, string) {
	if !r.everywhere && !slices.ContainsFunc(r.job.Datacenters, func(pattern string) bool {
		ok, err := path.Match(pattern, n.Datacenter)
		return ok && err == nil
	}) {
		return Datacenter, fmt.Sprintf("is in datacenter %q, which is none of the job's", n.Datacenter)
	}
	if code, text := r.lacksDriver(n); code != "" {
		return code, text
	}
	for i := range r.constraints {
		if c := &r.constraints[i]; !c.met(n) {
			return Constraint, c.unmet(n)
		}
	}
	for _, x := range r.inputs {
		if _, ok := x.SourceOf(n); !ok {
			if x.Scheme == "file" {
				return NoSource, fmt.Sprintf("may not read %s of %s: no directory that its configuration lets jobs read holds it", x.Path, x.What)
			}
			return NoSource, fmt.Sprintf("cannot read %s:// of %s", x.Scheme, x.What)
		}
	}
	for _, x := range r.files {
		if _, ok := x.SourceOf(n); ok {
			continue
		}
		if x.Scheme == "file" {
			return NoFile, fmt.Sprintf("may not read %s for %s: no directory that its configuration lets jobs read holds it", x.Path, x.What)
		}
		return NoFile, fmt.Sprintf("cannot fetch %s by %s://", x.What, x.Scheme)
	}
	return r.lacksRoom(n)
}

func (r *Requirement) lacksDriver(n *sheaf.Node) (Code, string) {
	i := slices.IndexFunc(n.Drivers, func(d sheaf.NodeDriver) bool { return d.Name == r.job.Task.Driver })
	if i < 0 {
		return NoDriver, fmt.Sprintf("has no driver %q", r.job.Task.Driver)
	}
	if d := n.Drivers[i]; !d.Healthy {
		return Unhealthy, fmt.Sprintf("driver %q is not healthy: %s", d.Name, cmp.Or(d.Reason, "it gives no reason"))
	}
	return "", ""
}

func (r *Requirement) lacksRoom(n *sheaf.Node) (Code, string) {
	need, has := r.job.Task.Resources, n.Resources
	switch {
	case need.CPU > has.CPU:
		return CPU, fmt.Sprintf("one execution needs %d MHz of cpu, the node has %d MHz", need.CPU, has.CPU)
	case need.Memory > has.Memory:
		return Memory, fmt.Sprintf("one execution needs %s of memory, the node has %s", need.Memory.Rounded(), has.Memory.Rounded())
	case need.Disk > has.Disk:
		return Disk, fmt.Sprintf("one execution needs %s of disk, the node has %s", need.Disk.Rounded(), has.Disk.Rounded())
	case need.Pids > has.Pids:
		return Pids, fmt.Sprintf("one execution needs %d pids, the node has %d", need.Pids, has.Pids)
	}
	return "", ""
}

// Preference is how well a node meets the job's affinities, from -1 to 1; 0 without any.
func (r *Requirement) Preference(n *sheaf.Node) float64 {
	if r.weights == 0 {
		return 0
	}
	sum := 0
	for i := range r.affinities {
		if r.affinities[i].met(n) {
			sum += r.job.Affinities[i].Weight
		}
	}
	return float64(sum) / float64(r.weights)
}

// Able is how many of the nodes can run the job now: ready, eligible, and lacking nothing.
func (r *Requirement) Able(nodes []*sheaf.Node) []*sheaf.Node {
	var able []*sheaf.Node
	for _, n := range nodes {
		if n.Status != sheaf.NodeReady || !n.Eligible {
			continue
		}
		if code, _ := r.Lacks(n); code == "" {
			able = append(able, n)
		}
	}
	return able
}

// maxSlots bounds what resources alone may say: a task that asks for nothing.
const maxSlots int64 = 4096

// Slots is how many executions that need so much fit at once where there is so much, at
// least 1, and which resource it is that no more would fit into.
func Slots(has, need sheaf.Resources) (int, string) {
	s, what := int64(math.MaxInt64), ""
	for _, x := range [...]struct {
		what      string
		has, need int64
	}{
		{"cpu", int64(has.CPU), int64(need.CPU)}, {"memory", int64(has.Memory), int64(need.Memory)},
		{"disk", int64(has.Disk), int64(need.Disk)}, {"pids", int64(has.Pids), int64(need.Pids)},
	} {
		if x.need > 0 && x.has/x.need < s {
			s, what = x.has/x.need, x.what
		}
	}
	return int(max(1, min(s, maxSlots))), what
}
