package drivertest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// beating starts a task that runs until it is ended, and where mounts work
// shows that it does by growing a file, whose size the function tells.
func beating(t *testing.T, b *bench) (id string, size func() int64) {
	t.Helper()
	if !b.Can.Program {
		start := b.start(t, "sleep", "3600")
		b.session.Start(start)
		return start.GetExecution(), func() int64 { return 0 }
	}
	start := b.start(t, "sleep", "3600")
	size = func() int64 { return 0 }
	if b.Can.Mounts {
		out := tree(t, nil)
		start = b.start(t, "beat", "/out/beats")
		start.Mounts = []*driverpb.Mount{{Source: out, Target: "/out"}}
		size = func() int64 {
			info, err := os.Stat(filepath.Join(out, "beats"))
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
	}
	b.session.Start(start)
	b.session.Printed(start.GetExecution(), "ready")
	return start.GetExecution(), size
}

// still wants no more beats while other tasks run on a new stream of the same driver.
func still(t *testing.T, b *bench, size func() int64) {
	t.Helper()
	before := size()
	b.session = Open(t, b.driver)
	for range 10 {
		wantExit(t, b.session.Run(b.start(t, "exit", "0")), 0)
	}
	if after := size(); after != before {
		t.Errorf("the task still runs: its file grew from %d to %d bytes", before, after)
	}
}

func closing(t *testing.T, b *bench) {
	id, size := beating(t, b)
	if err := b.session.Close(); err != nil {
		t.Errorf("Execute = %v when its commands are closed, want nil", err)
	}
	if b.Can.Survive {
		return
	}
	if x := b.session.Wait(id).Exited; x.GetSignal() == "" {
		t.Errorf("exited = %v, want an end by a signal", x)
	}
	still(t, b, size)
}

func cancelling(t *testing.T, b *bench) {
	_, size := beating(t, b)
	if err := b.session.Cancel(); !errors.Is(err, context.Canceled) {
		t.Errorf("Execute = %v when its context ends, want that context's error", err)
	}
	if !b.Can.Survive {
		still(t, b, size)
	}
}

// recovering leaves two tasks to a second driver process that knows of one: that
// one goes on, and the other has ended when Recover returns.
func recovering(t *testing.T, s Subject) {
	stateDir := t.TempDir()
	first := open(t, s, stateDir)
	known := first.start(t, "catch")
	first.session.Start(known)
	first.session.Printed(known.GetExecution(), "ready")
	_, beats := beating(t, first)
	state := first.session.run(known.GetExecution()).Started.GetState()
	if len(state) == 0 {
		t.Fatal("Started has no state to recover by")
	}
	_ = first.session.Cancel()
	outlives(t, first, beats)

	second := *first
	second.driver = s.New(t)
	rec, err := second.driver.Recover(context.Background(), &driverpb.RecoverRequest{
		StateDir: stateDir, Known: []*driverpb.Known{{Execution: known.GetExecution(), State: state}},
	})
	if err != nil || !slices.Equal(rec.GetRunning(), []string{known.GetExecution()}) {
		t.Fatalf("running = %q, %v, want %q", rec.GetRunning(), err, known.GetExecution())
	}
	before := beats()
	second.session = Open(t, second.driver, rec.GetRunning()...)
	second.handle = second.prepare(t).GetHandle()
	wantExit(t, second.session.Run(second.start(t, "exit", "0")), 0)
	second.session.Stop(known.GetExecution(), "SIGUSR1", patience)
	r := second.session.Wait(known.GetExecution())
	wantExit(t, r, 5)
	wantOut(t, r, "caught user defined signal 1\n")
	if after := beats(); after != before {
		t.Errorf("the task that the second driver did not know runs on: its file grew from %d to %d bytes", before, after)
	}
}

// outlives waits until a task has beaten on, without which its end by Recover would show nothing.
func outlives(t *testing.T, b *bench, beats func() int64) {
	t.Helper()
	if !b.Can.Mounts {
		return
	}
	before, deadline, tick := beats(), time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for beats() == before {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the task did not outlive its session")
		}
	}
}
