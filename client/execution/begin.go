package execution

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// begin starts what is waiting while there is space, at each step of the run
// that uses least of the node for its weight.
func (c *Core) begin(now time.Time) {
	if c.held || c.refused || now.After(c.lease) {
		return
	}
	for _, r := range c.active {
		c.openGate(r)
		c.fillWindow(r, now)
	}
	if c.account.Full() || c.storing >= maxStoring {
		return
	}
	emptied := false
	for {
		r := c.choose(now)
		if r == nil {
			break
		}
		c.beginOne(r, now)
		emptied = emptied || r.waiting() == 0
	}
	if emptied {
		c.settleActive()
	}
}

// openGate has a run prepared that is not.
func (c *Core) openGate(r *Run) {
	if r.gate == gateShut {
		r.gate = gatePreparing
		c.fx.Prepare = append(c.fx.Prepare, r)
	}
}

// choose is the run whose next partition begins, nil when none can. A
// partition that has not fitted for longer than patience keeps the others back,
// so that small ones never starve a large one.
func (c *Core) choose(now time.Time) *Run {
	var best, waits *Run
	for _, r := range c.active {
		if r.gate != gateOpen || r.waiting() == 0 {
			continue
		}
		if !r.bringForward() || len(r.window) > 0 && r.window[0].shard == nil || len(r.window) == 0 && r.Shards {
			continue
		}
		need := c.nextNeed(r)
		if !c.account.Fits(need) && c.account.Ever(need) {
			if r.blocked.IsZero() {
				r.blocked = now
			}
			if now.Sub(r.blocked) > patience && (waits == nil || r.blocked.Before(waits.blocked)) {
				waits = r
			}
			continue
		}
		if best == nil || before(r, best) {
			best = r
		}
	}
	if waits != nil {
		return nil
	}
	return best
}

// before orders runs by what they use for their weight, then by what they had.
func before(a, b *Run) bool {
	x, y := a.used/float64(a.Weight), b.used/float64(b.Weight)
	if x != y {
		return x < y
	}
	if a.pass != b.pass {
		return a.pass < b.pass
	}
	return a.ID < b.ID
}

func (c *Core) nextNeed(r *Run) Need {
	n := r.Need
	if len(r.window) > 0 {
		n.Disk += r.window[0].bytes
	}
	return n
}

func (c *Core) beginOne(r *Run, now time.Time) {
	need := c.nextNeed(r)
	var w candidate
	if len(r.window) > 0 {
		w = r.window[0]
		r.window[0] = candidate{}
		r.window = r.window[1:]
	} else {
		s := r.queue.pop(1)
		w = candidate{partition: s.first, attempt: s.attempt, generation: s.generation}
	}
	r.blocked = time.Time{}
	c.floor = max(c.floor, r.pass)
	r.pass += 1 / float64(r.Weight)
	e := &Execution{
		Run: r, Kind: r.Kind(), Partition: w.partition, Attempt: w.attempt, Generation: w.generation,
		ID:    string(sheaf.NewExecutionID(r.Of(), int(w.partition), w.attempt)),
		Shard: w.shard, Need: need, Begun: now,
	}
	r.add(e)
	c.live[e] = struct{}{}
	if !c.account.Ever(need) {
		e.Result = newResult(e)
		e.Result.fail(sheaf.OutcomeFailed, sheaf.FailDisk, "its shard of "+sheaf.Size(w.bytes).String()+" and its disk of "+r.Limits.Disk.String()+" are more than this node has")
		c.store(e)
		return
	}
	c.take(e)
	if r.Stages {
		c.fx.Stage = append(c.fx.Stage, e)
		return
	}
	c.start(e, now)
}

// start hands e, whose directories stand, to its driver.
func (c *Core) start(e *Execution, now time.Time) {
	e.step(Running)
	e.Started = now
	c.fx.Start = append(c.fx.Start, e)
}

func (c *Core) take(e *Execution) {
	c.account.Take(e.Need)
	e.holdsRest, e.holdsDisk = true, true
	e.Run.used += e.Need.share(c.account.total)
}

// release gives back what e holds: all but the disk when its program has ended, and the disk
// when its outputs are where they stay.
func (c *Core) release(e *Execution, disk bool) {
	if e.holdsRest {
		e.holdsRest = false
		part := e.Need
		if e.holdsDisk {
			part.Disk = 0
		}
		c.account.Give(part)
		r := e.Run
		if r.used -= e.Need.share(c.account.total); r.used < 1e-9 {
			r.used = 0
		}
	}
	if disk && e.holdsDisk {
		e.holdsDisk = false
		c.account.giveDisk(e.Need.Disk)
	}
}

// giveDisk returns the disk that outlasted its execution's other reservations.
func (a *Accountant) giveDisk(bytes int64) {
	a.used.Disk -= bytes
	if a.used.Disk < 0 {
		panic("execution: more disk was given back than taken")
	}
}

// fillWindow moves the front of the queue of a run with shards into its
// window, and asks for the shards that are missing.
func (c *Core) fillWindow(r *Run, now time.Time) {
	if !r.Shards {
		return
	}
	if len(r.window) <= windowLen/2 && r.queue.count > 0 {
		w := make([]candidate, len(r.window), windowLen)
		copy(w, r.window)
		for len(w) < windowLen {
			s := r.queue.pop(uint32(windowLen - len(w)))
			if s.count == 0 {
				break
			}
			for i := range s.count {
				w = append(w, candidate{partition: s.first + i, attempt: s.attempt, generation: s.generation})
			}
		}
		r.window = w
	}
	if r.fetching || now.Before(r.refetch) {
		return
	}
	for i, w := range r.window {
		if w.shard != nil {
			continue
		}
		n := 1
		for i+n < len(r.window) && r.window[i+n].shard == nil && r.window[i+n].partition == w.partition+uint32(n) {
			n++
		}
		r.fetching = true
		c.fx.Fetch = append(c.fx.Fetch, Fetch{Run: r, First: w.partition, Count: uint32(n)})
		return
	}
}

func newResult(e *Execution) *Result {
	return &Result{Run: e.Run, Kind: e.Kind, Partition: e.Partition, Attempt: e.Attempt, Generation: e.Generation, ExitCode: -1}
}

func (c *Core) assignOwn(r *Run, x *wire.Executions, now time.Time) {
	for _, attempt := range x.Attempt {
		k := ownKey{x.Kind, attempt}
		if r.own[k] != nil {
			continue
		}
		r.own[k] = &Execution{Run: r, Kind: x.Kind, Attempt: attempt, Generation: x.Generation, ID: ownID(r.ID, x.Kind, attempt), Begun: now}
	}
	c.beginOwn(now)
}
