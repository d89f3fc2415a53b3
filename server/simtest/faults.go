package simtest

import (
	"fmt"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// faults happen until the calm. Every seed has at least one crash of a client
// and one of the leader.
func (w *world) faults() {
	w.after(w.between(500, 3000), func() { w.crashClient(w.anyone()) })
	w.after(w.between(2000, 8000), func() {
		if w.leader != nil {
			w.crashLeader()
		}
	})
	w.after(w.between(300, 1500), w.fault)
}

func (w *world) anyone() *client { return w.clients[w.rng.IntN(len(w.clients))] }

func (w *world) fault() {
	if w.calm {
		return
	}
	w.after(w.between(200, 2500), w.fault)
	c := w.anyone()
	switch w.rng.IntN(8) {
	case 0, 1:
		w.crashClient(c)
	case 2:
		if w.leader != nil && w.chance(2) {
			w.crashLeader()
		}
	case 3, 4: // the network does not reach it, often for longer than the lease
		c.cutOff = true
		if c.stream != nil {
			c.stream.cut()
		}
		w.after(w.between(200, 3*leaseMs), func() { c.cutOff = false })
	case 5, 6:
		if c.stream != nil {
			c.stream.cut()
		}
	case 7: // its disk is replaced: what it had committed is gone
		if c.alive && w.chance(2) {
			w.crashClient(c)
			for x := range c.outputs {
				c.wiped[x] = true
			}
			clear(c.outputs)
			c.results = nil
		}
	}
}

// crashClient kills a client's agent. Some of what runs outlives it and is found again;
// files that it has no record of are asked after.
func (w *world) crashClient(c *client) {
	if !c.alive {
		return
	}
	w.out.Crashes++
	c.alive, c.stream, c.welcomed, c.session = false, cutNow(c.stream), false, 0
	c.queue = nil
	clear(c.publishing)
	var survived []execution
	for _, x := range c.running {
		if x.kind == wire.Kind_KIND_PARTITION && w.chance(3) {
			survived = append(survived, x)
		}
	}
	c.running = survived
	w.after(w.between(50, 2*leaseMs), func() { c.restart() })
}

func cutNow(s *stream) *stream {
	if s != nil {
		s.cut()
	}
	return nil
}

func (c *client) restart() {
	w := c.w
	if c.alive {
		return
	}
	c.alive, c.boot = true, c.boot+1
	for _, x := range c.running {
		c.run(x)
	}
	for _, x := range c.orphans() {
		c.results = append(c.results, result{execution: x, outcome: sheaf.OutcomeLost, code: -1})
	}
	w.after(w.between(1, 100), c.connect)
}

// orphans are outputs of which a restarted client has no record, now and then:
// whether they are committed is the log's to say.
func (c *client) orphans() []execution {
	var all []execution
	for x := range c.outputs {
		all = append(all, x)
	}
	sortExecutions(all)
	var asked []execution
	for _, x := range all {
		known := false
		for _, r := range c.results {
			known = known || r.execution == x
		}
		if !known && c.w.chance(5) {
			asked = append(asked, x)
		}
	}
	return asked
}

// heal ends the faults.
func (w *world) heal() {
	w.calm = true
	for _, c := range w.clients {
		c.cutOff = false
	}
	w.after(2000, w.user.letGo)
	w.after(5000, func() { // whoever a person set aside comes back
		for _, c := range w.clients {
			w.enable(c)
		}
	})
}

func (w *world) enable(c *client) {
	if n := w.snap().Node(c.id); n == nil || !n.Eligible {
		w.user.ask(eligible(c.id))
		w.after(1000, func() { w.enable(c) })
	}
}

// quiet reports whether all is over: no run is under way, and no client has
// anything left to do or to say.
func (w *world) quiet() bool { return w.unfinished() == "" }

func (w *world) unfinished() string {
	if w.leader == nil {
		return "there is no leader"
	}
	for _, r := range w.user.runs {
		if !r.known && !r.refused {
			return "run " + r.id + " is not acknowledged"
		}
	}
	for r := range w.snap().LiveRuns() {
		c := r.Counts()
		return fmt.Sprintf("run %s is %s with %d pending and %d assigned (split %+v, merge %+v, reduce %+v)", r.ID, r.Status, c.Pending, c.Assigned, r.Split, r.Merge, r.Reduce)
	}
	if len(w.deeds)+w.bucket.sweeps > 0 {
		return fmt.Sprintf("%d clients are busy at the bucket, with %d sweeps to do", len(w.deeds), w.bucket.sweeps)
	}
	for _, c := range w.clients {
		if !c.alive || c.stream == nil || !c.welcomed {
			return string(c.id) + " is not connected"
		}
		if len(c.queue)+len(c.running)+len(c.results) > 0 {
			return fmt.Sprintf("%s still has queued %v, running %v and results %v", c.id, c.queue, c.running, c.results)
		}
	}
	return ""
}
