package execution

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// noFiles is the digest of the manifest of an attempt that leaves no files.
var noFiles = sha256.Sum256(nil)

// Staged says that the directories of e stand.
func (c *Core) Staged(e *Execution, now time.Time) {
	switch {
	case !c.check(e, Staging):
		c.cancelled(e)
	case e.Run.gate != gateOpen: // the driver died meanwhile
		e.Run.ready = append(e.Run.ready, e)
		c.openGate(e.Run)
	default:
		c.start(e, now)
	}
}

// cancelled ends an execution that was killed before it started.
func (c *Core) cancelled(e *Execution) {
	e.Result = newResult(e)
	e.Result.fail(sheaf.OutcomeFailed, sheaf.FailNone, "cancelled before it started")
	c.ended(e)
}

// StageFailed says why the directories of e could not be made.
func (c *Core) StageFailed(e *Execution, kind sheaf.FailureKind, msg string) {
	c.check(e, Staging)
	e.Result = newResult(e)
	e.Result.fail(sheaf.OutcomeFailed, kind, msg)
	c.store(e)
}

// Started takes what the driver would know e by after a restart. Reports of a
// driver may name anything: what is not running here is passed over.
func (c *Core) Started(id string, state []byte) {
	if e := c.find(id); e != nil && e.Phase == Running {
		e.State = state
	}
}

// Exited takes the driver's last word on an execution. It returns the
// execution, or nil where none of that ID runs here. The stderr lines that belong to a failure
// are the caller's to set in its Result before the next Effects.
func (c *Core) Exited(x *driverpb.Exited) *Execution {
	e := c.find(x.GetExecution())
	if e == nil || e.Phase != Running {
		return nil
	}
	e.Result = newResult(e)
	judge(e, x, e.Result)
	c.ended(e)
	return e
}

// Lost says that nobody knows any more how e ends.
func (c *Core) Lost(e *Execution, why string, now time.Time) {
	if e.Phase != Running {
		return
	}
	e.Result = newResult(e)
	e.Result.StartedMs, e.Result.DurationMs = e.Started.UnixMilli(), elapsedMs(e.Started, now)
	e.Result.fail(sheaf.OutcomeLost, sheaf.FailDriver, why)
	c.ended(e)
}

func (c *Core) ended(e *Execution) {
	if e.Result.Keeps() {
		e.Result.Digest = noFiles
	}
	if !e.Run.Stages {
		c.store(e)
		return
	}
	e.step(Harvesting)
	c.release(e, false)
	c.fx.Harvest = append(c.fx.Harvest, e)
}

// Harvested gives the digest of the manifest of what e left; it is passed over
// where nothing is kept.
func (c *Core) Harvested(e *Execution, digest [32]byte) {
	c.check(e, Harvesting)
	if e.Result.Keeps() {
		e.Result.Digest = digest
	}
	c.store(e)
}

// HarvestFailed says why the outputs of e cannot be kept.
func (c *Core) HarvestFailed(e *Execution, kind sheaf.FailureKind, msg string) {
	c.check(e, Harvesting)
	e.Result.fail(sheaf.OutcomeFailed, kind, msg)
	c.store(e)
}

// store sends the record of e on its way to the disk.
func (c *Core) store(e *Execution) {
	e.step(Storing)
	c.storing++
	e.Result.Unwanted = e.Stop == StopKilled
	e.Shard = nil
	c.release(e, false)
	c.fx.Store = append(c.fx.Store, e)
}

// Stored says that the record of e is durable. Its result is sent soon, and again
// until it is answered, unless nobody wants it.
func (c *Core) Stored(e *Execution) {
	e.step(Durable)
	c.storing--
	c.release(e, true)
	delete(c.live, e)
	r, res := e.Run, e.Result
	r.remove(e)
	if res.Unwanted {
		c.fx.Drop = append(c.fx.Drop, res)
		c.forget(r)
		return
	}
	r.rate.count++
	c.rate.count++
	r.ended[key(e.Partition, e.Attempt)] = res
	if !c.held {
		c.sendSoon(r, res)
	}
}

// Answered takes the servers' verdicts.
func (c *Core) Answered(a *wire.Answers) {
	r := c.runs[RunKey(sheaf.RunID(a.GetRun()), a.GetKind())]
	if r == nil || len(a.Partition) != len(a.Attempt) || len(a.Partition) != len(a.Verdict) {
		return
	}
	for i, partition := range a.Partition {
		verdict := wire.Verdict(a.Verdict[i])
		if isOwn(a.Kind) {
			c.answeredOwn(r, ownKey{a.Kind, a.Attempt[i]}, verdict)
			continue
		}
		k := key(partition, a.Attempt[i])
		res := r.ended[k]
		if res == nil {
			continue
		}
		switch verdict {
		case wire.Verdict_VERDICT_COMMITTED, wire.Verdict_VERDICT_ALREADY:
			delete(r.ended, k)
			c.fx.Keep = append(c.fx.Keep, res)
		case wire.Verdict_VERDICT_RECORDED:
			delete(r.ended, k)
			if res.Stray || res.Ignored { // a failure or loss leaves no output
				c.fx.Drop = append(c.fx.Drop, res)
			} else {
				c.fx.Keep = append(c.fx.Keep, res)
			}
		case wire.Verdict_VERDICT_SUPERSEDED, wire.Verdict_VERDICT_CANCELLED:
			delete(r.ended, k)
			c.fx.Drop = append(c.fx.Drop, res)
		case wire.Verdict_VERDICT_RESEND:
			c.fx.Send = append(c.fx.Send, res)
		}
	}
	c.forget(r)
}

// stop ends e for the given reason, unless it is ending for one already.
func (c *Core) stop(e *Execution, why Stop, now time.Time) {
	if e.Stop == StopKilled || e.Stop != StopNone && why != StopKilled {
		return
	}
	first := e.Stop == StopNone
	e.Stop = why
	if e.Phase == Storing {
		e.Result.Unwanted = true
	}
	if i := slices.Index(e.Run.ready, e); e.Phase == Staging && i >= 0 {
		e.Run.ready = slices.Delete(e.Run.ready, i, i+1)
		c.cancelled(e)
	}
	if e.Phase == Running && first {
		e.StopSent = now
		c.fx.Stop = append(c.fx.Stop, e)
	}
}

// OverDisk says that e has written more than its disk.
func (c *Core) OverDisk(e *Execution, now time.Time) {
	if e.Phase == Running {
		c.stop(e, StopDisk, now)
	}
}
