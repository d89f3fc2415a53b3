package wasm

import (
	"errors"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// errUnknownHandle: Start names a handle that Prepare did not give, or that was released.
var errUnknownHandle = errors.New("the module was not prepared in this driver process")

// execution is a Start on its way to its Exited.
type execution struct {
	id      string
	session *session
	run     run
	reach   []mount // what its worker must be able to reach
	window  drivers.Window
	begins  int // how often it was given to a worker; the pool's

	mu      sync.Mutex
	child   *child // while it runs
	stopped bool
	told    bool // it was begun once; later begins are not told again
	grace   *time.Timer
	began   time.Time
	peak    uint64 // when it was killed
}

// outcome is what an execution leaves of its worker.
type outcome int

const (
	workerLives outcome = iota
	workerDead
	notBegun // the worker was dead before it began: another can run it
)

// stop ends the execution after the grace: modules know no signals, so the
// grace is the time that it may still take to end by itself.
func (e *execution) stop(grace time.Duration) {
	if e.session.driver.pool.withdraw(e) {
		e.refuseStopped()
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if grace <= 0 {
		e.kill()
		return
	}
	if e.grace == nil {
		e.grace = time.AfterFunc(grace, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.kill()
		})
	}
}

// kill ends the execution's worker, or keeps it from one. The caller holds mu.
func (e *execution) kill() {
	if e.stopped {
		return
	}
	e.stopped = true
	if e.child != nil {
		e.peak = residentBytes(e.child.cmd.Process.Pid)
		e.child.kill()
	}
	e.window.Open()
}

// runOn runs the execution on a worker and tells how it ended, unless it did
// not begin.
func (e *execution) runOn(c *child) outcome {
	e.mu.Lock()
	if e.stopped {
		e.mu.Unlock()
		e.finish(e.killed())
		return workerLives
	}
	e.child, e.began = c, time.Now()
	first := !e.told
	e.told = true
	e.mu.Unlock()

	if err := c.send(kindRun, e.run.append); err != nil {
		return e.unsent(c, err)
	}
	c.use(e.run.module.digest)
	if first {
		e.session.emit(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: e.id}}})
	}
	end, err := e.follow(c)
	stopped := e.detach()
	if err != nil {
		c.end()
		e.finish(e.died(c, stopped))
		return workerDead
	}
	c.cpuNs += end.cpuNs
	e.finish(e.exited(end))
	if stopped {
		return workerDead // the kill came as it ended
	}
	return workerLives
}

// unsent is an execution whose worker could not be told to run it.
func (e *execution) unsent(c *child, err error) outcome {
	stopped := e.detach()
	e.begins++
	switch {
	case stopped:
		e.finish(e.killed())
	case e.begins < maxBegins && len(c.buf) <= maxFrame:
		return notBegun
	default:
		e.finish(e.refused(err))
	}
	return workerDead
}

// detach takes the execution off its worker, which a stop no longer reaches,
// and reports whether one has.
func (e *execution) detach() (stopped bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.child = nil
	return e.stopped
}

// follow passes logs on until the execution ends. An error says that its
// worker is gone.
func (e *execution) follow(c *child) (exit, error) {
	for {
		k, body, err := c.frames.next()
		if err != nil {
			return exit{}, err
		}
		switch k {
		case kindLog:
			if err := e.logs(c, body); err != nil {
				return exit{}, err
			}
		case kindExit:
			return decodeExit(body)
		default:
			return exit{}, errors.New("unexpected frame from the worker")
		}
	}
}

// logs sends a log frame, and with it those of the same stream that were read
// in the same breath: guests often write a line at a time.
func (e *execution) logs(c *child, body []byte) error {
	if len(body) == 0 {
		return errors.New("empty log frame from the worker")
	}
	stream := body[0]
	data := append(make([]byte, 0, len(body)), body[1:]...)
	for c.frames.peekLog(stream, maxPiece-len(data)) {
		_, more, err := c.frames.next()
		if err != nil {
			return err
		}
		data = append(data, more[1:]...)
	}
	if err := e.window.Take(e.session.ctx, int64(len(data))); err != nil {
		return nil // nobody reads any more; the session ends it
	}
	e.session.emit(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{
		Execution: e.id, Stderr: stream == logStderr, Data: data,
	}}})
	return nil
}

// finish sends the Exited, once.
func (e *execution) finish(x *driverpb.Exited) {
	e.mu.Lock()
	if e.grace != nil {
		e.grace.Stop()
	}
	e.mu.Unlock()
	x.Execution = e.id
	e.session.forget(e)
	e.session.emit(&driverpb.Event{Body: &driverpb.Event_Exited{Exited: x}})
	e.session.open.Done()
}

// refuse ends an execution that cannot begin.
func (e *execution) refuse(err error) { e.finish(e.refused(err)) }

// refuseSoon does so without making the reader of commands wait for the reader of events.
func (e *execution) refuseSoon(err error) { go e.refuse(err) }

// refuseStopped ends an execution that was stopped before it began.
func (e *execution) refuseStopped() { go e.finish(e.killed()) }
