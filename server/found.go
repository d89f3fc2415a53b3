package server

import (
	"context"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/server/consensus"
)

// founders waits until gossip knows exactly the servers that are to found the cluster, and
// this is the one among them that does. The others, and those that start later, are taken in by
// the leader: that two found at once, each with servers of its own, needs a gossip that is split just then.
func (s *Server) founders(ctx context.Context) ([]consensus.Peer, error) {
	said := ""
	select {
	case <-s.config.Gossip.Tried():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		changed := s.config.Gossip.Changed()
		members := s.config.Gossip.Servers()
		state := mayFound(members, s.config.ID, s.config.Expect)
		if state == founds {
			var peers []consensus.Peer
			for _, m := range members {
				peers = append(peers, consensus.Peer{ID: m.Server, Address: m.Address, Voter: true})
			}
			s.config.Logger.Info("founding the cluster", "servers", len(peers))
			return peers, nil
		}
		if string(state) != said {
			said = string(state)
			s.config.Logger.Info("waiting for a cluster", "because", said, "servers", len(members), "bootstrap_expect", s.config.Expect)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// founding is what a server without a cluster makes of the servers it sees.
type founding string

const (
	founds     founding = "this server founds it"
	joins      founding = "there is one: its leader takes this server in"
	isTold     founding = "bootstrap_expect is not set: this server only joins one that is there"
	waits      founding = "too few servers are there yet"
	tooMany    founding = "more servers are there than bootstrap_expect says: set it to their number on each, or stop some"
	disagrees  founding = "the servers' bootstrap_expect differ: set the same on each"
	leftToThem founding = "another server founds it"
)

// mayFound decides for the server self. All founders must come to the same list, so
// that nobody founds while anything about it is in doubt.
func mayFound(servers []gossip.Member, self string, expect int) founding {
	first := ""
	state := founds
	for _, m := range servers {
		if m.Cluster != "" {
			return joins
		}
		if m.Expect != expect && m.Expect != 0 {
			state = disagrees
		}
		if first == "" || m.Server < first {
			first = m.Server
		}
	}
	switch {
	case expect == 0:
		return isTold
	case state == disagrees:
		return disagrees
	case len(servers) < expect:
		return waits
	case len(servers) > expect:
		return tooMany
	case first != self:
		return leftToThem
	}
	return founds
}
