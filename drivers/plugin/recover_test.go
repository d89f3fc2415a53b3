package plugin_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/plugin"
)

// TestExecuteNeedsTheProcessThatRecovered guards that a driver dies between
// the two calls, and that another process, which was never told what runs, is
// taken for the one that was.
func TestExecuteNeedsTheProcessThatRecovered(t *testing.T) {
	h, _ := host(t, "mock")
	if _, err := h.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	first := h.Pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, first)
	commands, events := make(chan *driverpb.Command), make(chan *driverpb.Event, 1)
	close(commands)
	for { // until its end is noticed, the call goes to the dead process, which is a crash as well
		err := h.Execute(t.Context(), commands, events)
		if !errors.Is(err, plugin.ErrCrashed) {
			t.Fatalf("Execute by a process that never recovered: %v, want ErrCrashed", err)
		}
		if h.Pid() != 0 && h.Pid() != first {
			break
		}
	}
	if _, err := h.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if err := h.Execute(t.Context(), commands, events); err != nil {
		t.Errorf("Execute after it recovered: %v", err)
	}
}
