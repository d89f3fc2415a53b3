package consensus

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

const (
	// healthEvery is how often the leader asks each server how far it is. One request a
	// second costs nothing, and a new server is known to be steady soon.
	healthEvery = time.Second
	// reconcileEvery is how often servers are promoted and removed.
	reconcileEvery = 2 * time.Second
)

// Health is what the leader knows of a server.
type Health struct {
	ID          string
	Healthy     bool
	Voter       bool
	StableSince time.Time // when Healthy last changed
	Stats
}

// Health is the leader's view of the servers, by ID, and how many of them may fail before there is
// no quorum. It is false on the others, and in a term's first moment.
func (n *Node) Health() (servers []Health, tolerance int, known bool) {
	p := n.pilot.Load()
	if p == nil {
		return nil, 0, false
	}
	s := p.GetState()
	if s == nil || len(s.Servers) == 0 {
		return nil, 0, false
	}
	for id, x := range s.Servers {
		servers = append(servers, Health{
			ID: string(id), Healthy: x.Health.Healthy, Voter: x.HasVotingRights(), StableSince: x.Health.StableSince,
			Stats: Stats{LastContact: x.Stats.LastContact, LastTerm: x.Stats.LastTerm, LastIndex: x.Stats.LastIndex},
		})
	}
	slices.SortFunc(servers, func(a, b Health) int { return cmp.Compare(a.ID, b.ID) })
	return servers, s.FailureTolerance, true
}

// startAutopilot begins the library's loops and gives what ends them and waits.
func (n *Node) startAutopilot(ctx context.Context, r *raft.Raft) (stop func()) {
	p := autopilot.New(r, &steward{node: n, raft: r, gone: map[raft.ServerID]time.Time{}},
		autopilot.WithPromoter(&patient{}), autopilot.WithLogger(raftLogger(n.config.Logger, false)),
		autopilot.WithUpdateInterval(healthEvery), autopilot.WithReconcileInterval(reconcileEvery))
	p.Start(ctx)
	n.pilot.Store(p)
	return func() {
		n.pilot.Store(nil)
		<-p.Stop()
	}
}

// patient removes only what has failed. The library's own promoter lets every server be removed that is not alive,
// also one of unknown state: one that restarts.
type patient struct{ autopilot.StablePromoter }

// FilterFailedServerRemovals implements autopilot.Promoter.
func (*patient) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, f *autopilot.FailedServers) *autopilot.FailedServers {
	waiting := func(x *autopilot.Server) bool { return x.NodeStatus != autopilot.NodeFailed }
	f.FailedVoters = slices.DeleteFunc(f.FailedVoters, waiting)
	f.FailedNonVoters = slices.DeleteFunc(f.FailedNonVoters, waiting)
	return f
}

// steward answers autopilot's questions about the servers, for one term.
type steward struct {
	node *Node
	raft *raft.Raft

	mu   sync.Mutex
	gone map[raft.ServerID]time.Time // since when gossip does not know a server
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (s *steward) AutopilotConfig() *autopilot.Config {
	a := s.node.config.Autopilot()
	return &autopilot.Config{
		CleanupDeadServers: a.CleanupDeadServers, LastContactThreshold: time.Duration(a.LastContactThreshold),
		MaxTrailingLogs: a.MaxTrailingLogs, MinQuorum: uint(a.MinQuorum), ServerStabilizationTime: time.Duration(a.ServerStabilizationTime),
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (s *steward) NotifyState(*autopilot.State) {}

// KnownServers implements autopilot.ApplicationIntegration: those of raft's configuration.
// One that gossip has lost is of unknown state until it has been gone for long enough.
func (s *steward) KnownServers() map[raft.ServerID]*autopilot.Server {
	members, _ := s.node.config.Members()
	live := map[raft.ServerID]Member{}
	for _, m := range members {
		live[raft.ServerID(m.ID)] = m
	}
	settings := s.node.config.Autopilot()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[raft.ServerID]*autopilot.Server{}
	for _, p := range s.node.Peers() {
		id := raft.ServerID(p.ID)
		x := &autopilot.Server{ID: id, Name: p.ID, Address: raft.ServerAddress(p.Address), RaftVersion: int(raft.ProtocolVersionMax), NodeType: autopilot.NodeVoter}
		m, alive := live[id]
		x.Name, x.Version, x.IsLeader = cmp.Or(m.Name, p.ID), m.Version, p.ID == s.node.config.Identity.Server
		switch {
		case x.IsLeader:
			x.NodeStatus = autopilot.NodeAlive
		case alive:
			x.NodeStatus = standing(m.Cluster, *s.node.cluster.Load(), p.Voter)
		default:
			x.NodeStatus = autopilot.NodeUnknown
			if s.gone[id].IsZero() {
				s.gone[id] = now
			}
			if now.Sub(s.gone[id]) >= time.Duration(settings.DeadServerAfter) {
				x.NodeStatus = autopilot.NodeFailed
			}
		}
		if alive || x.IsLeader {
			delete(s.gone, id)
		}
		known[id] = x
	}
	return known
}

// standing is what a live server is to its leader: two clusters in one gossip pool may both have taken in a new one, and how
// far its log is says nothing of whose it is. It gets a vote once it says that it belongs here, and goes if it belongs elsewhere.
func standing(its, ours string, voter bool) autopilot.NodeStatus {
	switch {
	case voter || its == ours:
		return autopilot.NodeAlive
	case its == "":
		return autopilot.NodeUnknown
	}
	return autopilot.NodeFailed
}

// FetchServerStats implements autopilot.ApplicationIntegration.
func (s *steward) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	var mu sync.Mutex
	out := map[raft.ServerID]*autopilot.ServerStats{}
	var all sync.WaitGroup
	for id, x := range servers {
		all.Go(func() {
			got := s.node.Stats()
			if string(id) != s.node.config.Identity.Server {
				var err error
				if got, err = s.node.config.Stats(ctx, string(x.Address)); err != nil {
					s.node.config.Logger.Debug("ask a server how far it is", "server", id, "error", err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = &autopilot.ServerStats{LastContact: got.LastContact, LastTerm: got.LastTerm, LastIndex: got.LastIndex}
		})
	}
	all.Wait()
	return out
}

// RemoveFailedServer implements autopilot.ApplicationIntegration. Autopilot
// has made sure of the quorum.
func (s *steward) RemoveFailedServer(x *autopilot.Server) {
	s.node.config.Logger.Warn("removing a server that has been gone for long", "server", x.ID, "address", x.Address)
	if err := s.raft.RemoveServer(x.ID, 0, changeTimeout).Error(); err != nil {
		s.node.config.Logger.Error("remove a dead server", "server", x.ID, "error", err)
	}
}
