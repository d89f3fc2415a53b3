package execution

import (
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// sendEvery is how long successes of a run are gathered while more of it waits here. The servers handle a
// message of ten at little more cost than one of one, and a thousand nodes send a lot of them; what
// waits here, about a second's work, keeps the node busy meanwhile.
const sendEvery = 250 * time.Millisecond

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
// space and of a run's end without delay, and of others now and then.
func (c *Core) sendDue(now time.Time) {
	keep := c.unsent[:0]
	for _, r := range c.unsent {
		switch {
		case len(r.unsent) == 0: // they went another way
		case r.waiting() > 0 && now.Sub(r.sent) < sendEvery:
			keep = append(keep, r)
		default:
			c.fx.Send = append(c.fx.Send, r.unsent...)
			r.unsent, r.sent = nil, now
		}
	}
	clear(c.unsent[len(keep):])
	c.unsent = keep
}
