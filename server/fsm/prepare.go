package fsm

import (
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// nodePrepareFailed takes a run off a node where it cannot be made ready. It
// costs no partition an attempt.
func (s *step) nodePrepareFailed(c *NodePrepareFailed) error {
	r := s.Run(sheaf.RunID(c.Run))
	if r == nil {
		return s.noRun(c.Run)
	}
	n := s.Node(sheaf.NodeID(c.Node))
	switch {
	case n == nil:
		return refuse(sheaf.NotFound, "there is no node %s", c.Node)
	case n.Session != c.Session:
		return refuse(sheaf.Conflict, "session %d of node %s is over", c.Session, c.Node)
	case r.Status.Terminal() || (c.Kind == wire.Kind_KIND_REDUCE) != (r.Status == sheaf.RunReducing):
		return nil
	}
	if r.Status == sheaf.RunReducing && r.Reduce.Active && r.Reduce.Node == n.Number {
		s.reply.Ended = []*wire.Executions{state.One(r.Run, wire.Kind_KIND_REDUCE, r.Reduce.Attempt)}
		s.endExec(r, wire.Kind_KIND_REDUCE, freed{})
	}
	if e := s.endPartitionsOn(r.ID, n, freed{}); e != nil {
		s.reply.Ended = []*wire.Executions{e}
	}
	s.markPrepare(r, n, short(c.Error, maxMessage), c.Invalid)
	s.settle(r) // a backup that ended may have been a partition's last try
	return nil
}

// markPrepare counts a failure to prepare a run on a node. While the mark of the last one
// holds, further ones are echoes of it. The run is tried there again after the delays and as
// often as retry says; when every node that could run it has given up, or trying
// again cannot help anywhere, it fails.
func (s *step) markPrepare(r *state.RunTxn, n *state.Node, why string, invalid bool) {
	if r.Status.Terminal() || r.Stop != state.StopNone {
		return
	}
	if invalid {
		s.unpreparable(r, ": "+why)
		return
	}
	at, have := slices.BinarySearchFunc(r.Prepare, n.Number, func(m state.PrepareMark, number uint32) int {
		return int(int64(m.Node) - int64(number))
	})
	marks := slices.Clone(r.Prepare)
	if !have {
		marks = slices.Insert(marks, at, state.PrepareMark{Node: n.Number})
	}
	m := &marks[at]
	if m.Exhausted || s.TimeMs() < m.NotBeforeMs {
		return
	}
	m.Tries++
	m.Error = why
	m.NotBeforeMs = s.notBefore(r.Job.Retry, m.Tries)
	m.Exhausted = int(m.Tries) >= r.Job.Retry.Attempts
	r.Change().Prepare = marks
	if r.Nodes != nil && r.Status != sheaf.RunReducing {
		if m.Exhausted {
			s.failBound(r, n, sheaf.FailPrepare, "it cannot be made ready on its node "+string(n.ID)+": "+why)
			s.settle(r)
		}
		return
	}
	if m.Exhausted && !s.preparable(r) {
		s.unpreparable(r, " on any node: "+why)
	}
}

// preparable reports whether some node may still make the run ready.
func (s *step) preparable(r *state.RunTxn) bool {
	exhausted := map[uint32]bool{}
	for _, m := range r.Prepare {
		exhausted[m.Node] = m.Exhausted
	}
	return slices.ContainsFunc(s.Nodes(), func(n *state.Node) bool {
		return n.Status == sheaf.NodeReady && n.Eligible && !exhausted[n.Number] &&
			slices.ContainsFunc(n.Drivers, func(d sheaf.NodeDriver) bool { return d.Name == taskOf(r.Run).Driver && d.Healthy })
	})
}

// forgetMarks lets runs be tried on a node that has started anew.
func (s *step) forgetMarks(node uint32) {
	for _, id := range s.LiveRuns() {
		old := s.Peek(id).Prepare
		if slices.ContainsFunc(old, func(m state.PrepareMark) bool { return m.Node == node }) {
			s.Run(id).Change().Prepare = slices.DeleteFunc(slices.Clone(old), func(m state.PrepareMark) bool { return m.Node == node })
		}
	}
}
