package consensus

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sheaf-run/agent/sheaf"
)

// Member is a live server of the region, as gossip tells.
type Member struct {
	ID      string
	Name    string
	Address string // host:port of its raft
	Cluster string // ID of its cluster; empty while it belongs to none
	Version string
	Leaving bool // it has asked to be removed
}

// Stats is how far a server's log is.
type Stats struct {
	LastContact time.Duration // since it heard of the leader; 0 on the leader, negative never
	LastTerm    uint64        // of its last entry
	LastIndex   uint64
}

const (
	// changeTimeout bounds the queueing of a change of the servers.
	changeTimeout = 10 * time.Second
	// takeInRetry is the pause after a server could not be taken in.
	takeInRetry = 2 * time.Second
)

// Stats is how far this server's own log is.
func (n *Node) Stats() Stats {
	s := Stats{LastContact: n.LastContact()}
	r := n.raft.Load()
	if r == nil {
		return s
	}
	s.LastIndex = r.LastIndex()
	s.LastTerm = n.lastTerm(r)
	return s
}

// lastTerm is the term of the last entry, which raft tells in a map of texts only.
func (n *Node) lastTerm(r *raft.Raft) uint64 {
	term, err := strconv.ParseUint(r.Stats()["last_log_term"], 10, 64)
	if err != nil {
		return 0
	}
	return term
}

// RaftStats is what raft says of itself, in its own words.
func (n *Node) RaftStats() map[string]string {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	return r.Stats()
}

// Remove takes a server out of the configuration; it may not be this one, the
// leader. One that is not there is NotFound.
func (n *Node) Remove(ctx context.Context, id string) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	if id == n.config.Identity.Server {
		return &sheaf.Error{Class: sheaf.Conflict, Field: "id", Msg: "the leader cannot remove itself", Hint: "hand leadership on first: agent operator raft transfer-leadership"}
	}
	peers := n.Peers()
	if !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id }) {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "id", Msg: fmt.Sprintf("there is no server %q", id), Hint: "`agent operator raft list-peers` shows the servers' IDs"}
	}
	return n.await(ctx, r.RemoveServer(raft.ServerID(id), 0, changeTimeout))
}

// Transfer hands leadership to the server id, or to the one that is furthest where id is
// empty, and returns once it is given up here.
func (n *Node) Transfer(ctx context.Context, id string) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	peers := slices.DeleteFunc(n.Peers(), func(p Peer) bool {
		return !p.Voter || p.ID == n.config.Identity.Server || id != "" && p.ID != id
	})
	if len(peers) == 0 {
		msg := "there is no other voter to lead"
		if id != "" {
			msg = fmt.Sprintf("no other voter is called %q", id)
		}
		return &sheaf.Error{Class: sheaf.Conflict, Field: "id", Msg: msg, Hint: "`agent operator raft list-peers` shows the voters"}
	}
	handOn := func() error {
		if id != "" {
			return r.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(peers[0].Address)).Error()
		}
		return r.LeadershipTransfer().Error()
	}
	return n.between(ctx, handOn)
}

// between runs f while no work of a term goes on; a term that is still this
// server's then begins its work anew.
func (n *Node) between(ctx context.Context, f func() error) error {
	failed := make(chan error, 1)
	select {
	case n.pauses <- func() { failed <- f() }:
	case <-ctx.Done():
		return tookTooLong(ctx.Err())
	}
	select {
	case err := <-failed:
		if err != nil {
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: "the servers could not agree", Err: err, Hint: "try again in a moment"}
		}
		return nil
	case <-ctx.Done():
		return tookTooLong(ctx.Err())
	}
}

// keepServers is the leader's care for the configuration: it takes in the servers
// that gossip finds, and lets autopilot promote and remove them.
func (n *Node) keepServers(ctx context.Context, r *raft.Raft) {
	if n.config.Members == nil {
		return
	}
	stop := n.startAutopilot(ctx, r)
	defer stop()
	warned := map[string]bool{}
	for {
		members, changed := n.config.Members()
		var again <-chan time.Time
		if err := n.takeIn(ctx, r, members, warned); err != nil && ctx.Err() == nil {
			n.config.Logger.Warn("take in a server", "error", err, "retry", takeInRetry)
			again = time.After(takeInRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// takeIn adds the members that are new as nonvoters, and follows those whose address changed.
// A server that another stands in the place of goes first: raft has no two at one address.
func (n *Node) takeIn(ctx context.Context, r *raft.Raft, members []Member, warned map[string]bool) error {
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.ID] = true
	}
	for _, m := range members {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if ours := *n.cluster.Load(); m.Cluster != "" && ours != "" && m.Cluster != ours {
			if !warned[m.ID] {
				n.config.Logger.Warn("a server of another cluster is in the same gossip pool: it is not taken in", "server", m.Name, "address", m.Address, "cluster", m.Cluster, "ours", ours)
				warned[m.ID] = true
			}
			continue
		}
		if m.Leaving || m.Cluster == "" && outnumbered(members, *n.cluster.Load()) {
			continue
		}
		for _, c := range changesFor(n.Peers(), m, n.config.Identity.Server, alive) {
			n.config.Logger.Info(c.say, "server", c.id, "name", m.Name, "address", m.Address)
			if err := n.await(ctx, c.apply(r)); err != nil {
				return fmt.Errorf("%s %s at %s: %w", c.say, c.id, m.Address, err)
			}
		}
	}
	return nil
}

// outnumbered says whether another cluster has more live servers in the pool than ours: new ones are left to it.
func outnumbered(members []Member, ours string) bool {
	count := map[string]int{}
	for _, m := range members {
		count[m.Cluster]++
	}
	for cluster, servers := range count {
		if cluster != "" && cluster != ours && servers > count[ours] {
			return true
		}
	}
	return false
}

// change is one change of raft's configuration.
type change struct {
	say   string
	id    string
	apply func(*raft.Raft) raft.Future
}

// changesFor are the changes that bring a member into the configuration, in order. Gossip is only a hint: nobody takes
// the place of a server that is alive.
func changesFor(peers []Peer, m Member, self string, alive map[string]bool) []change {
	id, address := raft.ServerID(m.ID), raft.ServerAddress(m.Address)
	var out []change
	add := change{"taking in a server, as a nonvoter at first", m.ID, func(r *raft.Raft) raft.Future { return r.AddNonvoter(id, address, 0, changeTimeout) }}
	for _, p := range peers {
		switch {
		case p.ID == m.ID && p.Address == m.Address:
			return nil
		case p.ID == m.ID && p.Voter:
			add = change{"following a voter to its new address", m.ID, func(r *raft.Raft) raft.Future { return r.AddVoter(id, address, 0, changeTimeout) }}
		case p.ID == m.ID:
			add.say = "following a nonvoter to its new address"
		case p.Address == m.Address && (p.ID == self || alive[p.ID]):
			return nil // gossip is behind, or somebody claims what is another's
		case p.Address == m.Address:
			old := p.ID
			out = append(out, change{"removing a server that another replaces", old, func(r *raft.Raft) raft.Future {
				return r.RemoveServer(raft.ServerID(old), 0, changeTimeout)
			}})
		}
	}
	return append(out, add)
}
