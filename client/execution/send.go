package execution

import (
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// sendEvery is how long successes of a run are gathered while more of it waits here, unless the servers say otherwise. The servers handle a
// message of ten at little more cost than one of one, and a thousand nodes send a lot of them; what
// waits here, about a second's work, keeps the node busy meanwhile.
const sendEvery = 250 * time.Millisecond

// mostGather bounds what the servers may say.
const mostGather = 5 * time.Second

// Gather takes what the servers say of how long results are gathered; 0 is nothing.
func (c *Core) Gather(d time.Duration) {
	if d > 0 {
		c.gather = min(d, mostGather)
	}
}

// sendSoon has a result sent with the others of its run; those that call for something with no delay.
func (c *Core) sendSoon(r *Run, res *Result) {
	if res.Outcome != sheaf.OutcomeSucceeded {
		r.sent = time.Time{}
	}
	if len(r.unsent) == 0 {
		c.unsent = append(c.unsent, r)
	}
	r.unsent = append(r.unsent, res)
}

// sendDue sends the results of runs of which nothing waits here, so that the servers hear of free
// space and of a run's end without delay, and of others now and then. While sent ones are not answered
// more would not be looked at sooner, and a leader that is behind would get the smaller messages the more it has to do.
func (c *Core) sendDue(now time.Time) {
	keep, sent := c.unsent[:0], false
	for _, r := range c.unsent {
		switch {
		case len(r.unsent) == 0: // they went another way
		case now.Sub(r.sent) < c.gather && (r.waiting() > 0 || len(r.ended) > len(r.unsent)):
			keep = append(keep, r)
		default:
			c.fx.Send = append(c.fx.Send, r.unsent...)
			r.unsent, r.sent, sent = nil, now, true
		}
	}
	clear(c.unsent[len(keep):])
	c.unsent = keep
	if sent && now.Sub(c.looked) >= c.gather/2 { // then these go in the same packet
		c.report(now)
	}
}

// report has the servers told what runs and is not known to.
func (c *Core) report(now time.Time) {
	c.looked = now
	for e := range c.live {
		if e.Phase == Running && !e.reported && now.Sub(e.Started) >= reportAge {
			e.reported = true
			c.fx.Reports = append(c.fx.Reports, e)
		}
	}
}
