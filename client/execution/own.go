package execution

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Splits and merges are the client's own work: no driver, no record, no
// account, and few of them. What ends well is sealed by a call of its own and
// forgotten here; what fails is a result that is kept in memory until it is answered.

func isOwn(k wire.Kind) bool { return k == wire.Kind_KIND_SPLIT || k == wire.Kind_KIND_MERGE }

func (c *Core) beginOwn(now time.Time) {
	if c.held || now.After(c.lease) {
		return
	}
	for _, r := range c.runs {
		for _, e := range r.own {
			if c.owning >= maxOwn {
				return
			}
			if !e.busy && e.Result == nil {
				e.busy = true
				e.Started = now
				c.owning++
				c.fx.Own = append(c.fx.Own, e)
			}
		}
	}
}

// OwnSealed says that a split or merge stands in the servers' log, or that the servers
// hold it no longer valid.
func (c *Core) OwnSealed(e *Execution) {
	c.owning--
	e.busy = false
	k := ownKey{e.Kind, e.Attempt}
	if e.Run.own[k] == e {
		delete(e.Run.own, k)
	}
	c.forget(e.Run)
}

// OwnFailed says why a split or merge failed.
func (c *Core) OwnFailed(e *Execution, outcome sheaf.Outcome, kind sheaf.FailureKind, msg string, now time.Time) {
	if e.Run.own[ownKey{e.Kind, e.Attempt}] != e {
		c.OwnSealed(e)
		return
	}
	c.owning--
	e.busy = false
	e.Result = newResult(e)
	e.Result.StartedMs, e.Result.DurationMs = e.Started.UnixMilli(), elapsedMs(e.Started, now)
	e.Result.fail(outcome, kind, msg)
	if !c.held {
		c.fx.Send = append(c.fx.Send, e.Result)
	}
}

func (c *Core) answeredOwn(r *Run, k ownKey, verdict wire.Verdict) {
	e := r.own[k]
	if e == nil || e.Result == nil || verdict == wire.Verdict_VERDICT_UNKNOWN {
		return
	}
	if verdict == wire.Verdict_VERDICT_RESEND {
		c.fx.Send = append(c.fx.Send, e.Result)
		return
	}
	delete(r.own, k)
}

// endOwn forgets a split or merge at once; one under way is cancelled.
func (c *Core) endOwn(r *Run, k ownKey, e *Execution) {
	delete(r.own, k)
	if e.busy {
		c.fx.End = append(c.fx.End, e)
	}
}
