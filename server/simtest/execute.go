package simtest

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// begin starts queued executions while there is room. An attempt waits while
// another at the same partition is still under way here.
func (c *client) begin() {
	if !c.welcomed {
		return
	}
	for i := 0; i < len(c.queue) && len(c.running) < slots; {
		x := c.queue[i]
		if c.busy(x) {
			i++
			continue
		}
		c.queue = without(c.queue, x)
		c.running = append(c.running, x)
		c.run(x)
	}
}

// busy reports whether another attempt of the same is running.
func (c *client) busy(x execution) bool {
	for _, y := range c.running {
		if y.run == x.run && y.kind == x.kind && y.partition == x.partition {
			return true
		}
	}
	return false
}

// run lets an execution take its time.
func (c *client) run(x execution) {
	switch x.kind {
	case wire.Kind_KIND_SPLIT:
		c.later(c.w.between(5, 100), func() { c.split(x) })
	case wire.Kind_KIND_MERGE:
		c.later(c.w.between(5, 100), func() { c.merge(x) })
	default:
		d := c.w.between(1, 60)
		if c.w.chance(10) {
			d = c.w.between(300, 3000)
		}
		c.later(d, func() { c.end(x, c.script(x)) })
	}
}

// fate is a number that seed and name decide.
func (w *world) fate(format string, args ...any) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d ", w.out.Seed)
	_, _ = fmt.Fprintf(h, format, args...)
	return h.Sum64() >> 8
}

// nonce is the content of what an attempt makes on a node.
func nonce(x execution, node sheaf.NodeID) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s.%d.%d@%s", x.run, x.partition, x.attempt, node))
}

// script is how an attempt ends: the same whenever it is asked.
func (c *client) script(x execution) result {
	w := c.w
	r := result{execution: x, outcome: sheaf.OutcomeSucceeded, digest: nonce(x, c.id)}
	poison := w.fate("poison %s %d", x.run, x.partition)%23 == 0
	try := w.fate("try %s %d %d", x.run, x.partition, x.attempt)
	switch {
	case poison || try%9 == 0:
		r.outcome, r.kind, r.code = sheaf.OutcomeFailed, sheaf.FailExit, int32(1+try>>8%4)
	case try%41 == 0:
		r.outcome = sheaf.OutcomeLost
	case try%53 == 0 && !w.calm:
		r.outcome, r.kind, r.code = sheaf.OutcomeFailed, sheaf.FailPrepare, -1
	}
	if r.outcome != sheaf.OutcomeSucceeded {
		r.digest = [32]byte{}
	}
	return r
}

// end makes a result durable; it is sent with others.
func (c *client) end(x execution, r result) {
	before := len(c.running)
	c.running = without(c.running, x)
	if len(c.running) == before {
		return // killed meanwhile
	}
	if r.outcome == sheaf.OutcomeSucceeded && (x.kind == wire.Kind_KIND_PARTITION || x.kind == wire.Kind_KIND_REDUCE) {
		c.outputs[x] = true
	}
	c.results = append(c.results, r)
	c.later(c.w.between(0, 8), c.flush)
	c.begin()
}

// flush sends what was not sent, or not answered for long.
func (c *client) flush() {
	s := c.stream
	if s == nil {
		return
	}
	batches := map[string]*wire.Results{}
	var order []*wire.Results
	for i := range c.results {
		r := &c.results[i]
		if r.sentMs > 0 && c.w.now-r.sentMs < resendMs {
			continue
		}
		if r.sentMs > 0 {
			c.w.out.Duplicates++
		}
		r.sentMs = c.w.now
		key := fmt.Sprint(r.run, r.execution.kind)
		if batches[key] == nil {
			batches[key] = &wire.Results{Run: r.run, Kind: r.execution.kind, Node: string(c.id), Session: c.session}
			order = append(order, batches[key])
		}
		add(batches[key], *r, c.w.now)
	}
	for _, x := range order {
		c.w.book.history.sent(x)
		s.up(func(l *leader) { l.commit(x, s) })
		if c.w.chance(10) { // the same again, late, when all may have changed
			c.w.out.Duplicates++
			c.w.after(c.w.between(1, 4000), func() {
				if l := c.w.leader; l != nil {
					l.commit(x, nil)
				}
			})
		}
	}
}

func add(x *wire.Results, r result, now int64) {
	if r.outcome == sheaf.OutcomeFailed {
		x.Text = append(x.Text, &wire.Text{Item: uint32(len(x.Partition)), Message: fmt.Sprintf("exit code %d", r.code), Stderr: fmt.Sprintf("partition %d\ncannot go on\n", r.partition)})
	}
	x.Partition = append(x.Partition, r.partition)
	x.Attempt = append(x.Attempt, r.attempt)
	x.Outcome = append(x.Outcome, byte(r.outcome))
	x.Failure = append(x.Failure, byte(r.kind))
	x.ExitCode = append(x.ExitCode, r.code)
	x.StartedMs = append(x.StartedMs, now)
	x.DurationMs = append(x.DurationMs, 5)
	x.CpuMs = append(x.CpuMs, 3)
	x.PeakMemoryKib = append(x.PeakMemoryKib, 100)
	x.Digest = append(x.Digest, r.digest[:]...)
}

// answered does what the verdicts ask.
func (c *client) answered(a *wire.Answers) {
	for i, v := range a.Verdict {
		x := execution{a.Run, a.Kind, a.Partition[i], a.Attempt[i]}
		switch wire.Verdict(v) {
		case wire.Verdict_VERDICT_COMMITTED, wire.Verdict_VERDICT_ALREADY, wire.Verdict_VERDICT_RECORDED:
			c.forget(x)
		case wire.Verdict_VERDICT_SUPERSEDED, wire.Verdict_VERDICT_CANCELLED:
			c.forget(x)
			delete(c.outputs, x)
		case wire.Verdict_VERDICT_RESEND:
			for k := range c.results {
				if c.results[k].execution == x {
					c.results[k].sentMs = 0
				}
			}
			c.later(c.w.between(1, 50), c.flush)
		default:
			c.w.fail("%s got no verdict on %v", c.id, x)
		}
	}
}

func (c *client) forget(x execution) {
	for i := range c.results {
		if c.results[i].execution == x {
			c.results = append(c.results[:i], c.results[i+1:]...)
			return
		}
	}
}
