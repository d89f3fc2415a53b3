package wasm

import "time"

const (
	// slowAfter is when an execution is looked at that runs while others wait, and how often.
	// If it spent little of the time computing, another worker takes its lane: it is some
	// hundred short executions, and little beside what a process costs to start.
	slowAfter = 5 * time.Millisecond
	// computing is the share of the time, one in so many, in which an execution uses or awaits
	// a processor at least if it is not waiting for something else.
	computing = 2
	// longAfter is when the lane is given up in any case. Before that, more workers than
	// processors would only make all of them slower.
	longAfter = 250 * time.Millisecond
)

// stint is one execution as the pool sees it.
type stint struct {
	since  time.Time
	slow   bool
	seen   time.Time     // when it was looked at last
	wanted time.Duration // by its worker until then
}

// occupy notes that the worker runs an execution from now on. The caller holds mu.
func (p *pool) occupy(c *child) { p.busy[c] = &stint{since: time.Now()} }

// look finds out who is slow. The caller holds mu.
func (p *pool) look() {
	now := time.Now()
	for c, s := range p.busy {
		age := now.Sub(s.since)
		if s.slow || age < p.slowAfter {
			continue
		}
		wanted := c.wanted()
		waits := !s.seen.IsZero() && (wanted-s.wanted)*computing < now.Sub(s.seen)
		s.slow = waits || age > longAfter
		s.seen, s.wanted = now, wanted
	}
}

// grow starts workers while executions wait and lanes are free. The caller holds mu.
func (p *pool) grow() {
	if p.closed {
		return
	}
	slow := 0
	for _, s := range p.busy {
		if s.slow {
			slow++
		}
	}
	lanes := min(p.lanes, len(p.queue))
	for p.live-slow < lanes && p.live < maxWorkers {
		p.live++
		p.workers.Add(1)
		go p.start()
	}
}

// tick looks at the queue again as long as there is one. The caller holds mu.
func (p *pool) tick() {
	if p.ticking || len(p.queue) == 0 {
		return
	}
	p.ticking = true
	time.AfterFunc(p.slowAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ticking = false
		p.look()
		p.grow()
		p.tick()
	})
}
