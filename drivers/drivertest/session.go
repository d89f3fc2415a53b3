package drivertest

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// patience is how long an answer of a driver is waited for before the test
// fails: far longer than any of them takes, on a machine that does something else too.
const patience = 60 * time.Second

// Result is what came of an execution.
type Result struct {
	Started *driverpb.Started // nil when the driver sent none
	Stdout  []byte
	Stderr  []byte
	Exited  *driverpb.Exited
}

// Session drives one Execute stream: it starts executions, acknowledges
// their logs, and checks the order of their events: at most one Started, first; one Exited, last.
type Session struct {
	commands chan *driverpb.Command
	cancel   context.CancelFunc
	returned chan struct{} // closed when Execute has returned
	drained  chan struct{} // closed when its last event was seen after that
	err      error         // of Execute; read after returned

	sending sync.RWMutex // held for reading by who sends, and for writing to close commands
	closed  bool         // guarded by sending

	mu   sync.Mutex
	t    testing.TB // where failures are told
	runs map[string]*run
}

type run struct {
	Result
	hold    bool          // do not acknowledge logs
	bytes   int64         // log bytes seen
	change  chan struct{} // closed and renewed at every event
	done    chan struct{}
	unacked int64
}

// Open begins an Execute stream of d, which ends with the test at the latest. Executions that
// Recover re-attached to are adopted: their events may come before Open returns.
func Open(t testing.TB, d drivers.Driver, adopted ...string) *Session {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Session{t: t, commands: make(chan *driverpb.Command), cancel: cancel, returned: make(chan struct{}), drained: make(chan struct{}), runs: map[string]*run{}}
	for _, id := range adopted {
		s.runs[id] = &run{change: make(chan struct{}), done: make(chan struct{})}
	}
	events := make(chan *driverpb.Event, 64)
	go func() {
		defer close(s.returned)
		s.err = d.Execute(ctx, s.commands, events)
		close(events)
	}()
	acks := make(chan *driverpb.Command, 64)
	var pumps sync.WaitGroup
	pumps.Go(func() {
		defer close(acks)
		defer close(s.drained)
		for ev := range events {
			if ack := s.event(ev); ack != nil {
				acks <- ack
			}
		}
	})
	pumps.Go(func() {
		for ack := range acks {
			s.send(ack)
		}
	})
	t.Cleanup(func() {
		cancel()
		pumps.Wait()
		<-s.returned
	})
	return s
}

// On tells failures from now on to t, a subtest.
func (s *Session) On(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t = t
}

func (s *Session) tb() testing.TB {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t
}

// send gives the driver a command; it is dropped when Execute has returned.
func (s *Session) send(c *driverpb.Command) {
	s.sending.RLock()
	defer s.sending.RUnlock()
	if s.closed {
		return
	}
	select {
	case s.commands <- c:
	case <-s.returned:
	}
}

// Start begins an execution.
func (s *Session) Start(start *driverpb.Start) {
	s.begin(start, false)
}

func (s *Session) begin(start *driverpb.Start, hold bool) {
	s.mu.Lock()
	if s.runs[start.GetExecution()] != nil {
		s.mu.Unlock()
		panic("drivertest: execution started twice: " + start.GetExecution())
	}
	s.runs[start.GetExecution()] = &run{hold: hold, change: make(chan struct{}), done: make(chan struct{})}
	s.mu.Unlock()
	s.send(&driverpb.Command{Body: &driverpb.Command_Start{Start: start}})
}

// Stop ends an execution.
func (s *Session) Stop(id, signal string, grace time.Duration) {
	s.send(&driverpb.Command{Body: &driverpb.Command_Stop{Stop: &driverpb.Stop{Execution: id, Signal: signal, GraceMs: grace.Milliseconds()}}})
}

// Wait waits for the Exited of an execution.
func (s *Session) Wait(id string) *Result {
	s.tb().Helper()
	r := s.run(id)
	select {
	case <-r.done:
		return &r.Result
	case <-s.drained:
		select {
		case <-r.done:
			return &r.Result
		default:
		}
		s.tb().Fatalf("Execute returned (%v) without an Exited of %s", s.err, id)
	case <-time.After(patience):
		s.tb().Fatalf("no Exited of %s after %v; stdout %q stderr %q", id, patience, clip(r.Stdout), clip(r.Stderr))
	}
	return nil
}

// Run starts an execution and waits for its end.
func (s *Session) Run(start *driverpb.Start) *Result {
	s.tb().Helper()
	s.Start(start)
	return s.Wait(start.GetExecution())
}

// Printed waits until an execution's stdout holds text.
func (s *Session) Printed(id, text string) {
	s.tb().Helper()
	s.until(id, "prints "+text, func(r *run) bool { return bytes.Contains(r.Stdout, []byte(text)) })
}

// exited is an execution's Exited, nil while it runs.
func (s *Session) exited(id string) *driverpb.Exited {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id].Exited
}

// Stdout is what an execution has printed so far.
func (s *Session) Stdout(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.runs[id].Stdout)
}

func (s *Session) until(id, what string, is func(*run) bool) {
	s.tb().Helper()
	r := s.run(id)
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		ok, change, exited := is(r), r.change, r.Exited
		s.mu.Unlock()
		switch {
		case ok:
			return
		case exited != nil:
			s.tb().Fatalf("%s ended before it %s: %v, stdout %q stderr %q", id, what, exited, clip(r.Stdout), clip(r.Stderr))
		}
		select {
		case <-change:
		case <-deadline:
			s.tb().Fatalf("%s does not come to where it %s; stdout %q stderr %q", id, what, clip(r.Stdout), clip(r.Stderr))
		}
	}
}

func (s *Session) run(id string) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

// Cancel ends Execute's context and waits for its return.
func (s *Session) Cancel() error {
	s.cancel()
	return s.wait()
}

// Close closes the commands and waits for Execute's return.
func (s *Session) Close() error {
	s.sending.Lock()
	s.closed = true
	close(s.commands)
	s.sending.Unlock()
	return s.wait()
}

func (s *Session) wait() error {
	s.tb().Helper()
	select {
	case <-s.drained:
		return s.err
	case <-time.After(patience):
		s.tb().Fatalf("Execute has not returned after %v", patience)
		return nil
	}
}

func clip(b []byte) []byte {
	const most = 2000
	if len(b) > most {
		return b[len(b)-most:]
	}
	return b
}
