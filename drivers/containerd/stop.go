package containerd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// killing bounds one try to send a signal, which is a process that runc starts.
const killing = 30 * time.Second

// stop is what the client wants of an execution's end.
type stop struct {
	wake chan struct{} // has room for one: a Stop came

	mu     sync.Mutex
	signal syscall.Signal // 0 is none
	killAt time.Time
}

func newStop() *stop { return &stop{wake: make(chan struct{}, 1)} }

// ask notes a Stop. Another one for the same execution can only bring SIGKILL nearer.
func (s *stop) ask(req *driverpb.Stop, now time.Time) {
	signal := unix.SignalNum(req.GetSignal())
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	grace := time.Duration(max(req.GetGraceMs(), 0)) * time.Millisecond
	if grace == 0 {
		signal = syscall.SIGKILL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	killAt := now.Add(grace)
	if s.signal == 0 || signal == syscall.SIGKILL {
		s.signal = signal
	}
	if s.killAt.IsZero() || killAt.Before(s.killAt) {
		s.killAt = killAt
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// asked is the signal that is due first, 0 when none was asked for.
func (s *stop) asked() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal
}

// due is the signal that is due now, and when SIGKILL is.
func (s *stop) due(now time.Time) (syscall.Signal, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signal != 0 && !now.Before(s.killAt) {
		return syscall.SIGKILL, s.killAt
	}
	return s.signal, s.killAt
}

// delivery is what a container was sent of it.
type delivery struct {
	asked syscall.Signal // the last that was delivered, as the client named it; 0 is none
	sent  syscall.Signal // what was sent for it
}

// deliver sends the signal that is due, once, and returns after which time to come back; 0 is never.
func (d *delivery) deliver(ctx context.Context, conn *client.Client, e *execution, now time.Time) time.Duration {
	signal, killAt := e.stop.due(now)
	if signal == 0 || d.sent == syscall.SIGKILL {
		return 0
	}
	if signal != d.asked {
		send := signal
		if fatal(signal) && unhandled(e.pid, signal) {
			send = syscall.SIGKILL
		}
		ctx, stop := context.WithTimeout(ctx, killing)
		defer stop()
		_, err := conn.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: e.container, Signal: uint32(send)})
		if err != nil && !errdefs.IsNotFound(errdefs.FromGRPC(err)) {
			return reconnect
		}
		d.asked, d.sent = signal, send
	}
	if d.sent == syscall.SIGKILL {
		return 0
	}
	return max(time.Until(killAt), time.Millisecond)
}

// endedBy names the signal that ended a program. The shim tells it as 128 plus its number, which
// programs also exit with: it is taken for a signal when it was sent, or when
// programs seldom choose it.
func (d *delivery) endedBy(code uint32) string {
	if code <= 128 || code > 128+64 {
		return ""
	}
	signal := syscall.Signal(code - 128)
	if signal == d.sent {
		return unix.SignalName(d.asked)
	}
	switch signal {
	case syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS:
		return unix.SignalName(signal)
	}
	return ""
}

// fatal reports whether a signal ends a program that does not handle it.
func fatal(s syscall.Signal) bool {
	switch s {
	case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		return false
	}
	return true
}

// unhandled reports whether a process neither catches nor ignores a signal. The kernel spares a
// container's process 1 such a signal; outside of a container it would end the program, and so we do.
func unhandled(pid uint32, s syscall.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	masks := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigCgt" && name != "SigIgn" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil || mask&(1<<(s-1)) != 0 {
			return false
		}
		masks++
	}
	return masks == 2
}
