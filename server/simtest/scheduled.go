package simtest

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// scheduled: what a plan placed was neither held nor before its turn, on a node that it
// is for, and within its run's bound. The book counts by itself what is valid.
func (o *oracle) scheduled(c *fsm.ApplyPlan, r fsm.Reply, before *state.Snapshot) {
	seen := map[string]bool{}
	for i, p := range c.Placements {
		if r.Placed[i].Executions == nil {
			continue
		}
		run := before.Run(sheaf.RunID(p.Run))
		if run.Reuse.Waits && p.Kind == wire.Kind_KIND_PARTITION {
			o.w.fail("run %s is yet to be compared, and %v was placed", p.Run, r.Placed[i].Executions)
		}
		if run.Held() {
			o.w.fail("run %s is held, and %v was placed", p.Run, r.Placed[i].Executions)
		}
		for _, id := range run.Job.After {
			if first := before.Run(sheaf.RunID(id)); first != nil && first.Created < run.Created && !o.succeeded[id] {
				o.w.fail("run %s was placed before %s, which it comes after, had succeeded", p.Run, id)
			}
		}
		if p.Kind != wire.Kind_KIND_PARTITION {
			continue
		}
		seen[p.Run] = true
		if run.Job.Type == sheaf.JobOps {
			o.forOne(p, r.Placed[i].Executions)
		}
	}
	for id := range seen {
		run := before.Run(sheaf.RunID(id))
		bound := run.Bound(able(before))
		if bound == 0 {
			continue
		}
		o.w.out.Bounded++
		valid := 0
		for i := range o.runs[id].parts {
			valid += len(o.runs[id].parts[i].valid)
		}
		if valid > bound {
			o.w.fail("%d executions of run %s are valid, and its parallelism allows %d", valid, id, bound)
		}
	}
}

// forOne: a partition of an ops run is on one node only, whatever happens, and no two share one.
func (o *oracle) forOne(p *fsm.Placement, e *wire.Executions) {
	nodes := o.nodes[p.Run]
	if nodes == nil {
		nodes = map[string]uint32{}
		o.nodes[p.Run] = nodes
	}
	each(e, func(x execution) {
		o.w.out.Ops++
		if was, ok := nodes[p.Node]; ok && was != x.partition {
			o.w.fail("%v is placed on %s, which has partition %d of the run", x, p.Node, was)
		}
		for node, partition := range nodes {
			if partition == x.partition && node != p.Node {
				o.w.fail("%v is placed on %s, and was on %s before", x, p.Node, node)
			}
		}
		nodes[p.Node] = x.partition
	})
}
