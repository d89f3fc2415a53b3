package fsm

import (
	"fmt"

	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// An ops run has a partition for each node that could run it when it was submitted, by
// the nodes' IDs, and each is for that node alone: nodes that come later get none, and
// when one is lost its partition fails with it.

// bind makes the partitions of an ops run.
func (s *step) bind(r *state.Run) error {
	if r.Job.Split != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "split", Msg: `a job of type "ops" has no split: it runs once on every node`}
	}
	able := s.ableNodes(r.Job)
	if len(able) == 0 {
		return &sheaf.Error{Class: sheaf.Conflict, Field: "type", Msg: `no node can run it now, and a job of type "ops" runs on those that can when it is submitted`, Hint: "agent job plan says what each node lacks"}
	}
	if len(able) > sheaf.MaxPartitions {
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "type", Msg: fmt.Sprintf("%d nodes can run it", len(able)), Limit: fmt.Sprint(sheaf.MaxPartitions)}
	}
	for _, n := range able {
		r.Nodes = append(r.Nodes, s.Node(n.ID).Number)
	}
	r.Partitions = table.New(len(able))
	return nil
}

// ableNodes are the nodes that can run a job now, by ID.
func (s *step) ableNodes(job *sheaf.Job) []*sheaf.Node {
	var all []*sheaf.Node
	for _, n := range s.Nodes() {
		all = append(all, &n.Node)
	}
	return match.Of(job).Able(all)
}

// room is how many more executions of a run may be placed.
func (s *step) room(r *state.RunTxn) int {
	eligible := 0
	if r.BoundByNodes() {
		n, known := s.able[r.ID]
		if !known {
			if s.able == nil {
				s.able = map[sheaf.RunID]int{}
			}
			n = len(s.ableNodes(r.Job))
			s.able[r.ID] = n
		}
		eligible = n
	}
	bound := r.Bound(eligible)
	if bound == 0 {
		return sheaf.MaxPartitions
	}
	return max(0, bound-r.UnderWay())
}

// failBound fails the partition of an ops run that no node but the given can run, if it is
// not over. Nothing of it may be valid any more.
func (s *step) failBound(r *state.RunTxn, n *state.Node, kind sheaf.FailureKind, why string) {
	i := r.PartitionFor(n.Number)
	if i < 0 || r.Masked() || r.Status.Terminal() {
		return
	}
	t := r.Table()
	row := t.Row(i)
	if row.State != sheaf.PartitionPending {
		return
	}
	row.State, row.Failure, row.ExitCode, row.StartedMs, row.Node = sheaf.PartitionFailed, kind, -1, 0, n.Number
	t.Set(i, row)
	r.Failed(i, state.ErrorItem{Kind: kind, ExitCode: -1, Message: why})
	s.heed(r, "")
}
