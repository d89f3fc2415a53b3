package containerd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// Executions that may share a container run in kept ones, one after another. An
// execution takes a kept container that runs nothing, or waits for whichever comes first: one that
// another gives back, or one that is being made.

const (
	// idleLife is how long a container is kept for the next execution.
	idleLife = 30 * time.Second
	// maxIdle is how many are kept at once, of all kinds: each holds some 10 MiB of
	// memory, and its image.
	maxIdle = 16
)

// pool are the kept containers that are alike.
type pool struct {
	key     string
	idle    []*worker // the last was used last
	waiting []chan given
	making  int // containers on their way; never fewer than wait
}

// given is a worker for who waits, or why there is none.
type given struct {
	w   *worker
	err error
}

// poolKey tells apart what a container is made for: whoever may follow each other
// in it finds the same there.
func poolKey(start *driverpb.Start, held []held) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %d %d %d", start.GetShare(), start.GetHandle(), start.GetNetwork(), start.GetCpuMhz(), start.GetMemoryBytes(), start.GetPids())
	for _, h := range held {
		if !inScratch(h.target) {
			fmt.Fprintf(&b, " %q %t", h.target, h.file)
		}
	}
	return b.String()
}

// acquire gets a container for e that nobody else uses.
func (s *session) acquire(e *execution, held []held) (*worker, error) {
	if e.stop.asked() != 0 {
		return nil, errStopped
	}
	key := poolKey(e.start, held)
	s.mu.Lock()
	p := s.pool(key)
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle, s.idle = p.idle[:n-1], s.idle-1
		w.expiry.Stop()
		s.mu.Unlock()
		return w, nil
	}
	turn := make(chan given, 1)
	p.waiting = append(p.waiting, turn)
	if p.making < len(p.waiting) {
		p.making++
		s.all.Go(func() { s.make(p, e.start, held) })
	}
	s.mu.Unlock()
	var err error
	select {
	case g := <-turn:
		return g.w, g.err
	case <-e.stop.wake:
		err = errStopped
	case <-s.ctx.Done():
		err = errors.New("the driver was closed")
	}
	s.mu.Lock()
	if i := slices.Index(p.waiting, turn); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		s.mu.Unlock()
		return nil, err
	}
	s.mu.Unlock()
	if g := <-turn; g.w != nil { // it came at the same moment
		s.giveBack(g.w)
	}
	return nil, err
}

// pool is the one of that key. s.mu is held.
func (s *session) pool(key string) *pool {
	p := s.pools[key]
	if p == nil {
		p = &pool{key: key}
		s.pools[key] = p
	}
	return p
}

// make makes a container for who waits, if somebody still does when its turn comes.
func (s *session) make(p *pool, start *driverpb.Start, held []held) {
	turn := s.driver.turn(s.ctx)
	s.mu.Lock()
	if !turn || len(p.waiting) == 0 {
		p.making--
		s.tidy(p)
		s.mu.Unlock()
		if turn {
			s.driver.over()
		}
		return
	}
	s.mu.Unlock()
	w, err := s.newWorker(p.key, start, held)
	s.driver.over()
	s.mu.Lock()
	p.making--
	s.mu.Unlock()
	if err == nil {
		s.giveBack(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.waiting) > 0 {
		p.waiting[0] <- given{err: err}
		p.waiting = p.waiting[1:]
	}
	s.tidy(p)
}

// giveBack hands a container that is as good as new to who waits longest, or keeps it for a while.
func (s *session) giveBack(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pool(w.pool)
	if len(p.waiting) > 0 {
		p.waiting[0] <- given{w: w}
		p.waiting = p.waiting[1:]
		return
	}
	if s.ctx.Err() != nil || s.idle >= maxIdle {
		s.retire(w)
		s.tidy(p)
		return
	}
	p.idle, s.idle = append(p.idle, w), s.idle+1
	if w.expiry == nil {
		w.expiry = time.AfterFunc(s.driver.idle, func() { s.expire(w) })
	} else {
		w.expiry.Reset(s.driver.idle)
	}
}

// expire ends a container that nobody has wanted for long.
func (s *session) expire(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pool(w.pool)
	if i := slices.Index(p.idle, w); i >= 0 { // otherwise it was taken at the last moment
		p.idle, s.idle = slices.Delete(p.idle, i, i+1), s.idle-1
		s.retire(w)
	}
	s.tidy(p)
}

// retireAll ends all that is kept; who runs something gives back, and is ended then.
func (s *session) retireAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		for _, w := range p.idle {
			s.idle--
			w.expiry.Stop()
			s.retire(w)
		}
		p.idle = nil
		s.tidy(p)
	}
}

// retire has a container ended that runs nothing and is in no list. s.mu is held.
func (s *session) retire(w *worker) {
	s.all.Go(func() {
		w.end()
		s.driver.clear(s.client, w.container)
	})
}

// tidy forgets a pool that nothing is in. s.mu is held.
func (s *session) tidy(p *pool) {
	if len(p.idle)+len(p.waiting)+p.making == 0 && s.pools[p.key] == p {
		delete(s.pools, p.key)
	}
}
