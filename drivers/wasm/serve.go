package wasm

import (
	"fmt"
	"slices"
	"time"
)

// startTimeout is when a worker that is not ready is given up. Where the compile cache was
// lost, it compiles a module in this time.
const startTimeout = compileTimeout

// start starts a worker and serves the queue with it.
func (p *pool) start() {
	defer p.workers.Done()
	c, err := p.newWorker()
	if err != nil {
		p.mu.Lock()
		p.live--
		var e *execution
		if len(p.queue) > 0 {
			e, p.queue = p.queue[0], p.queue[1:]
		}
		p.tick()
		p.mu.Unlock()
		if e != nil {
			e.refuse(err)
		}
		return
	}
	for e := p.next(c); e != nil; e = p.next(c) {
		outcome := e.runOn(c)
		p.mu.Lock()
		delete(p.busy, c)
		if outcome == notBegun {
			p.queue = slices.Insert(p.queue, 0, e)
		}
		p.mu.Unlock()
		if outcome != workerLives {
			break
		}
	}
	c.end()
	p.mu.Lock()
	p.live--
	p.grow()
	p.tick()
	p.mu.Unlock()
}

// newWorker starts a worker that is ready, and holds the module that is needed first: no
// execution's time counts what a worker takes before it.
func (p *pool) newWorker() (*child, error) {
	p.mu.Lock()
	a := p.area
	var first *execution
	if len(p.queue) > 0 {
		first = p.queue[0]
	}
	p.mu.Unlock()
	boot := setup{confine: a != nil}
	if a != nil {
		boot.readOnly, boot.writable = a.readOnly, a.writable
	}
	c, err := p.spawner.spawn(boot)
	if err != nil {
		return nil, err
	}
	c.area = a
	late := time.AfterFunc(startTimeout, c.kill)
	defer late.Stop()
	err = c.awaitReady()
	if err == nil && first != nil {
		// A module that cannot be loaded is told by the execution that needs it.
		_, err = c.load(first.run.module)
		c.use(first.run.module.digest)
	}
	if err != nil {
		c.end()
		return nil, fmt.Errorf("start wasm worker: %w (%s)", err, c.death().message)
	}
	return c, nil
}

// lookFor is how deep in the queue a worker looks for an execution of a module
// that it holds, before it takes the first.
const lookFor = 16

// next waits for the worker's next execution; nil ends the worker.
func (p *pool) next(c *child) *execution {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	if len(p.queue) > 0 {
		i := p.pick(c)
		if i < 0 {
			p.mu.Unlock()
			return nil // it cannot reach what waits, and a new one can
		}
		e := p.queue[i]
		p.queue = slices.Delete(p.queue, i, i+1)
		p.occupy(c)
		p.mu.Unlock()
		return e
	}
	c.idle = time.Now()
	p.idle = append(p.idle, c)
	p.reapAfter(p.idleAfter)
	p.mu.Unlock()
	return <-c.wake
}

func (p *pool) pick(c *child) int {
	first := -1
	for i, e := range p.queue[:min(len(p.queue), lookFor)] {
		if !c.area.covers(e.reach) {
			continue
		}
		if c.holds(e.run.module.digest) {
			return i
		}
		if first < 0 {
			first = i
		}
	}
	return first
}
