package containerd

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// session is one Execute.
type session struct {
	driver *Driver
	ctx    context.Context // ends when the client lets go: what runs is left running
	client context.Context // ends when nobody receives events any more, and ctx with it
	events chan<- *driverpb.Event

	mu      sync.Mutex
	running map[string]*execution
	pools   map[string]*pool // of kept containers, by what they are for
	idle    int              // kept containers that run nothing
	all     sync.WaitGroup
}

// execution is one Start, or one recovery, that has no Exited yet.
type execution struct {
	id        string
	container string          // its own; "" for one in a kept container
	start     *driverpb.Start // nil when it was recovered
	window    drivers.Window
	pid       uint32 // of its container's process 1, as the host counts
	began     time.Time
	stop      *stop
}

// state is what Started gives the client to keep for Recover.
type state struct {
	BeganMs int64 `json:"began_ms"` // since 1970
}

// Execute follows each execution in a goroutine of its own. What runs when it
// returns goes on running, for Recover to take up.
func (d *Driver) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	open, shut := context.WithCancel(ctx)
	s := &session{driver: d, ctx: open, client: ctx, events: events, running: map[string]*execution{}, pools: map[string]*pool{}}
	defer s.all.Wait()
	defer s.retireAll()
	defer shut()
	d.mu.Lock()
	recovered := d.recovered
	d.recovered = nil
	d.mu.Unlock()
	for _, e := range recovered {
		s.run(e, s.resume)
	}
	for {
		select {
		case c, ok := <-commands:
			if !ok {
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
		e := &execution{id: body.Start.GetExecution(), start: body.Start, stop: newStop()}
		if body.Start.GetShare() != "" {
			s.run(e, s.share)
			return
		}
		e.container = s.driver.containerID(e.id)
		s.run(e, s.launch)
	case *driverpb.Command_Stop:
		if e := s.find(body.Stop.GetExecution()); e != nil {
			e.stop.ask(body.Stop, time.Now())
		}
	case *driverpb.Command_Flow:
		if e := s.find(body.Flow.GetExecution()); e != nil {
			e.window.Ack(body.Flow.GetBytes())
		}
	}
}

func (s *session) find(id string) *execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

// run does an execution's work, which ends in its Exited, or in nil when it goes on
// without us. What is left of its container is removed after the client was told: when this process ends
// between the two, the container still knows how it ended.
func (s *session) run(e *execution, work func(*execution) *driverpb.Exited) {
	s.mu.Lock()
	s.running[e.id] = e
	s.mu.Unlock()
	s.all.Go(func() {
		exited := work(e)
		s.mu.Lock()
		delete(s.running, e.id)
		s.mu.Unlock()
		if exited == nil {
			return
		}
		exited.Execution = e.id
		s.emit(&driverpb.Event{Body: &driverpb.Event_Exited{Exited: exited}})
		if e.container != "" {
			s.driver.clear(s.client, e.container)
		}
	})
}

// emit reports whether the client may have received the event.
func (s *session) emit(ev *driverpb.Event) bool {
	if s.client.Err() != nil {
		return false
	}
	select {
	case s.events <- ev:
		return true
	case <-s.client.Done():
		return false
	}
}

func (s *session) started(e *execution) bool {
	b, err := json.Marshal(state{BeganMs: e.began.UnixMilli()})
	if err != nil {
		panic("a number cannot be written as JSON: " + err.Error())
	}
	return s.emit(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: e.id, State: b}}})
}
