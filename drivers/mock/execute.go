package mock

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// crashExit is the exit code of a driver process that was made to crash.
const crashExit = 70

// session is one Execute.
type session struct {
	driver *Driver
	ctx    context.Context
	events chan<- *driverpb.Event

	mu      sync.Mutex
	running map[string]*execution // those with a goroutine
	all     sync.WaitGroup
}

// execution is one that takes time or prints more than fits at once.
type execution struct {
	window drivers.Window
	ctx    context.Context // ends when it is stopped, its cause the signal
	stop   context.CancelCauseFunc
}

// stopped is the signal that ended an execution.
type stopped string

func (s stopped) Error() string { return "stopped by " + string(s) }

// Execute ends what takes no time at once, without a goroutine; the rest has one each.
func (d *Driver) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{driver: d, ctx: ctx, events: events, running: map[string]*execution{}}
	defer s.all.Wait()
	for {
		select {
		case c, ok := <-commands:
			if !ok {
				s.stopAll()
				return nil
			}
			s.command(c)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) command(c *driverpb.Command) {
	switch body := c.GetBody().(type) {
	case *driverpb.Command_Start:
		s.start(body.Start)
	case *driverpb.Command_Stop:
		signal := body.Stop.GetSignal()
		if signal == "" {
			signal = "SIGKILL"
		}
		s.with(body.Stop.GetExecution(), func(e *execution) { e.stop(stopped(signal)) })
	case *driverpb.Command_Flow:
		s.with(body.Flow.GetExecution(), func(e *execution) { e.window.Ack(body.Flow.GetBytes()) })
	}
}

func (s *session) with(id string, do func(*execution)) {
	s.mu.Lock()
	e := s.running[id]
	s.mu.Unlock()
	if e != nil {
		do(e)
	}
}

func (s *session) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.running {
		e.stop(stopped("SIGKILL"))
	}
}

func (s *session) start(start *driverpb.Start) {
	c, err := s.driver.config(start)
	if err != nil {
		s.exited(&driverpb.Exited{Execution: start.GetExecution(), ExitCode: -1, NotStarted: true, Error: err.Error()})
		return
	}
	took := c.duration()
	if took == 0 && len(c.Stdout)+len(c.Stderr) == 0 {
		s.finish(start, c, "", time.Time{})
		return
	}
	e := &execution{}
	e.ctx, e.stop = context.WithCancelCause(s.ctx)
	s.mu.Lock()
	s.running[start.GetExecution()] = e
	s.mu.Unlock()
	s.all.Go(func() { s.run(start, c, e, took) })
}

func (s *session) run(start *driverpb.Start, c *config, e *execution, took time.Duration) {
	began := time.Now()
	s.send(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: start.GetExecution()}}})
	s.print(e, start.GetExecution(), c.Stdout, false)
	s.print(e, start.GetExecution(), c.Stderr, true)
	timer := time.NewTimer(took)
	defer timer.Stop()
	signal := ""
	select {
	case <-timer.C:
	case <-e.ctx.Done():
		signal = "SIGKILL"
		if by, ok := errors.AsType[stopped](context.Cause(e.ctx)); ok {
			signal = string(by)
		}
	}
	e.stop(nil)
	s.mu.Lock()
	delete(s.running, start.GetExecution())
	s.mu.Unlock()
	s.finish(start, c, signal, began)
}

func (s *session) print(e *execution, id, text string, stderr bool) {
	for len(text) > 0 {
		n := min(len(text), drivers.MaxLog)
		if e.window.Take(e.ctx, int64(n)) != nil {
			return
		}
		s.send(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: id, Stderr: stderr, Data: []byte(text[:n])}}})
		text = text[n:]
	}
}

// finish does what an execution leaves behind and reports its end. A zero
// began is an execution that took no time.
func (s *session) finish(start *driverpb.Start, c *config, signal string, began time.Time) {
	x := &exitedEvent{exited: driverpb.Exited{Execution: start.GetExecution(), ExitCode: int32(c.ExitCode), Signal: signal}}
	now := time.Now()
	x.exited.StartedUnixMs = now.UnixMilli()
	if !began.IsZero() {
		x.exited.StartedUnixMs, x.exited.DurationMs = began.UnixMilli(), now.Sub(began).Milliseconds()
	}
	switch {
	case signal != "":
		x.exited.ExitCode = -1
	case c.fails(start.GetExecution()):
		if c.Crash {
			os.Exit(crashExit)
		}
		x.exited.ExitCode = failedExit
	case len(c.Outputs) > 0:
		if err := writeOutputs(start, c.Outputs); err != nil {
			x.exited.ExitCode, x.exited.Error = failedExit, err.Error()
		}
	}
	s.send(x.event())
}

func (s *session) exited(x *driverpb.Exited) {
	s.send(&driverpb.Event{Body: &driverpb.Event_Exited{Exited: x}})
}

func (s *session) send(ev *driverpb.Event) {
	select {
	case s.events <- ev:
	case <-s.ctx.Done():
	}
}

// exitedEvent is the three objects of an Exited event in one allocation.
type exitedEvent struct {
	ev     driverpb.Event
	body   driverpb.Event_Exited
	exited driverpb.Exited
}

func (x *exitedEvent) event() *driverpb.Event {
	x.body.Exited = &x.exited
	x.ev.Body = &x.body
	return &x.ev
}
