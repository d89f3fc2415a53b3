package simtest

import (
	"github.com/sheaf-run/agent/sheaf"
)

// stream is one session's connection. Messages arrive in order or not at all:
// when it is cut, what is on its way is lost, and each side notices in its own time.
type stream struct {
	w       *world
	open    bool
	leader  *leader
	client  *client
	node    sheaf.NodeID
	session uint64
	number  uint64 // at the leader, once it has said hello
	lastUp  int64  // when the last message up arrives: no later one may overtake it
	lastDn  int64
}

// latency is how long a message takes: short, and sometimes very long.
func (w *world) latency() int64 {
	if !w.calm && w.chance(25) {
		return w.between(50, 1500)
	}
	return w.between(1, 20)
}

// up delivers f at the leader.
func (s *stream) up(f func(*leader)) {
	w := s.w
	s.lastUp = max(s.lastUp, w.now+w.latency())
	w.after(s.lastUp-w.now, func() {
		if s.open && s.leader.alive {
			s.leader.heard[s.node] = w.now
			f(s.leader)
			return
		}
		w.out.Losses++
		if !s.leader.alive {
			s.cut()
		}
	})
}

// down delivers f at the client.
func (s *stream) down(f func(*client)) {
	w := s.w
	s.lastDn = max(s.lastDn, w.now+w.latency())
	w.after(s.lastDn-w.now, func() {
		if s.open && s.client.stream == s {
			f(s.client)
		} else {
			w.out.Losses++
		}
	})
}

// cut breaks the stream. The client notices after a while; until then it
// goes on with what it has.
func (s *stream) cut() {
	if !s.open {
		return
	}
	s.open = false
	s.leader.core.Closed(s.node, s.number)
	s.w.after(s.w.between(1, 800), func() {
		if s.client.stream == s {
			s.client.disconnected()
		}
	})
}

// call is a request from a client to the leader that may be lost, in either
// direction, late, or made twice. f runs at the leader.
func (w *world) call(c *client, f func(*leader)) {
	times := 1
	if w.chance(8) {
		times = 2
		w.out.Duplicates++
	}
	for range times {
		if !w.calm && w.chance(12) {
			w.out.Losses++
			continue
		}
		w.after(w.latency(), func() {
			if l := w.leader; l != nil && !c.cutOff {
				l.heard[c.id] = w.now
				f(l)
			}
		})
	}
}

// back is the answer of a call.
func (w *world) back(c *client, f func()) {
	boot := c.boot
	if !w.calm && w.chance(12) {
		w.out.Losses++
		return
	}
	w.after(w.latency(), func() {
		if c.alive && c.boot == boot && !c.cutOff {
			f()
		}
	})
}
