package server

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// LeaderChanged implements API.
func (s *Server) LeaderChanged() <-chan struct{} { return s.node.Changed() }

// Leads implements API.
func (s *Server) Leads() bool { return s.term.Load() != nil }

// RaftStats implements API.
func (s *Server) RaftStats() map[string]string { return s.node.RaftStats() }

// Transfer implements API.
func (s *Server) Transfer(ctx context.Context, id string) error {
	if _, err := s.leads(); err != nil {
		return err
	}
	return s.node.Transfer(ctx, id)
}

// RemovePeer implements API.
func (s *Server) RemovePeer(ctx context.Context, id string, force bool) error {
	if _, err := s.leads(); err != nil {
		return err
	}
	if s.config.Gossip != nil && !force && id != s.config.ID {
		for _, m := range s.config.Gossip.Servers() {
			if m.Server == id && !m.Leaving {
				return &sheaf.Error{Class: sheaf.Conflict, Field: "id", Msg: fmt.Sprintf("server %s is alive at %s and would be taken in again", id, m.Address), Hint: "run `agent server leave` there, or stop it first"}
			}
		}
	}
	return s.node.Remove(ctx, id)
}

// SetAutopilot implements API.
func (s *Server) SetAutopilot(ctx context.Context, a sheaf.Autopilot, index uint64) (uint64, error) {
	if err := a.Check(); err != nil {
		return 0, err
	}
	_, done, err := s.change(ctx, "", fsm.NewSetOperator(a, index))
	return done.Index, err
}

// Tolerance implements API.
func (s *Server) Tolerance() int {
	if _, n, ok := s.node.Health(); ok {
		return n
	}
	return -1
}

// withHealth adds what the leader knows of each member.
func (s *Server) withHealth(list []Member) []Member {
	known, _, _ := s.node.Health()
	for _, h := range known {
		for i := range list {
			if list[i].ID == h.ID {
				list[i].Health = &Health{Healthy: h.Healthy, StableSince: h.StableSince.UTC(), LastContact: sheaf.Duration(h.LastContact), LastTerm: h.LastTerm, LastIndex: h.LastIndex}
			}
		}
	}
	return list
}
