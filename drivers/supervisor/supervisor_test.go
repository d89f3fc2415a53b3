package supervisor

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor itself is tested where it runs, in the containers of drivers/containerd.

func pair(t *testing.T) (int, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func TestFrames(t *testing.T) {
	a, b := pair(t)
	defer unix.Close(b)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	long := bytes.Repeat([]byte("x"), 100_000)
	sent := make(chan error, 1)
	go func() {
		err := write(a, frame(frameProgram, long), int(null.Fd()), int(null.Fd()))
		for _, c := range frame(frameSignal, []byte{9}) { // as they may come
			err = errors.Join(err, write(a, []byte{c}))
		}
		sent <- errors.Join(err, unix.Close(a))
	}()
	var in inbox
	var kinds []byte
	for {
		kind, body, ok, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			kinds = append(kinds, kind)
			if kind == frameProgram && !bytes.Equal(body, long) {
				t.Errorf("a program of %d bytes, want %d", len(body), len(long))
			}
			continue
		}
		if err := in.fill(b); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if string(kinds) != "ps" || len(in.files) != 2 {
		t.Errorf("kinds %q with %d files, want ps with 2", kinds, len(in.files))
	}
	for _, fd := range in.files {
		_ = unix.Close(fd)
	}
}

func TestFrameTooLong(t *testing.T) {
	in := inbox{buf: []byte{frameProgram, 0xff, 0, 0, 0}}
	if _, _, _, err := in.next(); !errors.Is(err, errFrame) {
		t.Errorf("a frame of 4 GB: %v", err)
	}
}

// TestStrangers: who is not the container's process 1 is not taken for it, and one of another version
// is told apart.
func TestStrangers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a-directory-whose-name-makes-the-path-longer-than-a-socket-may-be-"+string(bytes.Repeat([]byte("x"), 60)))
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pid   int
		hello string
		good  bool
	}{{os.Getpid(), version, true}, {os.Getpid(), "sheaf supervisor 0", false}, {1, version, false}} {
		l, err := Listen(filepath.Join(path, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), "socket")})
		}
		if err == nil {
			err = write(fd, frame(frameHello, []byte(c.hello)))
		}
		if err != nil {
			t.Fatal(err)
		}
		patience := time.Minute
		if c.pid == 1 {
			patience = time.Millisecond // nobody else will come
		}
		conn, err := l.Accept(c.pid, patience)
		if (err == nil) != c.good {
			t.Errorf("process %d with %q: %v, want good %v", c.pid, c.hello, err, c.good)
		}
		if conn != nil {
			conn.Close()
			conn.Close()
		}
		l.Close()
		_, _ = unix.Close(fd), dir.Close()
		if _, err := os.Lstat(filepath.Join(path, "socket")); err == nil {
			t.Error("the socket is left")
		}
	}
}

func TestConnections(t *testing.T) {
	for text, want := range map[string]int{
		"sockets: used 4\nTCP: inuse 0 orphan 7 tw 0 alloc 9 mem 1\nUDP: inuse 3 mem 0\n": 0,
		"TCP: inuse 2 orphan 0 tw 1 alloc 9 mem 1\n":                                      3,
		"TCP: inuse 0 orphan 0 tw\n":                                                      -1,
		"TCP: in 0 orphan 0 tw 0 alloc\n":                                                 -1,
		"":                                                                                -1,
	} {
		if got := connections([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestMainIsForContainers: at the end of a program the supervisor kills all that it may.
func TestMainIsForContainers(t *testing.T) {
	if code := Main([]string{filepath.Join(t.TempDir(), "socket")}); code != 2 {
		t.Errorf("outside of a container it ends with %d", code)
	}
}
