package fsm

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

func (s *step) bootstrap(c *Bootstrap) error {
	is := s.Cluster()
	if is.ID != "" && (is.ID != c.ClusterId || is.Region != c.Region) {
		return refuse(sheaf.Conflict, "this is cluster %s, region %s, and cannot become cluster %s, region %s", is.ID, is.Region, c.ClusterId, c.Region)
	}
	if c.ClusterId == "" {
		return refuse(sheaf.Invalid, "a cluster's ID must not be empty")
	}
	s.SetCluster(state.Cluster{ID: c.ClusterId, Region: c.Region})
	return nil
}

// registerNode raises the session. What is assigned to the node stays so:
// the Hello that follows says what the client still has.
func (s *step) registerNode(c *RegisterNode) error {
	n := &state.Node{}
	if err := json.Unmarshal(c.NodeJson, &n.Node); err != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "node", Msg: "the node cannot be read", Err: err}
	}
	if err := sheaf.CheckName("node", string(n.ID)); err != nil {
		return err
	}
	n.Status, n.Session, n.Eligible = sheaf.NodeReady, 1, true
	n.Registered = time.UnixMilli(s.TimeMs()).UTC()
	n.BootID = c.BootId
	n.Joined = true
	n.Drain, n.Avoided = nil, ""
	if other := s.sameName(n); other != nil {
		return &sheaf.Error{Class: sheaf.Conflict, Field: "name", Msg: fmt.Sprintf("another node is called %s: %s at %s", n.Name, other.ID, other.Address),
			Hint: "give this one another name, or stop the other and wait until it is down"}
	}
	if old := s.Node(n.ID); old != nil {
		n.Number, n.Session, n.Eligible, n.Registered, n.Drain = old.Number, old.Session+1, old.Eligible, old.Registered, old.Drain
		if s.holdsWork(n.Number) {
			n.Joined = false
			n.NewBoot = old.NewBoot || old.BootID != c.BootId
		}
		if old.BootID != c.BootId {
			s.forgetMarks(n.Number)
		}
	}
	s.PutNode(n)
	s.reply.Session = n.Session
	return nil
}

// sameName is the ready node that has n's name and is another, or nil. One that
// is down keeps nobody from its name: a machine may be replaced.
func (s *step) sameName(n *state.Node) *state.Node {
	for _, other := range s.Nodes() {
		if other.ID != n.ID && n.Name != "" && other.Name == n.Name && other.Status == sheaf.NodeReady {
			return other
		}
	}
	return nil
}

// holdsWork reports whether an execution is valid on a node.
func (s *step) holdsWork(node uint32) bool {
	for _, id := range s.LiveRuns() {
		r := s.Peek(id)
		if r.Split.Active && r.Split.Node == node || r.Merge.Active && r.Merge.Node == node || r.Reduce.Active && r.Reduce.Node == node {
			return true
		}
		if r.Partitions == nil || r.Masked() {
			continue
		}
		if r.Partitions.OnNode(node).Assigned > 0 {
			return true
		}
		if r.Backups > 0 {
			for _, b := range s.Backups(id) {
				if b.Node == node {
					return true
				}
			}
		}
	}
	return false
}

func (s *step) setNodeEligibility(c *SetNodeEligibility) error {
	old := s.Node(sheaf.NodeID(c.Node))
	if old == nil {
		return refuse(sheaf.NotFound, "there is no node %s", c.Node)
	}
	if c.Eligible && old.Drain != nil && old.Drain.Done == nil {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("node %s is being drained", c.Node), Hint: "agent node drain -cancel " + c.Node}
	}
	n := *old
	n.Eligible = c.Eligible
	if c.Eligible {
		n.Drain = nil
	}
	s.PutNode(&n)
	return nil
}

func (s *step) nodeLost(c *NodeLost) error {
	old := s.Node(sheaf.NodeID(c.Node))
	if old == nil {
		return refuse(sheaf.NotFound, "there is no node %s", c.Node)
	}
	if old.Session != c.Session || old.Status == sheaf.NodeDown {
		return nil
	}
	n := *old
	n.Status, n.Joined, n.LostMs = sheaf.NodeDown, false, s.TimeMs()
	s.PutNode(&n)
	how := lost{"node " + string(n.ID) + " was lost"}
	for _, id := range s.LiveRuns() {
		before := s.Peek(id)
		for _, k := range wholes {
			if e := execOf(before, k); e.Active && e.Node == n.Number {
				s.endExec(s.Run(id), k, how)
			}
		}
		ended := s.endPartitionsOn(id, &n, how) != nil
		if before.PartitionFor(n.Number) >= 0 {
			s.failBound(s.Run(id), &n, sheaf.FailLosses, how.why)
			ended = true
		}
		if ended {
			s.settle(s.Run(id))
		}
	}
	return nil
}

// endPartitionsOn ends every valid attempt at a run's partitions on a node, and
// names them; nil is none. It must come before other changes of the run's partitions.
func (s *step) endPartitionsOn(id sheaf.RunID, n *state.Node, how ending) *wire.Executions {
	before := s.Peek(id)
	if before.Partitions == nil || before.Masked() {
		return nil
	}
	e := &wire.Executions{Run: string(id), Generation: before.Generation}
	for _, b := range s.Backups(id) {
		if r := s.Run(id); b.Node == n.Number && !r.Masked() {
			state.AppendExecution(e, int(b.Partition), b.Attempt)
			s.endAttempt(r, int(b.Partition), b.Attempt, n, how)
		}
	}
	for i, row := range before.Partitions.Held(sheaf.PartitionAssigned, n.Number) {
		r := s.Run(id)
		if r.Masked() {
			break
		}
		state.AppendExecution(e, i, row.Attempt)
		s.endAttempt(r, i, row.Attempt, n, how)
	}
	if len(e.First) == 0 {
		return nil
	}
	return e
}

func (s *step) advanceTime(*AdvanceTime) error {
	now := s.TimeMs()
	for _, id := range s.LiveRuns() {
		r := s.Peek(id)
		if r.DeadlineMs > 0 && r.DeadlineMs <= now && r.Stop == state.StopNone {
			s.stop(s.Run(id), state.StopTimeout, "the run took longer than its timeout of "+r.Job.Timeout.String())
		}
	}
	return nil
}
