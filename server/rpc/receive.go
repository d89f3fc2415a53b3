package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// receive handles the client's messages in order until one is malformed or the
// stream ends. While it waits, so does the client: nothing is buffered here.
func (s *session) receive(ctx context.Context, st stream) error {
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		if err := s.handle(ctx, m); err != nil {
			return err
		}
	}
}

func (s *session) handle(ctx context.Context, m *wire.FromClient) error {
	s.handling.Lock()
	defer s.handling.Unlock()
	if err := s.waitForRoom(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	switch b := m.Body.(type) {
	case *wire.FromClient_Results:
		return s.takeResults(ctx, b.Results)
	case *wire.FromClient_Running:
		s.hub.Observer.Started(s.node, b.Running)
	case *wire.FromClient_TakenBack:
		return s.takenBack(ctx, b.TakenBack)
	case *wire.FromClient_Pulse:
		return s.pulse(ctx, b.Pulse)
	case *wire.FromClient_Prepared:
		return s.prepared(ctx, b.Prepared)
	case *wire.FromClient_Fetched:
		s.hub.Observer.Fetched(s.node, b.Fetched)
	case *wire.FromClient_Lacking:
		s.hub.Observer.Lacking(s.node, b.Lacking)
	case *wire.FromClient_Deleted:
		s.hub.Observer.Deleted(s.node, b.Deleted.GetRuns())
	case *wire.FromClient_Crowded:
		s.hub.Observer.Crowded(s.node, b.Crowded)
	case *wire.FromClient_Hello:
		return &sheaf.Error{Class: sheaf.Invalid, Msg: "a session says hello once"}
	default:
		return &sheaf.Error{Class: sheaf.Unsupported, Msg: fmt.Sprintf("unknown message %T", m.Body)}
	}
	return nil
}

// takeResults passes results on to be committed. A node speaks for itself only.
func (s *session) takeResults(ctx context.Context, r *wire.Results) error {
	if sheaf.NodeID(r.Node) != s.node {
		return &sheaf.Error{Class: sheaf.Denied, Msg: fmt.Sprintf("node %s reports results of node %q", s.node, r.Node)}
	}
	if err := fsm.CheckResults(r); err != nil {
		return err
	}
	if len(r.Partition) == 0 {
		return nil
	}
	return s.hub.results.add(ctx, r, s)
}

func (s *session) takenBack(ctx context.Context, t *wire.TakenBack) error {
	s.hub.mu.Lock()
	releases := s.hub.core.TakenBack(s.node, t)
	s.hub.mu.Unlock()
	for _, r := range releases {
		if _, err := s.hub.apply(ctx, &fsm.Command{Body: &fsm.Command_Release{Release: r}}); err != nil {
			return fmt.Errorf("release what node %s gave back: %w", s.node, err)
		}
	}
	return nil
}

// pulse grants a lease, once this server has confirmed that it leads. The lease counts
// from before the question, so that no later leader's patience can be shorter.
func (s *session) pulse(ctx context.Context, p *wire.Pulse) error {
	at := time.Now()
	if err := s.hub.verify.verified(ctx); err != nil {
		return err
	}
	s.hub.Renew(s.node, at)
	s.hub.Observer.Pulse(s.node, p)
	s.hub.mu.Lock()
	sessions := len(s.hub.sessions)
	s.hub.mu.Unlock()
	s.mu.Lock()
	s.lease = &wire.Lease{Sequence: p.Sequence, LeaseMs: uint32(s.hub.Lease.Milliseconds()), GatherMs: uint32(gather(sessions).Milliseconds())}
	s.mu.Unlock()
	s.wake()
	return nil
}

const (
	// gatherEach is for how long clients gather results for each client that there is: the leader then gets 2,000
	// messages of them a second, whose frames and wake-ups cost more than what is in them.
	gatherEach = 500 * time.Microsecond
	// leastGather is what few clients do; mostGather is about what a node has waiting, of which it must not run out
	// before the leader hears that it gets less.
	leastGather = 250 * time.Millisecond
	mostGather  = 750 * time.Millisecond
)

// gather is for how long each of so many clients gathers results.
func gather(clients int) time.Duration {
	return min(max(time.Duration(clients)*gatherEach, leastGather), mostGather)
}

// prepared notes the digest that a run was resolved to, or that it cannot be
// made ready on this node. A refusal means that the run is gone or the
// session over; neither is the client's mistake.
func (s *session) prepared(ctx context.Context, p *wire.PrepareResult) error {
	c := &fsm.Command{}
	switch {
	case p.Error != "":
		c.Body = &fsm.Command_NodePrepareFailed{NodePrepareFailed: &fsm.NodePrepareFailed{
			Run: p.Run, Node: string(s.node), Session: s.number, Error: p.Error, Invalid: p.Invalid, Kind: p.Kind,
		}}
	case p.Digest != "":
		r := s.hub.Snapshot().Run(sheaf.RunID(p.Run))
		if r == nil || p.Kind == wire.Kind_KIND_PARTITION && r.Image != "" || p.Kind == wire.Kind_KIND_REDUCE && r.Reduce.Image != "" {
			return nil
		}
		c.Body = &fsm.Command_SetImageDigest{SetImageDigest: &fsm.SetImageDigest{Run: p.Run, Digest: p.Digest, Kind: p.Kind}}
	default:
		return nil
	}
	reply, err := s.hub.apply(ctx, c)
	var refused *sheaf.Error
	if errors.As(err, &refused) && (refused.Class == sheaf.NotFound || refused.Class == sheaf.Conflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note how preparing run %s went: %w", p.Run, err)
	}
	s.hub.mu.Lock()
	kills := s.hub.core.Ended(s.node, reply.Ended)
	s.hub.mu.Unlock()
	for _, e := range kills {
		s.tell(&wire.FromServer{Body: &wire.FromServer_Kill{Kill: e}})
	}
	return nil
}
