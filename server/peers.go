package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/server/rpc"
	"github.com/sheaf-run/agent/sheaf"
)

// members are the servers that gossip knows, for consensus.
func (s *Server) members() ([]consensus.Member, <-chan struct{}) {
	changed := s.config.Gossip.Changed()
	var list []consensus.Member
	for _, m := range s.config.Gossip.Servers() {
		list = append(list, consensus.Member{ID: m.Server, Name: m.Name, Address: m.Address, Cluster: m.Cluster, Version: m.Version, Leaving: m.Leaving})
	}
	return list, changed
}

// peers are connections to other servers, one for each address that was asked for.
type peers struct {
	dialer wire.Dialer

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

func newPeers(d wire.Dialer) *peers { return &peers{dialer: d, conns: map[string]*grpc.ClientConn{}} }

func (p *peers) client(address string) (wire.PeersClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server is stopping"}
	}
	c := p.conns[address]
	if c == nil {
		var err error
		if c, err = p.dialer.Server(address); err != nil {
			return nil, fmt.Errorf("connect to the server at %s: %w", address, err)
		}
		p.conns[address] = c
	}
	return wire.NewPeersClient(c), nil
}

// run keeps the connections until ctx ends.
func (p *peers) run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var err error
	for _, c := range p.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// stats asks the server at address how far its log is.
func (p *peers) stats(ctx context.Context, address string) (consensus.Stats, error) {
	c, err := p.client(address)
	if err != nil {
		return consensus.Stats{}, err
	}
	got, err := c.Stats(ctx, &wire.StatsRequest{})
	if err != nil {
		return consensus.Stats{}, fmt.Errorf("ask %s how far it is: %w", address, err)
	}
	return consensus.Stats{LastContact: time.Duration(got.LastContactMs) * time.Millisecond, LastTerm: got.LastTerm, LastIndex: got.LastIndex}, nil
}

// peerService answers other servers.
type peerService struct {
	wire.UnimplementedPeersServer
	server *Server
}

// Stats says how far this server's log is.
func (p peerService) Stats(context.Context, *wire.StatsRequest) (*wire.StatsResponse, error) {
	s := p.server.node.Stats()
	return &wire.StatsResponse{LastContactMs: s.LastContact.Milliseconds(), LastTerm: s.LastTerm, LastIndex: s.LastIndex}, nil
}

// Leave removes the server that asks for it.
func (p peerService) Leave(ctx context.Context, req *wire.LeaveRequest) (*wire.LeaveResponse, error) {
	_, err := p.server.leads()
	if err == nil {
		err = p.server.node.Remove(ctx, req.Server)
	}
	if sheaf.ClassOf(err) == sheaf.NotFound {
		err = nil // it asked before
	}
	return &wire.LeaveResponse{}, rpc.Status(ctx, err)
}

const (
	// leaveTimeout bounds how long a server tries to leave: an election and a change of the configuration.
	leaveTimeout = 15 * time.Second
	// leaveRetry is the pause between tries.
	leaveRetry = 200 * time.Millisecond
)

// Leave implements API. The last server cannot leave: nobody would have the state.
func (s *Server) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	others := 0
	for _, p := range s.node.Peers() {
		if p.Voter && p.ID != s.config.ID {
			others++
		}
	}
	if others == 0 {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: "this is the only server that votes: there is nobody to leave the state to", Hint: "stop it instead; it goes on where it was when it starts again"}
	}
	s.tellLeaving(true)
	for {
		err := s.leaveOnce(ctx)
		if err == nil {
			s.config.Logger.Info("left the cluster's servers")
			return nil
		}
		select {
		case <-time.After(leaveRetry):
		case <-ctx.Done():
			s.tellLeaving(false)
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server could not leave", Err: err, Hint: "it is a member as before: try again when the servers have a leader"}
		}
	}
}

// tellLeaving has the leader not take this server in again while it goes.
func (s *Server) tellLeaving(leaving bool) {
	if s.config.Gossip != nil {
		s.config.Gossip.Update(func(m *gossip.Member) { m.Leaving = leaving })
	}
}

// leaveOnce hands leadership on, or asks the leader to let this server go.
func (s *Server) leaveOnce(ctx context.Context) error {
	address, self := s.node.Leader()
	if self {
		if err := s.node.Transfer(ctx, ""); err != nil {
			return err
		}
		address, self = s.node.Leader()
	}
	if self || address == "" {
		return s.node.NotLeader()
	}
	c, err := s.peers.client(address)
	if err != nil {
		return err
	}
	if _, err := c.Leave(ctx, &wire.LeaveRequest{Server: s.config.ID}); err != nil {
		return fmt.Errorf("ask the leader at %s: %w", address, err)
	}
	return nil
}
