package execution

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Listing is all that the client has, in ranges.
type Listing struct {
	Queued, Executing, Finished []*wire.Executions
}

// Hello lists everything and holds still: until Welcome nothing begins, so
// that what was listed as queued is queued when the answer comes.
func (c *Core) Hello() Listing {
	c.held = true
	c.unsent = nil
	var l Listing
	for _, id := range slices.Sorted(maps.Keys(c.runs)) {
		r := c.runs[id]
		r.unsent = nil // Welcome sends all that is not answered
		var queued, executing, finished []span
		queued = append(queued, r.queue.spans[r.queue.head:]...)
		for _, w := range r.window {
			queued = append(queued, span{w.partition, 1, w.attempt, w.generation})
		}
		for _, e := range r.live {
			if e.Stop != StopKilled {
				executing = append(executing, span{e.Partition, 1, e.Attempt, e.Generation})
			}
		}
		for _, res := range r.ended {
			if res.Stray {
				continue
			}
			finished = append(finished, span{res.Partition, 1, res.Attempt, res.Generation})
		}
		l.Queued = list(l.Queued, r.Of(), r.Kind(), queued)
		l.Executing = list(l.Executing, r.Of(), r.Kind(), executing)
		l.Finished = list(l.Finished, r.Of(), r.Kind(), finished)
		for _, e := range r.own {
			s := []span{{0, 1, e.Attempt, e.Generation}}
			switch {
			case e.Result != nil:
				l.Finished = list(l.Finished, id, e.Kind, s)
			case e.busy:
				l.Executing = list(l.Executing, id, e.Kind, s)
			default:
				l.Queued = list(l.Queued, id, e.Kind, s)
			}
		}
	}
	return l
}

// list appends spans, one message a generation, in order and joined.
func list(to []*wire.Executions, run sheaf.RunID, kind wire.Kind, spans []span) []*wire.Executions {
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.generation, b.generation), cmp.Compare(a.first, b.first), cmp.Compare(a.attempt, b.attempt))
	})
	var x *wire.Executions
	for _, s := range spans {
		if x == nil || x.Generation != s.generation {
			x = &wire.Executions{Run: string(run), Generation: s.generation, Kind: kind}
			to = append(to, x)
		}
		appendSpan(x, s)
	}
	return to
}

// Welcome takes the leader's answer to Hello: what it names is ended, all else
// goes on, and every result that is not answered is sent again. Runs of which
// nothing is left are forgotten: the leader names a run again before it assigns more of it.
func (c *Core) Welcome(w *wire.Welcome, now time.Time) {
	for _, x := range w.GetKill() {
		c.Kill(x, now)
	}
	c.held = false
	c.lease = now.Add(time.Duration(w.GetLeaseMs()) * time.Millisecond)
	for e := range c.live {
		e.reported = false // a new leader knows nothing of what runs
	}
	for _, r := range c.runs {
		if r.gate == gateFailed {
			r.gate = gateShut // the word of it may have been lost with the stream
		}
		for _, res := range r.ended {
			c.fx.Send = append(c.fx.Send, res)
		}
		for _, e := range r.own {
			if e.Result != nil {
				c.fx.Send = append(c.fx.Send, e.Result)
			}
		}
		if r.idle() && r.gate != gatePreparing && !c.reduces(r) {
			delete(c.runs, r.ID)
			c.fx.Forget = append(c.fx.Forget, r)
		}
	}
	c.beginOwn(now)
}

// Adopt takes over an execution that runs since before this process began.
func (c *Core) Adopt(r *Run, partition, attempt, generation uint32, started time.Time, state []byte) *Execution {
	e := &Execution{
		Run: r, Kind: r.Kind(), Partition: partition, Attempt: attempt, Generation: generation,
		ID:   string(sheaf.NewExecutionID(r.Of(), int(partition), attempt)),
		Need: r.Need, Begun: started, Started: started, Phase: Running, State: state, Saved: true,
	}
	r.add(e)
	c.live[e] = struct{}{}
	c.take(e)
	return e
}

// AdoptResult takes over a durable result that was not answered before this
// process began, or one that asks for a verdict on a stray.
func (c *Core) AdoptResult(res *Result) {
	res.Run.ended[key(res.Partition, res.Attempt)] = res
	if !c.held {
		c.fx.Send = append(c.fx.Send, res)
	}
}
