package wasm

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// session is one Execute call.
type session struct {
	ctx    context.Context
	driver *Driver
	events chan<- *driverpb.Event

	mu      sync.Mutex
	running map[string]*execution // from Start until just before its Exited
	open    sync.WaitGroup        // executions whose Exited is still to be sent
}

func newSession(ctx context.Context, d *Driver, events chan<- *driverpb.Event) *session {
	return &session{ctx: ctx, driver: d, events: events, running: map[string]*execution{}}
}

// run obeys commands. At its end it kills what runs and waits until that is told.
func (s *session) run(commands <-chan *driverpb.Command) error {
	defer s.endAll()
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case c, ok := <-commands:
			if !ok {
				return nil
			}
			s.obey(c)
		}
	}
}

func (s *session) obey(c *driverpb.Command) {
	switch body := c.Body.(type) {
	case *driverpb.Command_Start:
		s.start(body.Start)
	case *driverpb.Command_Stop:
		if e := s.find(body.Stop.Execution); e != nil {
			e.stop(time.Duration(body.Stop.GraceMs) * time.Millisecond)
		}
	case *driverpb.Command_Flow:
		if e := s.find(body.Flow.Execution); e != nil {
			e.window.Ack(body.Flow.Bytes)
		}
	}
}

func (s *session) find(id string) *execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

func (s *session) start(start *driverpb.Start) {
	e := &execution{id: start.Execution, session: s, run: run{memory: memoryLimit(start.MemoryBytes), env: start.Env}}
	s.mu.Lock()
	if s.running[e.id] != nil {
		// The one that runs has this name's only Exited.
		s.mu.Unlock()
		return
	}
	s.running[e.id] = e
	s.open.Add(1)
	s.mu.Unlock()

	config, err := parseConfig(start.ConfigJson)
	if err != nil {
		e.refuseSoon(err)
		return
	}
	ref, ok := s.driver.modules.get(start.Handle)
	if !ok {
		e.refuseSoon(errUnknownHandle)
		return
	}
	e.run.module, e.run.args = ref, config.argv()
	for _, m := range start.Mounts {
		e.run.mounts = append(e.run.mounts, mount{source: m.Source, target: m.Target, readOnly: m.ReadOnly})
	}
	e.reach = append(e.run.mounts[:len(e.run.mounts):len(e.run.mounts)], mount{source: filepath.Dir(ref.dir), readOnly: true})
	s.driver.pool.submit(e)
}

// memoryLimit is a guest's, in bytes: what is asked for, and at most what
// WebAssembly can address.
func memoryLimit(bytes int64) uint64 {
	if bytes <= 0 {
		return reserved
	}
	return min(uint64(bytes), reserved)
}

// emit sends an event unless the stream is gone.
func (s *session) emit(ev *driverpb.Event) {
	select {
	case s.events <- ev:
	case <-s.ctx.Done():
	}
}

// forget makes room for the execution's name, before its Exited is sent.
func (s *session) forget(e *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, e.id)
}

func (s *session) endAll() {
	s.mu.Lock()
	all := make([]*execution, 0, len(s.running))
	for _, e := range s.running {
		all = append(all, e)
	}
	s.mu.Unlock()
	for _, e := range all {
		e.stop(0)
	}
	s.open.Wait()
}
