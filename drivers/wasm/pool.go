package wasm

import (
	"slices"
	"sync"
	"time"
)

const (
	// maxWorkers bounds the processes; an execution past it waits.
	maxWorkers = 1024
	// lastIdle is how many times IdleAfter the last idle worker is kept.
	lastIdle = 12
	// maxBegins is how often an execution is given to a worker that turns out
	// to be dead before it began.
	maxBegins = 3
)

// pool hands executions to workers. There are as many lanes for short executions as
// Options.Lanes; a worker whose execution waits for something or takes long is no lane any more,
// and another is started if executions wait. So a thousand short ones at once
// need two processes, and ten long ones get ten.
type pool struct {
	spawner   *spawner
	lanes     int
	idleAfter time.Duration
	slowAfter time.Duration // a test sets it

	mu      sync.Mutex
	closed  bool
	queue   []*execution
	idle    []*child // the one used last is last
	live    int      // workers that run, idle or are being started
	busy    map[*child]*stint
	area    *area // nil: workers are not confined
	ticking bool
	reaper  *time.Timer
	workers sync.WaitGroup
}

func newPool(s *spawner, lanes int, idleAfter time.Duration) *pool {
	p := &pool{spawner: s, lanes: lanes, idleAfter: idleAfter, slowAfter: slowAfter, busy: map[*child]*stint{}}
	if canConfine() {
		p.area = &area{}
	}
	return p
}

// submit has the execution run as soon as there is a worker.
func (p *pool) submit(e *execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.area != nil && !p.area.covers(e.reach) {
		p.area = p.area.widened(e.reach)
	}
	if i := p.choose(e); i >= 0 {
		c := p.idle[i]
		p.idle = slices.Delete(p.idle, i, i+1)
		p.occupy(c)
		c.wake <- e
		return
	}
	p.queue = append(p.queue, e)
	p.retire(func(c *child) bool { return !c.area.covers(e.reach) })
	p.grow()
	p.tick()
}

// retire ends idle workers. The caller holds mu.
func (p *pool) retire(useless func(*child) bool) {
	p.idle = slices.DeleteFunc(p.idle, func(c *child) bool {
		if useless(c) {
			close(c.wake)
			return true
		}
		return false
	})
}

// choose is the index of the idle worker that suits best: one that holds the
// module, else the one used last. It is -1 without any that can reach the mounts.
func (p *pool) choose(e *execution) int {
	best := -1
	for i, c := range slices.Backward(p.idle) {
		if !c.area.covers(e.reach) {
			continue
		}
		if c.holds(e.run.module.digest) {
			return i
		}
		if best < 0 {
			best = i
		}
	}
	return best
}

// withdraw takes a waiting execution back and reports whether it was waiting.
func (p *pool) withdraw(e *execution) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.queue, e)
	if i < 0 {
		return false
	}
	p.queue = slices.Delete(p.queue, i, i+1)
	return true
}

// reapAfter has idle workers looked at after a while. The caller holds mu.
func (p *pool) reapAfter(d time.Duration) {
	if p.reaper == nil {
		p.reaper = time.AfterFunc(d, p.reap)
	}
}

// reap ends the workers that were idle for too long.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	for len(p.idle) > 0 {
		c, keep := p.idle[0], p.idleAfter // the first has been idle for longest
		if len(p.idle)+len(p.busy) == 1 {
			keep *= lastIdle
		}
		if wait := keep - time.Since(c.idle); wait > 0 {
			p.reapAfter(wait)
			return
		}
		p.idle = p.idle[1:]
		close(c.wake)
	}
}

// close ends the idle workers and waits for all. Nothing may be submitted any more.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.retire(func(*child) bool { return true })
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	p.workers.Wait()
}
