package operations

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is one of the guide's.
type machine struct{ name, address string }

// site is machines on a switch. They live in namespaces that end with one process, and that ends with the test.
type site struct {
	t     *testing.T
	dir   string // holds what each machine has on disk
	pid   int    // of the process that holds the switch
	tools string
	world *imageRegistry
}

// newSite starts machines that have nothing but an operating system, and containerd.
func newSite(t *testing.T, machines []machine) *site {
	t.Helper()
	tools, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, tools: tools}
	// Unix sockets have short paths, and the folder is in one of the machines'.
	if s.dir, err = os.MkdirTemp("", "sheaf-site-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	group, mounts := newGroups(t, machines)
	if err := os.Mkdir(filepath.Join(s.dir, "machines"), 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", elsewhere, strings.Join(names, " "))
	args := append(append([]string{s.dir, group}, mounts...), "--")
	for _, m := range machines {
		hosts += m.address + " " + m.name + "\n"
		args = append(args, m.name, m.address)
	}
	s.world = newRegistry(t)
	s.write("hosts", hosts)
	s.write("authority.pem", s.world.authority)
	s.start(exec.Command(filepath.Join(tools, "site"), args...))
	s.world.serve(s)
	return s
}

// start starts the process that holds everything, and waits until it has made the machines.
func (s *site) start(cmd *exec.Cmd) {
	s.t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS}
	hold, err := cmd.StdinPipe() // closed with this process, however that ends
	if err != nil {
		s.t.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is the first of its pid namespace: the kernel kills all others
		_ = cmd.Wait()
		hold.Close()
	})
	ready := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(said).ReadString('\n')
		ready <- line == "ready\n"
	}()
	select {
	case ok := <-ready:
		if !ok {
			s.t.Fatalf("the machines cannot be made:\n%s", &stderr)
		}
	case <-time.After(patience):
		s.t.Fatalf("the machines are not there after %s", patience)
	}
}

// path is where a machine's file is for the test.
func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// session keeps what a shell keeps from one command to the next: a person has one window per machine.
const session = `
[ ! -e /run/session ] || . /run/session
set -eu
%s
{ export -p; echo "cd '$PWD'"; umask | sed 's/^/umask /'; } >/run/session
`

// try runs commands on a machine, in its one session, and gives what they print.
func (s *site) try(name, commands string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 5*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(s.pid), "--mount", "--pid", "--net", "--",
		filepath.Join(s.tools, "ssh"), name, fmt.Sprintf(session, commands))
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = patience // for what was printed to be read; agents keep none of it open
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("it takes longer than %s", 5*patience))
	}
	return out.String(), err
}

// run is try for commands that must succeed.
func (s *site) run(name, commands string) string {
	s.t.Helper()
	out, err := s.try(name, commands)
	if err != nil {
		s.t.Fatalf("on %s: %v\n%s\n---\n%s", name, err, commands, out)
	}
	return out
}

// inside does something in the switch's network.
func (s *site) inside(do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
		if err != nil {
			result <- err
			return
		}
		defer fd.Close()
		if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the switch's network: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}

// dial reaches a machine from the switch.
func (s *site) dial(address string) (conn net.Conn, err error) {
	err = s.inside(func() error {
		// An address that needs no resolving is dialled on the calling thread.
		conn, err = (&net.Dialer{Timeout: patience}).Dial("tcp4", address)
		return err
	})
	return conn, err
}

// logs are what the agents of all machines had to say, the last of it.
func (s *site) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(s.path("*/run/units/*.log"))
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			lines := strings.Split(string(text), "\n")
			fmt.Fprintf(&b, "--- %s\n%s\n", strings.TrimPrefix(file, s.dir), strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}
	return b.String()
}

// lockedBuffer keeps what processes write while others read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
