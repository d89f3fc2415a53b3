package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener waits for one supervisor to come up.
type Listener struct {
	path string
	l    *net.UnixListener
}

// Listen makes the socket at path, which every user who can reach it may
// connect to: its directory is for root alone, and the container gets the socket itself.
func Listen(path string) (*Listener, error) {
	// A socket's path is at most 107 bytes long, and a state directory's may be longer.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("make a supervisor's socket: %w", err)
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make a supervisor's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o666); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make a supervisor's socket: %w", err)
	}
	return &Listener{path: path, l: l}, nil
}

// Close ends the waiting and removes the socket. Calling it twice is fine.
func (l *Listener) Close() {
	_ = l.l.Close()
	_ = os.Remove(l.path)
}

// Accept waits for the process pid, as this process counts, to say that it is a
// supervisor of our version.
func (l *Listener) Accept(pid int, patience time.Duration) (*Conn, error) {
	_ = l.l.SetDeadline(time.Now().Add(patience))
	for {
		peer, err := l.l.AcceptUnix()
		if err != nil {
			return nil, fmt.Errorf("wait for the container's supervisor: %w", err)
		}
		fd, err := own(peer)
		if err != nil {
			return nil, fmt.Errorf("wait for the container's supervisor: %w", err)
		}
		c := &Conn{fd: fd}
		if who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || int(who.Pid) != pid {
			c.Close()
			continue
		}
		if err := c.hello(patience); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// own takes the descriptor out of the runtime's hands: reads and writes of it block.
func own(peer *net.UnixConn) (int, error) {
	defer peer.Close()
	f, err := peer.File()
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// Conn is a supervisor, seen from outside. Start and Read belong to one
// goroutine; Signal and Close may be called by others.
type Conn struct {
	fd int
	in inbox

	mu     sync.Mutex // held while a frame is written
	closed bool
}

func (c *Conn) hello(patience time.Duration) error {
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("wait for the container's supervisor: %w", err)
	}
	for {
		if err := c.in.fill(c.fd); err != nil {
			return fmt.Errorf("wait for the container's supervisor: %w", err)
		}
		kind, body, ok, err := c.in.next()
		switch {
		case err != nil:
			return err
		case !ok:
			continue
		case kind != frameHello || string(body) != version:
			return errors.New("the agent's program on disk is not the one that runs: restart the agent")
		}
		return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
	}
}

// FD is what to poll for reading, then Read has something.
func (c *Conn) FD() int { return c.fd }

// Start has a program started. The descriptors become its stdout and stderr;
// they remain the caller's too.
func (c *Conn) Start(p *Program, stdout, stderr int) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write the program: %w", err)
	}
	if len(body) > maxFrame {
		return &RefusedError{Msg: fmt.Sprintf("exec: its arguments and environment are %d bytes long, more than %d", len(body), maxFrame)}
	}
	return c.write(frame(frameProgram, body), stdout, stderr)
}

// Signal sends the program that runs a signal; where none does, nothing.
func (c *Conn) Signal(s syscall.Signal) error {
	return c.write(frame(frameSignal, []byte{byte(s)}))
}

func (c *Conn) write(b []byte, files ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	err := write(c.fd, b, files...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return ErrUnread
	}
	return err
}

// RefusedError says why a program could not be started. The supervisor is as good as before.
type RefusedError struct{ Msg string }

func (e *RefusedError) Error() string { return e.Msg }

// ErrUnread is returned when the supervisor has ended and not read all that
// was written: a program that it has not begun by then it never began.
var ErrUnread = errors.New("the container ended before it was told all")

// News is what came of a program since the last Read.
type News struct {
	Began   bool
	Refused error // a *RefusedError
	End     *End
}

// Read reads what is there, and waits where nothing is. An error is the supervisor's end, of which
// nothing good is known.
func (c *Conn) Read() (News, error) {
	var n News
	if err := c.in.fill(c.fd); err != nil {
		switch {
		case errors.Is(err, io.EOF):
			err = errors.New("its container ended under it")
		case errors.Is(err, unix.ECONNRESET):
			err = ErrUnread
		}
		return n, err
	}
	for {
		kind, body, ok, err := c.in.next()
		if err != nil || !ok {
			return n, err
		}
		switch kind {
		case frameBegan:
			n.Began = true
		case frameRefused:
			n.Refused = &RefusedError{Msg: strings.Clone(string(body))}
		case frameEnd:
			n.End = &End{}
			if err := json.Unmarshal(body, n.End); err != nil {
				return n, fmt.Errorf("%w: %w", errFrame, err)
			}
		default:
			return n, errFrame
		}
	}
}

// Close ends the supervisor, and its container with it. Calling it twice is fine.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		_ = unix.Close(c.fd)
	}
}
