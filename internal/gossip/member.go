package gossip

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/sheaf-run/agent/sheaf"
)

// Member is what the pool knows of one agent. Its JSON form, with short keys, is
// the metadata that gossip carries.
type Member struct {
	Name    string       `json:"-"` // unique in the pool
	Gossip  string       `json:"-"` // its gossip address, as seen by the pool
	Region  string       `json:"r"`
	Address string       `json:"a"`           // host:port of its RPC listener
	HTTP    string       `json:"h,omitempty"` // host:port of its HTTP listener
	HTTPS   bool         `json:"t,omitempty"` // HTTP is served over TLS
	Server  string       `json:"s,omitempty"` // its ID among the servers; empty where it is none
	Node    sheaf.NodeID `json:"n,omitempty"` // its ID among the clients; empty where it is none
	Expect  int          `json:"e,omitempty"` // of a server: how many servers found a cluster together
	Cluster string       `json:"c,omitempty"` // ID of the cluster a server belongs to, once there is one
	Leaving bool         `json:"l,omitempty"` // of a server: it is on its way out of its cluster
	Version string       `json:"v,omitempty"` // of the program
}

func (m Member) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic("gossip: a member of plain strings has no JSON form: " + err.Error())
	}
	return b
}

// Members are the live agents of the pool by name, this one included.
func (p *Pool) Members() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.members), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// Servers are the live servers of the region by name. A client tries them in
// any order: whoever does not lead says who does.
func (p *Pool) Servers() []Member {
	return slices.DeleteFunc(p.Members(), func(m Member) bool { return m.Server == "" })
}

// Changed is closed at the next change of Members. Take it before reading
// them, so that no change is missed.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// set notes that name is alive as m, or gone.
func (p *Pool) set(name string, m Member, alive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if alive {
		if p.members[name] == m {
			return
		}
		p.members[name] = m
	} else {
		delete(p.members, name)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// delegate is memberlist's view of a Pool.
type delegate struct{ p *Pool }

// NodeMeta is what others are told of this agent.
func (d delegate) NodeMeta(limit int) []byte {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	b := d.p.self.encode()
	if len(b) > limit {
		// Only Update can have made it grow; the version is what nobody acts on.
		short := d.p.self
		short.Version = ""
		b = short.encode()
	}
	return b[:min(len(b), limit)]
}

// NotifyMsg takes messages of users of memberlist; there are none.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts gives messages of users of memberlist; there are none.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is exchanged beside the membership; there is none.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState takes what others exchange beside the membership.
func (delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin tells of an agent that is there.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.NotifyUpdate(n) }

// NotifyUpdate tells of an agent whose metadata changed.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	var m Member
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		d.p.log.Warn("gossip member says nothing we understand", "member", n.Name, "error", err)
		return
	}
	m.Name, m.Gossip = n.Name, n.Address()
	d.p.miss(n.Name, m.Gossip, true)
	d.p.set(n.Name, m, true)
}

// NotifyLeave tells of an agent that left or is held for dead.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.p.miss(n.Name, n.Address(), n.State == memberlist.StateLeft)
	d.p.set(n.Name, Member{}, false)
}

// lineLogger turns memberlist's lines, "[LEVEL] memberlist: text", into records.
type lineLogger struct{ log *slog.Logger }

func (l *lineLogger) Write(line []byte) (int, error) {
	n := len(line)
	level := slog.LevelInfo
	line = bytes.TrimSpace(line)
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if name, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			line = text
			switch string(name) {
			case "DEBUG":
				level = slog.LevelDebug
			case "WARN":
				level = slog.LevelWarn
			case "ERR", "ERROR":
				level = slog.LevelError
			}
		}
	}
	line = bytes.TrimPrefix(line, []byte("memberlist: "))
	l.log.Log(context.Background(), level, "gossip: "+string(line))
	return n, nil
}
