package events

import (
	"maps"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// Server is a member of the servers' raft.
type Server struct {
	ID      string
	Address string
	Voter   bool
}

func (s Server) role() string {
	if s.Voter {
		return "voter"
	}
	return "nonvoter"
}

// Configured tells of an entry that says which servers there are.
func (l *Log) Configured(index uint64, now []Server) {
	l.mu.Lock()
	before := l.servers
	at := l.at
	l.servers = map[string]Server{}
	for _, s := range now {
		l.servers[s.ID] = s
	}
	after := l.servers
	l.mu.Unlock()
	var events []sheaf.Event
	event := func(s Server, what, was, is string) {
		events = append(events, sheaf.Event{Index: index, Time: at, Topic: sheaf.TopicServer, Type: what, Key: s.ID, Was: was, Status: is, Reason: s.Address})
	}
	for _, id := range slices.Sorted(maps.Keys(after)) {
		s := after[id]
		switch old, known := before[id]; {
		case before == nil: // the first that this server sees: nothing joins by it
		case !known:
			event(s, "ServerJoined", "", s.role())
		case old.Voter != s.Voter:
			event(s, "ServerRoleChanged", old.role(), s.role())
		case old.Address != s.Address:
			event(s, "ServerMoved", s.role(), s.role())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[id]; !still {
			event(before[id], "ServerLeft", before[id].role(), "")
		}
	}
	l.add(index, events)
}
