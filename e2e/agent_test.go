// Package e2e tries the product from outside: the binary, its command line and its HTTP
// API, on real files, with real drivers, and with processes that are killed.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/e2e/build"
	"github.com/sheaf-run/agent/e2e/port"
	"github.com/sheaf-run/agent/sheaf"
)

// binary is the agent under test, daemon the containerd that it uses.
var (
	binary string
	daemon *containerdtest.Daemon
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sheaf-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "agent")
		if err := build.Program(binary, build.Agent); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if daemon, err = containerdtest.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer daemon.Stop()
		// The agents hand it on to their containerd driver.
		if err := os.Setenv("CONTAINERD_ADDRESS", daemon.Address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if left := leftovers(); left != "" {
			fmt.Fprintf(os.Stderr, "processes of agents that were stopped are left:\n%s", left)
			return 1
		}
		return code
	}())
}

// leftovers lists the processes of the agent's binary, once it has given them time to end.
func leftovers() (left string) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		left = ""
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			if command, _ := os.ReadFile(path); bytes.HasPrefix(command, []byte(binary+"\x00")) {
				left += path + ": " + string(bytes.ReplaceAll(command, []byte{0}, []byte(" "))) + "\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

// patience is how long anything may take that must happen.
const patience = 2 * time.Minute

// agent is an agent in a process of its own.
type agent struct {
	t       *testing.T
	dataDir string
	args    []string
	cmd     *exec.Cmd
	stderr  *lockedBuffer
	address string
	exited  chan struct{}
	files   int    // how many it may have open; 0 is as many as this process
	home    string // so that `last` is this test's own
}

// lockedBuffer keeps what a process writes while others read it.
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

// startAgent starts a dev agent that keeps its state, on free ports, and waits
// until it is ready. The test's end stops it.
func startAgent(t *testing.T, extra ...string) *agent {
	t.Helper()
	a := &agent{t: t, dataDir: t.TempDir(), home: t.TempDir()}
	a.args = append([]string{"dev", "-data-dir", a.dataDir, "-http-port", freePort(t), "-rpc-port", freePort(t), "-gossip-port", freePort(t)}, extra...)
	a.start()
	t.Cleanup(a.stop)
	return a
}

// startDaemon is startAgent for `agent start` with a configuration; its data directory is added.
func startDaemon(t *testing.T, config string) *agent {
	t.Helper()
	return startDaemonIn(t, t.TempDir(), config)
}

// startDaemonIn is startDaemon with a data directory.
func startDaemonIn(t *testing.T, dataDir, config string) *agent {
	t.Helper()
	a := &agent{t: t, dataDir: dataDir, home: t.TempDir()}
	file := filepath.Join(t.TempDir(), "agent.hcl")
	write(t, file, fmt.Sprintf("data_dir = %q\n%s", a.dataDir, config))
	a.args = []string{"start", "-config", file}
	a.start()
	t.Cleanup(a.stop)
	return a
}

// startReader starts a daemon that is server and client, runs programs, and reads what the sources say: blocks
// of a client's configuration.
func startReader(t *testing.T, sources string) *agent {
	t.Helper()
	return startClient(t, `"exec"`, sources)
}

// startClient is startReader with other drivers.
func startClient(t *testing.T, drivers, sources string) *agent {
	t.Helper()
	return startDaemon(t, fmt.Sprintf(`ports {
  http   = %s
  rpc    = %s
  gossip = %s
}
server {
  enabled = true
}
client {
  enabled = true
  drivers = [%s]
%s
}`, freePort(t), freePort(t), freePort(t), drivers, sources))
}

// freePort is a port that no other agent of the tests is given.
func freePort(t *testing.T) string {
	t.Helper()
	at, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(at)
}

// start starts the process, also after kill, on the same data directory.
func (a *agent) start() {
	a.t.Helper()
	ready := a.begin()
	select {
	case a.address = <-ready:
	case <-a.exited:
		a.t.Fatalf("the agent ended before it was ready:\n%s", a.stderr)
	case <-time.After(patience):
		a.t.Fatalf("the agent is not ready after %s:\n%s", patience, a.stderr)
	}
}

// begin is start without the wait; the channel gives the address when the agent is ready.
func (a *agent) begin() <-chan string {
	a.t.Helper()
	a.cmd = exec.Command(binary, a.args...)
	if a.files > 0 {
		a.cmd = exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, a.files), "sh", binary}, a.args...)...)
	}
	a.stderr = &lockedBuffer{}
	pipe, err := a.cmd.StderrPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.exited = make(chan struct{})
	ready := make(chan string, 1)
	go func() {
		defer close(a.exited)
		for lines := bufio.NewReader(pipe); ; {
			line, err := lines.ReadString('\n')
			_, _ = io.WriteString(a.stderr, line)
			if at, ok := strings.CutPrefix(strings.TrimSpace(line), "ready at "); ok {
				ready <- at
			}
			if err != nil {
				break
			}
		}
		_ = a.cmd.Wait()
	}()
	return ready
}

// kill ends the process the hard way.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
	<-a.exited
}

func (a *agent) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.exited:
	case <-time.After(patience):
		a.t.Errorf("the agent does not stop on SIGTERM:\n%s", a.stderr)
		_ = a.cmd.Process.Kill()
		<-a.exited
	}
	if a.t.Failed() {
		a.t.Logf("the agent's log:\n%s", a.stderr)
	}
}

// ran is how a command ended.
type ran struct {
	stdout, stderr string
	code           int
}

// cli runs a command against the agent.
func (a *agent) cli(args ...string) ran {
	a.t.Helper()
	return runCLI(a.t, []string{"SHEAF_ADDR=" + a.address, "XDG_CONFIG_HOME=" + a.home}, args...)
}

// ok is cli for commands that must succeed; it gives their stdout.
func (a *agent) ok(args ...string) string {
	a.t.Helper()
	r := a.cli(args...)
	if r.code != 0 {
		a.t.Fatalf("agent %s: exit %d\n%s%s\nthe agent's log:\n%s", strings.Join(args, " "), r.code, r.stdout, r.stderr, a.stderr)
	}
	return r.stdout
}

func runCLI(t *testing.T, env []string, args ...string) ran {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 10*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("agent %s: %v", strings.Join(args, " "), err)
	}
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// status is what `job status -json` prints.
func (a *agent) status(run string) sheaf.RunSummary {
	a.t.Helper()
	var s sheaf.RunSummary
	if err := json.Unmarshal([]byte(a.ok("job", "status", "-json", run)), &s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *agent) partitions(run string) []sheaf.Partition {
	a.t.Helper()
	var ps []sheaf.Partition
	if err := json.Unmarshal([]byte(a.ok("partition", "list", "-json", run)), &ps); err != nil {
		a.t.Fatal(err)
	}
	return ps
}

func (a *agent) client() *api.Client {
	a.t.Helper()
	c, err := api.New(api.Config{Address: a.address})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c
}

// until waits for a run to be as wanted, by blocking reads.
func (a *agent) until(run string, what string, good func(sheaf.RunSummary) bool) sheaf.RunSummary {
	a.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	c := a.client()
	var index uint64
	for {
		s, m, err := c.Summary(ctx, run, api.Read{Index: index, Wait: 200 * time.Millisecond})
		if err != nil {
			a.t.Fatalf("wait until %s: %v\nlast: %+v\nthe agent's log:\n%s", what, err, s, a.stderr)
		}
		if good(s) {
			return s
		}
		if s.Status.Terminal() {
			a.t.Fatalf("waiting until %s, the run ended: %+v", what, s)
		}
		index = m.Index
	}
}

// jobspec writes text to a file in a folder of its own.
func jobspec(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job.hcl")
	write(t, path, text)
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
