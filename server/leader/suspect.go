package leader

import (
	"context"
	"sync"

	"github.com/sheaf-run/agent/sheaf"
)

// suspects are nodes that gossip holds for dead. That is a hint only: they get
// no placements and are asked; their lease decides.
type suspects struct {
	mu   sync.Mutex
	list map[sheaf.NodeID]bool
}

func (s *suspects) add(n sheaf.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = map[sheaf.NodeID]bool{}
	}
	s.list[n] = true
}

// clear reports whether the node was suspected.
func (s *suspects) clear(n sheaf.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.list[n]
	delete(s.list, n)
	return was
}

func (s *suspects) has(n sheaf.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list[n]
}

// keepSuspects follows gossip. Only nodes that were seen in the pool during
// this term can vanish from it.
func (t *Term) keepSuspects(ctx context.Context) error {
	if t.Gossip == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	seen := map[sheaf.NodeID]bool{}
	for {
		changed := t.Gossip.Changed()
		now := map[sheaf.NodeID]bool{}
		for _, m := range t.Gossip.Members() {
			if m.Node != "" {
				now[m.Node] = true
			}
		}
		back := false
		for n := range now {
			seen[n] = true
			back = t.suspects.clear(n) || back
		}
		for n := range seen {
			if !now[n] {
				delete(seen, n)
				t.suspects.add(n)
				t.hub.Ping(n)
				t.Logger.Info("gossip holds a node for dead", "node", n)
			}
		}
		if back {
			t.nodesChanged()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
