package server

import (
	"context"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// SetEligible implements API.
func (s *Server) SetEligible(ctx context.Context, id sheaf.NodeID, eligible bool) (uint64, error) {
	_, done, err := s.change(ctx, "", &fsm.Command{Body: &fsm.Command_SetNodeEligibility{SetNodeEligibility: &fsm.SetNodeEligibility{Node: string(id), Eligible: eligible}}})
	return done.Index, err
}

// Drain implements API.
func (s *Server) Drain(ctx context.Context, id sheaf.NodeID, deadline time.Duration) (uint64, error) {
	t, err := s.leads()
	if err != nil {
		return 0, err
	}
	c := &fsm.ChangeNode_Drain{}
	if deadline >= 0 {
		c.DeadlineMs = t.NowMs() + max(deadline.Milliseconds(), 1)
	}
	return s.changeNode(ctx, &fsm.ChangeNode{Node: string(id), Change: &fsm.ChangeNode_Drain_{Drain: c}})
}

// CancelDrain implements API.
func (s *Server) CancelDrain(ctx context.Context, id sheaf.NodeID) (uint64, error) {
	return s.changeNode(ctx, &fsm.ChangeNode{Node: string(id), Change: &fsm.ChangeNode_EndDrain_{EndDrain: &fsm.ChangeNode_EndDrain{Cancel: true}}})
}

// Purge implements API.
func (s *Server) Purge(ctx context.Context, id sheaf.NodeID, force bool) (uint64, error) {
	return s.changeNode(ctx, &fsm.ChangeNode{Node: string(id), Change: &fsm.ChangeNode_Purge_{Purge: &fsm.ChangeNode_Purge{Force: force}}})
}

func (s *Server) changeNode(ctx context.Context, c *fsm.ChangeNode) (uint64, error) {
	_, done, err := s.change(ctx, "", &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: c}})
	return done.Index, err
}

// Avoided implements API.
func (s *Server) Avoided() map[sheaf.NodeID]string {
	if t := s.term.Load(); t != nil {
		return t.Avoided()
	}
	return nil
}

// DrainProgress implements API. What it waits for only the leader knows.
func (s *Server) DrainProgress(id sheaf.NodeID) (sheaf.DrainProgress, error) {
	snap := s.store.Snapshot()
	n := snap.Node(id)
	if n == nil {
		return sheaf.DrainProgress{}, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("there is no node %s", id)}
	}
	p := sheaf.DrainProgress{Node: n.Node, Waiting: []string{}}
	for r := range snap.LiveRuns() {
		p.Running += snap.AssignedOn(r, n.Number)
	}
	for r := range snap.Runs() {
		p.Outputs += r.OutputsOn(n.Number)
	}
	if t := s.term.Load(); t != nil && n.Drain != nil && n.Drain.Done == nil {
		p.Waiting = append(p.Waiting, t.DrainWaits(id)...)
	}
	return p, nil
}
