package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The descriptors that a worker is started with. Standard output and error are
// a pipe too: what the Go runtime writes there when it dies is the reason that the driver gives.
const (
	commandFD = 3 + iota
	eventFD
	driverFD // see tieToDriver
)

// readBuffer is a pipe's capacity: what one read can give.
const readBuffer = 64 << 10

// WorkerMain is the worker process: it runs what the driver on the other end
// of its pipes sends, one execution at a time, until the pipe closes. It returns
// the exit code. The arguments, which only mark the process, are ignored.
func WorkerMain(_ ...string) int {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "wasm worker:", err)
		return 1
	}
	return 0
}

// work has one thread of its own for everything: commands are read where
// nothing runs, and events written where they happen. That saves two switches
// between threads for each execution, and there is nothing to buffer that a kill could lose.
func work() error {
	if err := tieToDriver(driverFD); err != nil {
		return err
	}
	commands := newFrameReader(descriptor(commandFD), readBuffer)
	var s setup
	k, body, err := commands.next()
	if err != nil {
		return ignoreEOF(err)
	}
	if k != kindSetup {
		return fmt.Errorf("first frame is of kind %d", k)
	}
	if s, err = decodeSetup(body); err != nil {
		return err
	}
	limit := newDataLimit() // reads /proc, which restrict takes away
	if err := restrict(s); err != nil {
		return err
	}
	h, err := newHost(context.Background(), &eventWriter{w: descriptor(eventFD)}, s.compiler, limit)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the driver looks at what this thread does
	r := ready{thread: uint64(unix.Gettid())}
	if err := h.out.frame(kindReady, r.append); err != nil {
		return err
	}
	for {
		k, body, err := commands.next()
		if err != nil {
			return ignoreEOF(err)
		}
		if err := h.obey(k, body); err != nil {
			return err
		}
	}
}

func (h *host) obey(k kind, body []byte) error {
	switch k {
	case kindLoad:
		m, err := decodeModule(body)
		if err != nil {
			return err
		}
		l := h.load(m)
		return h.out.frame(kindLoaded, l.append)
	case kindRun:
		r, err := decodeRun(body, &h.previous)
		if err != nil {
			return err
		}
		e := h.run(&r)
		h.previous = r
		return h.out.frame(kindExit, e.append)
	}
	return fmt.Errorf("frame of unknown kind %d", k)
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// descriptor reads and writes by system calls that block: a worker has nothing
// else to do meanwhile, and Go's poller would cost a call more each time.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("read commands: %w", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (d descriptor) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n, err := unix.Write(int(d), b[written:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return written, fmt.Errorf("write events: %w", err)
		}
		written += n
	}
	return written, nil
}

// eventWriter sends frames, each in one write where the pipe has room.
type eventWriter struct {
	w   io.Writer
	buf []byte
}

func (e *eventWriter) frame(k kind, body func([]byte) []byte) error {
	e.buf = appendFrame(e.buf[:0], k, body)
	_, err := e.w.Write(e.buf)
	return err
}

// logWriter is a guest's standard output or error. A write waits while the
// pipe is full: so a guest that prints without end is held by who reads it.
type logWriter struct {
	out    *eventWriter
	stream byte
}

func (l *logWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		piece := rest[:min(len(rest), maxPiece)]
		rest = rest[len(piece):]
		err := l.out.frame(kindLog, func(buf []byte) []byte {
			return append(append(buf, l.stream), piece...)
		})
		if err != nil {
			// Nobody is left to tell: the driver is gone.
			fmt.Fprintln(os.Stderr, "wasm worker:", err)
			os.Exit(1)
		}
	}
	return len(b), nil
}
