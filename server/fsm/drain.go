package fsm

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// changeNode takes a node out of use, back into it, or out of the books.
func (s *step) changeNode(c *ChangeNode) error {
	old := s.Node(sheaf.NodeID(c.Node))
	if old == nil {
		return refuse(sheaf.NotFound, "there is no node %s", c.Node)
	}
	n := *old
	switch b := c.Change.(type) {
	case *ChangeNode_Drain_:
		return s.drain(&n, b.Drain)
	case *ChangeNode_EndDrain_:
		return s.endDrain(&n, b.EndDrain)
	case *ChangeNode_Purge_:
		return s.purge(old, b.Purge)
	case *ChangeNode_Tell_:
		return nil
	}
	return refuse(sheaf.Invalid, "nothing is said of what to change of node %s", c.Node)
}

// drain begins to empty a node, or gives the emptying another deadline.
func (s *step) drain(n *state.Node, c *ChangeNode_Drain) error {
	if n.Status == sheaf.NodeDown {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("node %s is down: nothing runs there, and its outputs cannot be read", n.ID), Hint: "start its agent and drain it then, or forget it: agent node purge " + string(n.ID)}
	}
	d := sheaf.NodeDrain{Began: time.UnixMilli(s.TimeMs()).UTC()}
	if n.Drain != nil && n.Drain.Done == nil {
		d.Began = n.Drain.Began
	}
	if c.DeadlineMs > 0 {
		at := time.UnixMilli(c.DeadlineMs).UTC()
		d.Deadline = &at
	}
	n.Eligible, n.Drain = false, &d
	s.PutNode(n)
	return nil
}

func (s *step) endDrain(n *state.Node, c *ChangeNode_EndDrain) error {
	switch {
	case c.Cancel && n.Drain == nil:
		return refuse(sheaf.Conflict, "node %s is not being drained", n.ID)
	case c.Cancel:
		n.Eligible, n.Drain = true, nil
		s.PutNode(n)
		return nil
	case n.Drain == nil || n.Drain.Done != nil:
		return nil
	case s.holdsWork(n.Number) || s.outputsOn(n.Number) > 0:
		return refuse(sheaf.Conflict, "node %s is not empty yet", n.ID)
	}
	d := *n.Drain
	at := time.UnixMilli(s.TimeMs()).UTC()
	d.Done = &at
	n.Drain = &d
	s.PutNode(n)
	return nil
}

// outputsOn is how many committed outputs and merged results lie on a node.
func (s *step) outputsOn(node uint32) int {
	n := 0
	for r := range s.Runs() {
		n += r.OutputsOn(node)
	}
	return n
}

// purge forgets a node. Rows go on naming its number, which reads as a node that is down for good.
func (s *step) purge(n *state.Node, c *ChangeNode_Purge) error {
	if n.Status != sheaf.NodeDown {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("node %s is %s", n.ID, n.Status), Hint: "only a node that is down can be forgotten: drain it, stop its agent, and wait until it is down"}
	}
	if left := s.outputsOn(n.Number); left > 0 && !c.Force {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("%d outputs lie only on node %s", left, n.ID), Hint: "start its agent and drain it, or give them up with -force"}
	}
	s.DeleteNode(n)
	return nil
}

// moveOutputs names another node as the place of outputs of which it has
// copies. What has changed since they were copied is passed over.
func (s *step) moveOutputs(c *MoveOutputs) error {
	o := c.Outputs
	if o == nil || len(o.First) != len(o.Count) || len(o.First) != len(o.Attempt) {
		return refuse(sheaf.Invalid, "no outputs are named")
	}
	from, to := s.Node(sheaf.NodeID(c.From)), s.Node(sheaf.NodeID(c.To))
	switch {
	case from == nil:
		return refuse(sheaf.NotFound, "there is no node %s", c.From)
	case to == nil || to.Status != sheaf.NodeReady:
		return refuse(sheaf.Conflict, "node %s is not ready", c.To)
	case from.Number == to.Number:
		return refuse(sheaf.Invalid, "node %s has them", c.To)
	}
	r := s.Run(sheaf.RunID(o.Run))
	if r == nil {
		return s.noRun(o.Run)
	}
	if res := r.Result; c.MergeAttempt > 0 && res.Sealed && res.Attempt == c.MergeAttempt && res.Node == from.Number {
		r.Change().Result.Node = to.Number
		s.reply.Moved++
	}
	if r.Partitions == nil {
		return nil
	}
	t := r.Table()
	for i, first := range o.First {
		if e := r.Reduce; r.IsReduce(int(first)+int(o.Count[i])-1) && e.Done && e.Attempt == o.Attempt[i] && e.Node == from.Number {
			r.Change().Reduce.Node = to.Number
			s.reply.Moved++
		}
		end := min(int(first)+int(o.Count[i]), t.Len())
		for p := int(first); p < end; p++ {
			row := t.Row(p)
			if (row.State == sheaf.PartitionSucceeded || row.State == sheaf.PartitionFailed) && row.Attempt == o.Attempt[i] && row.Node == from.Number {
				row.Node = to.Number
				t.Set(p, row)
				s.reply.Moved++
			}
		}
	}
	return nil
}

// noteLost takes down which outputs of a run that is over are gone.
func (s *step) noteLost(r *state.RunTxn, o *wire.Executions) {
	if r.Partitions == nil {
		return
	}
	var lost sheaf.Ranges
	for i, first := range o.First {
		if e := r.Reduce; r.IsReduce(int(first)+int(o.Count[i])-1) && e.Done && e.Attempt == o.Attempt[i] && !e.Lost {
			r.Change().Reduce.Lost = true
			s.reply.Lost++
		}
		end := min(int(first)+int(o.Count[i]), r.Partitions.Len())
		for p := int(first); p < end; p++ {
			if row := r.Partitions.Row(p); row.State == sheaf.PartitionSucceeded && row.Attempt == o.Attempt[i] && !r.Lost.Contains(p) {
				lost = append(lost, sheaf.Range{First: p, Last: p})
			}
		}
	}
	if len(lost) == 0 {
		return
	}
	all := r.Lost.Union(lost)
	s.reply.Lost += all.Len() - r.Lost.Len()
	r.Change().Lost = all[:min(len(all), state.MaxLost)]
}
