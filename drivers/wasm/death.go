package wasm

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// death says how the process of an ended child died.
type death struct {
	message  string
	signal   string
	outOfMem bool
}

func (c *child) death() death {
	said := c.tail.text()
	state := c.cmd.ProcessState
	d := death{message: "worker ended unexpectedly"}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		d.signal = signalName(status.Signal())
		d.outOfMem = status.Signal() == syscall.SIGKILL && oomKills() > c.ooms
	}
	if strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory") {
		d.outOfMem = true
	}
	switch {
	case d.outOfMem:
		d.message = "worker ran out of memory"
	case said != "":
		d.message += ": " + firstLines(said, 2)
	default:
		d.message += ": " + state.String()
	}
	return d
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	case syscall.SIGTERM:
		return "SIGTERM"
	}
	return fmt.Sprintf("signal %d", int(s))
}

// tailBytes is how much of a worker's own output is kept: the beginning, where a crashing Go
// program says why.
const tailBytes = 2 << 10

// tail collects what a worker prints itself; guests' output goes another way.
type tail struct {
	done chan struct{}
	buf  []byte
}

func readTail(r *os.File) *tail {
	t := &tail{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		defer r.Close()
		t.buf, _ = io.ReadAll(io.LimitReader(r, tailBytes))
		_, _ = io.Copy(io.Discard, r)
	}()
	return t
}

// wait waits until the output is closed, as it is when the process is gone.
func (t *tail) wait() { <-t.done }

func (t *tail) text() string {
	t.wait()
	return strings.TrimSpace(string(t.buf))
}
