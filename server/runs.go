package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/events"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/provenance"
	"github.com/sheaf-run/agent/server/reuse"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Ready implements API.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Leader implements API.
func (s *Server) Leader() (string, bool) { return s.node.Leader() }

// LastContact implements API.
func (s *Server) LastContact() time.Duration { return s.node.LastContact() }

// Snapshot implements API.
func (s *Server) Snapshot() *state.Snapshot { return s.store.Snapshot() }

// Events implements API.
func (s *Server) Events() *events.Log { return s.events }

// VerifyRead implements API. What was acknowledged was applied here, since
// this server led; so it is enough to know that it still does.
func (s *Server) VerifyRead(ctx context.Context) error {
	if _, err := s.leads(); err != nil {
		return err
	}
	return s.node.VerifyLeader(ctx)
}

// Members implements API.
func (s *Server) Members() []Member {
	leader, _ := s.node.Leader()
	var list []Member
	at := map[string]int{}
	for _, p := range s.node.Peers() {
		at[p.ID] = len(list)
		list = append(list, Member{ID: p.ID, Address: p.Address, Voter: p.Voter, Leader: p.Address == leader, Alive: p.ID == s.config.ID})
	}
	if s.config.Gossip != nil {
		for _, m := range s.config.Gossip.Servers() {
			i, ok := at[m.Server]
			if !ok {
				i = len(list)
				list = append(list, Member{ID: m.Server, Address: m.Address})
			}
			list[i].Name, list[i].Alive, list[i].HTTP, list[i].Version = m.Name, true, m.HTTP, m.Version
		}
	}
	return s.withHealth(list)
}

// change applies a command and gives the run as it is then.
func (s *Server) change(ctx context.Context, id sheaf.RunID, c *fsm.Command) (fsm.Reply, Submitted, error) {
	t, err := s.leads()
	if err != nil {
		return fsm.Reply{}, Submitted{}, err
	}
	reply, err := t.Apply(ctx, c)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if err != nil {
		return reply, Submitted{}, err
	}
	done := Submitted{Index: reply.Index}
	if r := s.store.Snapshot().Run(id); r != nil {
		done.Run = r.Stub()
	}
	return reply, done, nil
}

// Submit implements API.
func (s *Server) Submit(ctx context.Context, id sheaf.RunID, job sheaf.Job) (Submitted, error) {
	return s.SubmitWith(ctx, id, job, SubmitOptions{})
}

// SubmitWith implements API.
func (s *Server) SubmitWith(ctx context.Context, id sheaf.RunID, job sheaf.Job, with SubmitOptions) (Submitted, error) {
	if err := sheaf.CheckName("run", string(id)); err != nil {
		return Submitted{}, err
	}
	b, err := json.Marshal(job)
	if err != nil {
		return Submitted{}, fmt.Errorf("encode the job: %w", err)
	}
	reply, done, err := s.change(ctx, id, &fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: string(id), JobJson: b, Held: with.Held, Rerun: with.Rerun}}})
	done.Created = err == nil && !reply.Existing
	return done, err
}

// Grant implements API.
func (s *Server) Grant(node sheaf.NodeID, run sheaf.RunID) ([]byte, error) {
	t, err := s.leads()
	if err != nil {
		return nil, err
	}
	n := s.store.Snapshot().Node(node)
	if n == nil {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("there is no node %s", node)}
	}
	return t.Hub().Grant(&n.Node, run), nil
}

// Diff implements API.
func (s *Server) Diff(ctx context.Context, job sheaf.Job, manifest [][]byte, each func(reuse.Line) error) error {
	return reuse.Diff(ctx, s.store, s.store.Snapshot(), &job, manifest, each)
}

// Shards implements API.
func (s *Server) Shards(ctx context.Context, run *state.Run, first, count, atoms int, each func(provenance.Read) error) error {
	return provenance.Shards(ctx, s.store, run, first, count, atoms, each)
}

// WhyRan implements API.
func (s *Server) WhyRan(ctx context.Context, r *state.Run, partition int) ([]string, error) {
	return reuse.Why(ctx, s.store, s.store.Snapshot(), r, partition)
}

// Cancel implements API.
func (s *Server) Cancel(ctx context.Context, id sheaf.RunID) (Submitted, error) {
	_, done, err := s.change(ctx, id, &fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: string(id)}}})
	return done, err
}

// Change implements API.
func (s *Server) Change(ctx context.Context, id sheaf.RunID, change RunChange) (Submitted, error) {
	c := &fsm.ChangeRun{Run: string(id), Held: change.Held}
	for _, x := range []struct {
		name string
		is   *int
		to   **uint32
	}{{"priority", change.Priority, &c.Priority}, {"parallelism", change.Parallelism, &c.Parallelism}} {
		if x.is == nil {
			continue
		}
		if *x.is < 0 || *x.is > sheaf.MaxPartitions {
			return Submitted{}, &sheaf.Error{Class: sheaf.Invalid, Field: x.name, Msg: fmt.Sprintf("%s is %d", x.name, *x.is), Limit: fmt.Sprintf("0 to %d", sheaf.MaxPartitions)}
		}
		n := uint32(*x.is)
		*x.to = &n
	}
	_, done, err := s.change(ctx, id, &fsm.Command{Body: &fsm.Command_ChangeRun{ChangeRun: c}})
	return done, err
}

// Retry implements API.
func (s *Server) Retry(ctx context.Context, id sheaf.RunID, kind RetryKind, partitions sheaf.Ranges) (Submitted, error) {
	c := &fsm.RetryRun{Run: string(id)}
	switch kind {
	case RetryFailed:
		c.Which = fsm.RetryRun_WHICH_FAILED
	case RetryLost:
		c.Which = fsm.RetryRun_WHICH_LOST
	case RetryPartitions:
		c.Which = fsm.RetryRun_WHICH_PARTITIONS
		for _, r := range partitions {
			c.First = append(c.First, uint32(r.First))
			c.Count = append(c.Count, uint32(r.Last-r.First+1))
		}
	default:
		return Submitted{}, &sheaf.Error{Class: sheaf.Invalid, Field: "retry", Msg: fmt.Sprintf("unknown kind of retry %q", kind), Hint: "failed, lost, or a list of partitions"}
	}
	_, done, err := s.change(ctx, id, &fsm.Command{Body: &fsm.Command_RetryRun{RetryRun: c}})
	return done, err
}

// Delete implements API.
func (s *Server) Delete(ctx context.Context, id sheaf.RunID) (uint64, error) {
	_, done, err := s.change(ctx, id, &fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: string(id)}}})
	return done.Index, err
}

// Node implements API.
func (s *Server) Node(id sheaf.NodeID) (wire.NodesClient, error) {
	n := s.store.Snapshot().Node(id)
	if n == nil {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("there is no node %s", id)}
	}
	return s.nodes.Client(&n.Node)
}

// Evaluations implements API.
func (s *Server) Evaluations() []sheaf.Evaluation {
	t := s.term.Load()
	if t == nil {
		return nil
	}
	return t.Evaluations()
}

// Obstacles implements API. A server that does not lead knows no nodes' present state, and says so by none.
func (s *Server) Obstacles(job sheaf.Job) scheduler.Explanation {
	t := s.term.Load()
	if t == nil {
		return scheduler.Explanation{}
	}
	return t.Obstacles(&job)
}
