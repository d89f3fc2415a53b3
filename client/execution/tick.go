package execution

import "time"

const (
	// settleEvery is how often rates are folded: often enough to see a run
	// speed up, rarely enough that a batch is not mistaken for a rate.
	settleEvery = 100 * time.Millisecond
	// hungAfter is how long a driver may take to end an execution past the grace that it was given.
	hungAfter = 30 * time.Second
)

// Tick does what time alone brings: timeouts, rates, reports of what runs, and
// the care of executions that are no longer young. Grace is what a driver is given to end a
// run's executions.
func (c *Core) Tick(now time.Time, grace func(*Run) time.Duration) {
	if passed := now.Sub(c.settled); c.settled.IsZero() || passed >= settleEvery {
		if !c.settled.IsZero() {
			c.rate.settle(passed)
			for _, r := range c.runs {
				r.rate.settle(passed)
			}
		}
		c.settled = now
	}
	if now.Sub(c.looked) >= c.gather {
		c.report(now)
	}
	for e := range c.live {
		if e.Phase != Running {
			continue
		}
		age := now.Sub(e.Started)
		if d := e.Deadline(); !d.IsZero() && !now.Before(d) {
			c.stop(e, StopTimeout, now)
		}
		if e.Stop != StopNone && !e.StopSent.IsZero() && now.Sub(e.StopSent) > grace(e.Run)+hungAfter {
			e.StopSent = now
			c.fx.Hung = append(c.fx.Hung, e)
		}
		if age < YoungAge {
			continue
		}
		if !e.Saved && e.Outlives() {
			e.Saved = true
			c.fx.Save = append(c.fx.Save, e)
		}
		if e.Run.Stages && e.Stop == StopNone {
			c.fx.Watch = append(c.fx.Watch, e)
		}
	}
	c.beginOwn(now)
}

// Executions calls yield for each live execution, in no order.
func (c *Core) Executions(yield func(*Execution) bool) {
	for e := range c.live {
		if !yield(e) {
			return
		}
	}
}
