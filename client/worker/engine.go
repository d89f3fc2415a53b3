package worker

import (
	"context"
	"path/filepath"
	"time"

	"github.com/sheaf-run/agent/client/driver"
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/sheaf"
)

// reopenPause is the wait before a driver that could not recover is tried again.
const reopenPause = time.Second

// engine is a driver as the loop sees it.
type engine struct {
	driver  *driver.Driver
	state   engineState
	pending []*execution.Run // to be prepared when it is open
	used    time.Time        // when it last had something to do
	// hostPaths: its tasks see the host's files as they lie there. They are told
	// the host's paths, and get copies, which they may spoil.
	hostPaths bool
	deaf      bool // its tasks see no signals
	early     bool // its stream ended before it was known to be open
	batch     []*driverpb.Command
}

type engineState uint8

const (
	engineClosed engineState = iota
	engineOpening
	engineOpen
	engineResting
)

func newEngine(w *Worker, p plugin.Config) *engine {
	e := &engine{}
	e.driver = driver.New(driver.Config{
		Plugin: p, StateDir: filepath.Join(w.cfg.DriverDir, p.Name), Events: w.events, Logger: w.log,
		Ended: func(end driver.Ended) { w.post(func() { w.engineEnded(e, end) }) },
	})
	return e
}

// open has the driver's process started and its executions recovered, for
// those that are running with it now.
func (w *Worker) open(e *engine) {
	if e.state == engineOpening || e.state == engineOpen {
		return
	}
	wait := e.state == engineResting
	e.state = engineOpening
	if wait {
		return // rested opens it
	}
	var known []*driverpb.Known
	var running []*execution.Execution
	for x := range w.core.Executions {
		if x.Phase == execution.Running && dataOf(x.Run).engine == e {
			running = append(running, x)
			if x.Outlives() {
				known = append(known, &driverpb.Known{Execution: x.ID, State: x.State})
			}
		}
	}
	ctx := w.ctx
	w.jobs.Go(func() {
		found, err := e.driver.Recover(ctx, known)
		w.post(func() { w.opened(e, running, found, len(known), err) })
	})
}

// opened goes on with a driver that was opened, or was not.
func (w *Worker) opened(e *engine, before []*execution.Execution, found []string, known int, err error) {
	if err != nil {
		e.state = engineClosed
		w.log.Error("driver cannot be opened", "driver", e.driver.Name, "error", err)
		if known > 0 && w.ctx.Err() == nil {
			// They may be running still: until the driver has looked, nobody may say that they are lost.
			time.AfterFunc(reopenPause, func() { w.post(func() { w.open(e) }) })
			w.loseThose(before, func(x *execution.Execution) bool { return !x.Outlives() }, err.Error())
			return
		}
		w.loseThose(before, func(*execution.Execution) bool { return true }, err.Error())
		pending := e.pending
		e.pending = nil
		for _, r := range pending {
			w.prepared(r, nil, err)
		}
		return
	}
	e.state, e.used = engineOpen, w.now
	again := make(map[string]bool, len(found))
	for _, id := range found {
		again[id] = true
	}
	w.loseThose(before, func(x *execution.Execution) bool { return !again[x.ID] }, "its driver's process ended while it ran")
	for _, id := range found {
		if x := w.core.Find(id); x != nil && x.Stop != execution.StopNone {
			w.stop(x)
		}
	}
	w.flushCommands(e)
	pending := e.pending
	e.pending = nil
	for _, r := range pending {
		w.prepare(r)
	}
	if e.early {
		e.early = false
		w.engineEnded(e, driver.Ended{Driver: e.driver})
	}
}

func (w *Worker) loseThose(list []*execution.Execution, lost func(*execution.Execution) bool, why string) {
	for _, x := range list {
		if x.Phase == execution.Running && lost(x) {
			w.endLogs(x)
			w.core.Lost(x, why, w.now)
		}
	}
}

// engineEnded handles the end of a driver's stream. All its events are in the
// channel already, and are handled first.
func (w *Worker) engineEnded(e *engine, end driver.Ended) {
	for drained := false; !drained; {
		select {
		case ev := <-w.events:
			w.event(ev)
		default:
			drained = true
		}
	}
	switch e.state {
	case engineResting, engineClosed:
		return
	case engineOpening:
		e.early = true
		return
	}
	e.state = engineClosed
	w.unprepare(e)
	if w.ctx.Err() != nil {
		return
	}
	w.log.Error("driver's stream ended", "driver", e.driver.Name, "error", end.Err)
	for x := range w.core.Executions {
		if x.Phase == execution.Running && dataOf(x.Run).engine == e {
			w.open(e)
			return
		}
	}
}

// restIdle ends the processes of drivers that have had nothing to do for a while.
func (w *Worker) restIdle() {
	for _, e := range w.engines {
		if e.state != engineOpen {
			continue
		}
		if e.busy(w) {
			e.used = w.now
			continue
		}
		if w.now.Sub(e.used) < restAfter {
			continue
		}
		w.rest(e)
	}
}

func (e *engine) busy(w *Worker) bool {
	if len(e.pending) > 0 || e.preparing(w) {
		return true
	}
	for x := range w.core.Executions {
		if dataOf(x.Run).engine == e {
			return true
		}
	}
	return false
}

func (e *engine) preparing(w *Worker) bool {
	for r := range w.core.Runs {
		if d := dataOf(r); d.engine == e && d.preparing {
			return true
		}
	}
	return false
}

// unprepare has the runs of a driver be prepared anew: handles end with the process that gave them, and the next
// one's are not for them to release.
func (w *Worker) unprepare(e *engine) {
	w.core.Unprepare(e.driver.Name)
	for r := range w.core.Runs {
		if d := dataOf(r); d.engine == e {
			d.handle = ""
		}
	}
}

func (w *Worker) rest(e *engine) {
	e.state = engineResting
	w.unprepare(e)
	w.jobs.Go(func() {
		e.driver.Rest()
		w.post(func() {
			again := e.state == engineOpening
			e.state = engineClosed
			if again {
				w.open(e)
			}
		})
	})
}

// fingerprint asks all drivers what they can, and recovers what they have.
func (w *Worker) fingerprint(ctx context.Context, e *engine) sheaf.NodeDriver {
	nd := e.driver.Fingerprint(ctx)
	e.hostPaths = nd.Attributes["driver."+e.driver.Name+".mounts"] == "none"
	e.deaf = nd.Attributes["driver."+e.driver.Name+".signals"] == "none"
	return nd
}
