package wasm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// stand is a driver with a session open.
type stand struct {
	t      testing.TB
	driver *Driver
	*drivertest.Session
	state string
	n     int
}

func newStand(t testing.TB, o Options) *stand {
	d := newDriver(t, o)
	return &stand{t: t, driver: d, Session: drivertest.Open(t, d), state: newState(t)}
}

// start prepares a module and makes a Start of it.
func (s *stand) start(code []byte, args ...string) *driverpb.Start {
	s.t.Helper()
	module := writeFile(s.t, "module.wasm", code)
	p, err := prepare(s.t, s.driver, s.state, module)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.again(&driverpb.Start{Handle: p.Handle, ConfigJson: configOf(s.t, module, args...), MemoryBytes: 32 << 20})
}

// again is the same Start for another execution.
func (s *stand) again(start *driverpb.Start) *driverpb.Start {
	s.n++
	return &driverpb.Start{
		Execution: fmt.Sprintf("run.%d.1", s.n), Handle: start.Handle, ConfigJson: start.ConfigJson,
		MemoryBytes: start.MemoryBytes, Env: start.Env, Mounts: start.Mounts,
	}
}

func TestEnds(t *testing.T) {
	s := newStand(t, Options{})
	deep := s.start(recurses)
	for name, c := range map[string]struct {
		start *driverpb.Start
		ok    func(*driverpb.Exited) bool
	}{
		"a return is success": {s.start(noop), func(x *driverpb.Exited) bool {
			return x.ExitCode == 0 && x.Signal == "" && x.Error == "" && x.PeakMemoryBytes == wasmPage
		}},
		"proc_exit": {s.start(exits), func(x *driverpb.Exited) bool { return x.ExitCode == 7 && x.Signal == "" && x.Error == "" }},
		"a large code is no success": {s.start(guest{exit: true, body: []byte{0x41, 0x80, 2, 0x10, 0}}.bytes()), func(x *driverpb.Exited) bool {
			return x.ExitCode == 255
		}},
		"a trap": {s.start(traps), func(x *driverpb.Exited) bool {
			return x.ExitCode == -1 && x.Signal == "trap" && strings.Contains(x.Error, "unreachable") && !x.OutOfMemory
		}},
		"memory that cannot grow": {s.start(grows), func(x *driverpb.Exited) bool {
			return x.Signal == "trap" && x.OutOfMemory && x.PeakMemoryBytes > 30<<20 && x.PeakMemoryBytes <= 32<<20
		}},
		"endless recursion": {deep, func(x *driverpb.Exited) bool {
			return x.ExitCode == -1 && x.Signal != "" && x.Error != ""
		}},
		"an unknown handle": {&driverpb.Start{Execution: "a", Handle: "none", ConfigJson: deep.ConfigJson}, func(x *driverpb.Exited) bool {
			return x.NotStarted && strings.Contains(x.Error, "not prepared")
		}},
		"a mount of nothing": {&driverpb.Start{Execution: "b", Handle: deep.Handle, ConfigJson: deep.ConfigJson, Mounts: []*driverpb.Mount{
			{Source: s.state + "/none", Target: "/in"},
		}}, func(x *driverpb.Exited) bool { return x.NotStarted && strings.Contains(x.Error, "/none") }},
		"a NUL in an argument": {s.start(noop, "a\x00b"), func(x *driverpb.Exited) bool { return x.NotStarted && strings.Contains(x.Error, "NUL") }},
		"a frame over its bound": {s.start(noop, strings.Repeat("x", maxFrame)), func(x *driverpb.Exited) bool {
			return x.NotStarted && strings.Contains(x.Error, "limit 4194304")
		}},
	} {
		if x := s.Run(c.start).Exited; !c.ok(x) {
			t.Errorf("%s: exited = %v", name, x)
		}
	}
}

func TestStop(t *testing.T) {
	s := newStand(t, Options{Lanes: 2})
	loop, other := s.start(loops), s.start(prints)
	s.Start(loop)
	s.Start(other)
	s.Printed(other.Execution, "\x00\x00")
	s.Stop(loop.Execution, "SIGTERM", 10*time.Millisecond)
	if x := s.Wait(loop.Execution).Exited; x.Signal != "SIGKILL" || x.ExitCode != -1 || x.OutOfMemory || x.NotStarted {
		t.Errorf("the loop exited = %v", x)
	}
	if x := s.Run(s.start(exits)).Exited; x.ExitCode != 7 {
		t.Errorf("after a kill: exited = %v", x)
	}
	s.Stop(other.Execution, "", 0)
	if x := s.Wait(other.Execution).Exited; x.Signal != "SIGKILL" {
		t.Errorf("the printer exited = %v", x)
	}
	// A grace that an execution doesn't need costs its worker nothing.
	done := s.start(noop)
	s.Start(done)
	s.Stop(done.Execution, "", time.Hour)
	s.Wait(done.Execution)
}

// A worker that dies takes its own execution with it and no other.
func TestWorkerDies(t *testing.T) {
	s := newStand(t, Options{Lanes: 1})
	start := s.start(prints)
	s.Start(start)
	s.Printed(start.Execution, "\x00")
	s.driver.pool.mu.Lock()
	for c := range s.driver.pool.busy {
		c.kill()
	}
	s.driver.pool.mu.Unlock()
	if x := s.Wait(start.Execution).Exited; x.Signal != "SIGKILL" || x.Error == "" || x.NotStarted {
		t.Errorf("exited = %v, want SIGKILL and an error", x)
	}

	// One that died while idle is noticed before anything ran on it.
	s.Run(s.start(noop))
	s.driver.pool.mu.Lock()
	for _, c := range s.driver.pool.idle {
		c.kill()
		<-c.tail.done
	}
	s.driver.pool.mu.Unlock()
	if x := s.Run(s.start(exits)).Exited; x.ExitCode != 7 {
		t.Errorf("after an idle worker died: exited = %v", x)
	}
}

// Executions that wait get workers of their own, short ones share few.
func TestWorkersByNeed(t *testing.T) {
	s := newStand(t, Options{Lanes: 2})
	s.driver.pool.slowAfter = time.Hour // a busy machine may keep a short one waiting for long
	short := s.start(noop)
	for range 200 {
		s.Start(s.again(short))
	}
	for i := range 200 {
		s.Wait(fmt.Sprintf("run.%d.1", i+2))
	}
	s.driver.pool.mu.Lock()
	if live := s.driver.pool.live; live > 2 {
		t.Errorf("%d workers for short executions, want 2 at most", live)
	}
	s.driver.pool.mu.Unlock()
	s = newStand(t, Options{Lanes: 2})
	sleep := s.start(goModule(t), "sleep", "3600")
	var ids []string
	for range 6 {
		start := s.again(sleep)
		ids = append(ids, start.Execution)
		s.Start(start)
	}
	for _, id := range ids {
		s.Printed(id, "ready")
	}
	for _, id := range ids {
		s.Stop(id, "", 0)
		s.Wait(id)
	}
}

func TestIdleWorkersEnd(t *testing.T) {
	s := newStand(t, Options{Lanes: 2, IdleAfter: 20 * time.Millisecond})
	short := s.start(noop)
	for range 50 {
		s.Start(s.again(short))
	}
	for i := range 50 {
		s.Wait(fmt.Sprintf("run.%d.1", i+2))
	}
	waitFor(t, "all workers ended", func() bool {
		s.driver.pool.mu.Lock()
		defer s.driver.pool.mu.Unlock()
		return s.driver.pool.live == 0
	})
	if x := s.Run(s.start(exits)).Exited; x.ExitCode != 7 {
		t.Errorf("exited = %v", x)
	}
}

// waitFor awaits what other processes do.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not after a minute: %s", what)
		}
	}
}
