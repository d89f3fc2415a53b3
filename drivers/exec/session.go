package exec

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// maxIdleSlots is how many threads and cgroups are kept for the next
// executions: more than are ever between two executions at one moment.
const maxIdleSlots = 64

// session is one Execute.
type session struct {
	driver *Driver
	ctx    context.Context // its end drops events
	events chan<- *driverpb.Event

	mu      sync.Mutex
	running map[string]*execution
	idle    []*slot
	made    int // slots so far
	closed  bool
	slots   sync.WaitGroup
}

// execution is one Start that has no Exited yet.
type execution struct {
	start  *driverpb.Start
	window drivers.Window

	mu     sync.Mutex
	pid    int            // 0 before the fork and after the wait: signals go to a living child only
	signal syscall.Signal // asked for by Stop; 0 is none yet
	kill   *time.Timer    // of Stop's grace
}

// Execute hands each execution to a slot.
func (d *Driver) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	s := &session{driver: d, ctx: ctx, events: events, running: map[string]*execution{}}
	defer s.end()
	for {
		select {
		case c, ok := <-commands:
			if !ok {
				return nil
			}
			switch body := c.GetBody().(type) {
			case *driverpb.Command_Start:
				s.begin(body.Start)
			case *driverpb.Command_Stop:
				s.stop(body.Stop)
			case *driverpb.Command_Flow:
				if e := s.find(body.Flow.GetExecution()); e != nil {
					e.window.Ack(body.Flow.GetBytes())
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end kills what runs and waits until every slot has reported and gone.
func (s *session) end() {
	s.mu.Lock()
	s.closed = true
	for _, e := range s.running {
		e.end(syscall.SIGKILL)
	}
	for _, slot := range s.idle {
		close(slot.work)
	}
	s.idle = nil
	s.mu.Unlock()
	s.slots.Wait()
	s.driver.views.drop()
	s.driver.vacate()
}

func (s *session) find(id string) *execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

func (s *session) begin(start *driverpb.Start) {
	e := &execution{start: start}
	s.mu.Lock()
	s.running[start.GetExecution()] = e
	if n := len(s.idle); n > 0 {
		slot := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		slot.work <- e
		return
	}
	s.made++
	name := fmt.Sprintf("%d-%d", os.Getpid(), s.made)
	s.mu.Unlock()
	slot := newSlot(s, name)
	slot.work <- e
	s.slots.Go(slot.run)
}

// over gives a slot back after an execution; false tells it to go.
func (s *session) over(e *execution, slot *slot, reusable bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, e.start.GetExecution())
	if !reusable || s.closed || len(s.idle) >= maxIdleSlots {
		return false
	}
	s.idle = append(s.idle, slot)
	return true
}

func (s *session) stop(stop *driverpb.Stop) {
	e := s.find(stop.GetExecution())
	if e == nil {
		return
	}
	signal := unix.SignalNum(stop.GetSignal())
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	e.end(signal)
	if signal == syscall.SIGKILL {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kill == nil {
		e.kill = time.AfterFunc(time.Duration(stop.GetGraceMs())*time.Millisecond, func() { e.end(syscall.SIGKILL) })
	}
}

// end signals the program, now or as soon as it is there, with its process
// group: a shell alone would leave its children to their own.
func (e *execution) end(signal syscall.Signal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.signal != syscall.SIGKILL {
		e.signal = signal
	}
	if e.pid > 0 {
		_ = syscall.Kill(-e.pid, signal) // it is not waited for yet, so the number is its own
	}
	if signal == syscall.SIGKILL {
		e.window.Open()
	}
}

// began makes the child known to Stop, which may have come before it.
func (e *execution) began(pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid = pid
	if e.signal != 0 {
		_ = syscall.Kill(-pid, e.signal)
	}
}

// wait reaps the child, which has ended.
func (e *execution) wait(pid int) (status syscall.WaitStatus, usage syscall.Rusage, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid = 0
	if e.kill != nil {
		e.kill.Stop()
	}
	for {
		_, err = syscall.Wait4(pid, &status, 0, &usage)
		if err != syscall.EINTR {
			return status, usage, err
		}
	}
}

// send passes an event on, or drops it when nobody receives any more.
func (s *session) send(ev *driverpb.Event) {
	select {
	case s.events <- ev:
	case <-s.ctx.Done():
	}
}
