package fsm

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// release ends executions of a node without a result. What is not valid there
// any more is passed over: it ended otherwise.
func (s *step) release(c *Release) error {
	old := s.Node(sheaf.NodeID(c.Node))
	switch {
	case old == nil:
		return refuse(sheaf.NotFound, "there is no node %s", c.Node)
	case old.Session != c.Session || old.Status == sheaf.NodeDown:
		return refuse(sheaf.Conflict, "session %d of node %s is over", c.Session, c.Node)
	}
	if c.Reconciled && !old.Joined {
		n := *old
		n.Joined, n.NewBoot = true, false
		s.PutNode(&n)
	}
	if !faultLostRelease {
		for _, e := range c.Free {
			s.endNamed(e, old, freed{})
		}
	}
	for _, e := range c.Lost {
		s.endNamed(e, old, lost{"node " + c.Node + " came back without it"})
	}
	return nil
}

// endNamed ends those of e that are valid on n.
func (s *step) endNamed(e *wire.Executions, n *state.Node, how ending) {
	r := s.Run(sheaf.RunID(e.Run))
	if r == nil || len(e.First) != len(e.Count) || len(e.First) != len(e.Attempt) {
		return
	}
	ended := &wire.Executions{Run: e.Run, Generation: e.Generation, Kind: e.Kind}
	for i, first := range e.First {
		if e.Kind != wire.Kind_KIND_PARTITION {
			if execOf(r.Run, e.Kind).Valid(e.Attempt[i], n.Number) {
				s.endExec(r, e.Kind, how)
				state.AppendExecution(ended, int(first), e.Attempt[i])
			}
			continue
		}
		if r.Partitions == nil {
			continue
		}
		end := min(int(first)+int(e.Count[i]), r.Partitions.Len())
		for p := int(first); p < end && !r.Masked(); p++ {
			if s.valid(r, r.Table().Row(p), p, e.Attempt[i], n) {
				s.endAttempt(r, p, e.Attempt[i], n, how)
				state.AppendExecution(ended, p, e.Attempt[i])
			}
		}
	}
	if len(ended.First) > 0 {
		s.reply.Ended = append(s.reply.Ended, ended)
	}
	s.settle(r)
}
