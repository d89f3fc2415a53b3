package drivertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers"
)

// endless lets a task print without an end and does not acknowledge: what is
// on the way must stay bounded, others must run on, and stopping must not need an acknowledgement.
func endless(t *testing.T, b *bench) {
	start := b.start(t, "endless")
	b.session.begin(start, true)
	id := start.GetExecution()
	b.session.until(id, "has filled half of its window", func(r *run) bool { return r.bytes >= drivers.MaxUnacknowledged/2 })
	seen := func() (n int64) {
		b.session.mu.Lock()
		defer b.session.mu.Unlock()
		return b.session.runs[id].bytes
	}
	for range 5 {
		wantExit(t, b.session.Run(b.start(t, "exit", "0")), 0)
	}
	if n := seen(); n > drivers.MaxUnacknowledged {
		t.Errorf("%d bytes came unacknowledged, at most %d may", n, drivers.MaxUnacknowledged)
	}
	n := seen()
	b.session.send(flow(id, n))
	b.session.until(id, "prints on after an acknowledgement", func(r *run) bool { return r.bytes > n })
	b.session.Stop(id, "SIGKILL", 0)
	if x := b.session.Wait(id).Exited; x.GetSignal() == "" && x.GetExitCode() == 0 {
		t.Errorf("exited = %v, want an end by a signal", x)
	}
}

func spinning(t *testing.T, b *bench) {
	start := b.start(t, "spin")
	b.session.Start(start)
	b.session.Printed(start.GetExecution(), "ready")
	wantExit(t, b.session.Run(b.start(t, "exit", "4")), 4)
	b.session.Stop(start.GetExecution(), "", 10*time.Millisecond)
	b.session.Stop(start.GetExecution(), "", 10*time.Millisecond) // twice is once
	if x := b.session.Wait(start.GetExecution()).Exited; x.GetSignal() == "" || x.GetNotStarted() {
		t.Errorf("exited = %v, want an end by a signal", x)
	}
}

func catching(t *testing.T, b *bench) {
	start := b.start(t, "catch")
	b.session.Start(start)
	b.session.Printed(start.GetExecution(), "ready")
	b.session.Stop(start.GetExecution(), "SIGUSR1", patience)
	r := b.session.Wait(start.GetExecution())
	wantExit(t, r, 5)
	wantOut(t, r, "ready\ncaught user defined signal 1\n")
}

func ignoring(t *testing.T, b *bench) {
	start := b.start(t, "ignore")
	b.session.Start(start)
	b.session.Printed(start.GetExecution(), "ready")
	b.session.Stop(start.GetExecution(), "SIGTERM", 50*time.Millisecond)
	if x := b.session.Wait(start.GetExecution()).Exited; x.GetSignal() != "SIGKILL" {
		t.Errorf("exited = %v, want SIGKILL", x)
	}
}

// orphans leaves a process behind that holds stdout open: the execution ends all the same.
func orphans(t *testing.T, b *bench) {
	r := b.succeed(t, b.start(t, "orphan"))
	if !strings.Contains(string(r.Stdout), "pid ") {
		t.Errorf("stdout = %q, want the pid of what is left behind", r.Stdout)
	}
}

func overMemory(t *testing.T, b *bench) {
	next := neighbour(t, b)
	r := b.session.Run(b.start(t, "grow", fmt.Sprint(b.Memory>>20*4)))
	if x := r.Exited; !x.GetOutOfMemory() || x.GetExitCode() == 0 && x.GetSignal() == "" {
		t.Errorf("exited = %v, want out of memory; stdout %q stderr %q", x, clip(r.Stdout), clip(r.Stderr))
	}
	undisturbed(t, b, next)
}

func overPids(t *testing.T, b *bench) {
	next := neighbour(t, b)
	r := b.session.Run(b.start(t, "fork", fmt.Sprint(2*defaultPids)))
	if x := r.Exited; !x.GetOutOfPids() || x.GetExitCode() == 0 && x.GetSignal() == "" {
		t.Errorf("exited = %v, want out of pids; stdout %q stderr %q", x, clip(r.Stdout), clip(r.Stderr))
	}
	undisturbed(t, b, next)
}

// neighbour is a task that runs until it is stopped, beside one that goes over a limit.
func neighbour(t *testing.T, b *bench) (id string) {
	t.Helper()
	start := b.start(t, "sleep", "3600")
	if b.Can.Signals {
		start = b.start(t, "catch")
	}
	b.session.Start(start)
	b.session.Printed(start.GetExecution(), "ready")
	return start.GetExecution()
}

// undisturbed wants the neighbour to be still there, and a task within the same limits to run.
func undisturbed(t *testing.T, b *bench, neighbour string) {
	t.Helper()
	wantExit(t, b.session.Run(b.start(t, "exit", "0")), 0)
	if x := b.session.exited(neighbour); x != nil {
		t.Fatalf("the neighbour exited = %v before it was stopped", x)
	}
	if !b.Can.Signals {
		b.session.Stop(neighbour, "SIGKILL", 0)
		x := b.session.Wait(neighbour).Exited
		if x.GetSignal() != "SIGKILL" || x.GetOutOfMemory() || x.GetOutOfPids() || x.GetNotStarted() {
			t.Errorf("the neighbour exited = %v, want SIGKILL by its own Stop", x)
		}
		return
	}
	b.session.Stop(neighbour, "SIGTERM", patience)
	wantExit(t, b.session.Wait(neighbour), 5)
}

func measured(t *testing.T, b *bench) {
	const mib = 24
	x := b.succeed(t, b.start(t, "grow", fmt.Sprint(mib))).Exited
	if got := x.GetPeakMemoryBytes(); got < mib<<20 || got > b.Memory*2 {
		t.Errorf("peak memory = %d, want at least %d and about its limit of %d at most", got, mib<<20, b.Memory)
	}
	small := b.succeed(t, b.start(t, "exit", "0")).Exited
	if got := small.GetPeakMemoryBytes(); got <= 0 || got >= x.GetPeakMemoryBytes() {
		t.Errorf("peak memory of a small task = %d, want above 0 and below %d", got, x.GetPeakMemoryBytes())
	}
	spin := b.start(t, "spin")
	b.session.Start(spin)
	b.session.Printed(spin.GetExecution(), "ready")
	b.succeed(t, b.start(t, "lines", "20000")) // takes a while
	b.session.Stop(spin.GetExecution(), "", 0)
	if x := b.session.Wait(spin.GetExecution()).Exited; x.GetCpuMs() <= 0 {
		t.Errorf("cpu time of a busy loop = %d ms", x.GetCpuMs())
	}
}
