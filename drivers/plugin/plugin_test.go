package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/mock"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/sheaf"
)

// guests are what the test binary does when it is started as a plugin.
var guests = map[string]func(){
	"mock":   func() { plugin.Serve("mock", mock.New()) },
	"family": func() { plugin.Serve("family", &family{Driver: mock.New()}) },
	"faulty": func() { plugin.Serve("faulty", faulty{mock.New()}) },
	"crash": func() {
		fmt.Fprintln(os.Stderr, "panic: the disk is on fire")
		os.Exit(3)
	},
	"silent": func() { forever() },
	"http":   func() { fmt.Println("HTTP/1.1 400 Bad Request"); forever() },
	"future": func() { fmt.Println("1|99|unix|/nowhere|grpc|"); forever() },
	"netrpc": func() { fmt.Println("1|1|unix|/nowhere|netrpc|"); forever() },
	// mute shakes hands, accepts connections and never says a word on them.
	"mute": func() {
		path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "mute")
		l, err := net.Listen("unix", path)
		if err != nil {
			panic(err)
		}
		fmt.Printf("1|1|unix|%s|grpc|\n", path)
		for {
			if _, err := l.Accept(); err != nil {
				panic(err)
			}
		}
	},
	"sleeper": func() { forever() },
	// agent is a process that has a plugin, for its death.
	"agent": func() {
		h := plugin.NewHost(plugin.Config{Name: "mock", Command: []string{"/proc/self/exe", "plugin", "mock"}, Log: slog.New(slog.DiscardHandler)})
		go h.Run(context.Background())
		if _, err := h.Fingerprint(context.Background()); err != nil {
			panic(err)
		}
		fmt.Println(h.Pid())
		forever()
	},
}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "plugin" {
		guests[os.Args[2]]()
		os.Exit(0)
	}
	leaktest.Main(m)
}

// family has a child and a grandchild process. Its Prepare tells the pid in its config's stead.
type family struct {
	drivers.Driver
}

func (f *family) Prepare(context.Context, *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	child := exec.Command("/proc/self/exe", "plugin", "sleeper")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, err
	}
	return &driverpb.PrepareResponse{Handle: strconv.Itoa(child.Process.Pid)}, nil
}

// faulty answers with errors.
type faulty struct{ drivers.Driver }

func (faulty) Prepare(_ context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	if req.GetRun() == "plain" {
		return nil, errors.New("something broke")
	}
	return nil, fmt.Errorf("pull image: %w", &sheaf.Error{Class: sheaf.TooLarge, Msg: "image is 9GiB", Field: "config.image", Limit: "8GiB", Hint: "slim it"})
}

func (faulty) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	os.Exit(4)
	return nil, nil
}

// host runs a guest behind a host until the test ends.
func host(t *testing.T, guest string, change ...func(*plugin.Config)) (h *plugin.Host, stop func()) {
	t.Helper()
	cfg := plugin.Config{
		Name: guest, Command: []string{self(t), "plugin", guest}, SocketDir: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	h = plugin.NewHost(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want its context's error", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return h, stop
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProcessesThatAreNoPlugins(t *testing.T) {
	quick := func(c *plugin.Config) { c.StartTimeout = 300 * time.Millisecond }
	tests := []struct {
		guest  string
		change func(*plugin.Config)
		says   string
	}{
		{"crash", nil, "the disk is on fire"},
		{"silent", quick, "timeout"},
		{"http", nil, "400 Bad Request"},
		{"future", nil, "version"},
		{"netrpc", nil, "netrpc"},
		{"mute", func(c *plugin.Config) { plugin.AnswerWithin(c, 300*time.Millisecond) }, "does not answer"}, // its handshake takes what it takes
		{"missing", func(c *plugin.Config) { c.Command = []string{"/no/such/program"} }, "/no/such/program"},
		{"a directory", func(c *plugin.Config) { c.Command = []string{"/tmp"} }, "permission denied"},
		{"mock", func(c *plugin.Config) { c.Checksum = make([]byte, 32) }, "sha256"},
		{"no command", func(c *plugin.Config) { c.Command = nil }, "no command"},
	}
	for _, tt := range tests {
		t.Run(tt.guest, func(t *testing.T) {
			change := tt.change
			if change == nil {
				change = func(*plugin.Config) {}
			}
			h, _ := host(t, tt.guest, change)
			_, err := h.Fingerprint(t.Context())
			if !errors.Is(err, plugin.ErrStart) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.guest) {
				t.Fatalf("fingerprint: %v, want ErrStart that names %q and says %q", err, tt.guest, tt.says)
			}
			if strings.Contains(err.Error(), "recompiled") {
				t.Errorf("%v: speaks to the plugin's author", err)
			}
			if h.Pid() != 0 {
				t.Errorf("process %d is left", h.Pid())
			}
			_, again := h.Fingerprint(t.Context())
			if again == nil || again.Error() != err.Error() {
				t.Errorf("called again at once: %v, want the same error without another start", again)
			}
		})
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	h, _ := host(t, "faulty")
	_, err := h.Prepare(t.Context(), &driverpb.PrepareRequest{})
	want := sheaf.Error{Class: sheaf.TooLarge, Field: "config.image", Limit: "8GiB", Hint: "slim it", Msg: "pull image: image is 9GiB"}
	got, ok := errors.AsType[*sheaf.Error](err)
	if !ok || *got != want {
		t.Errorf("prepare: %#v, want %#v", err, want)
	}
	if _, err = h.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "plain"}); sheaf.ClassOf(err) != sheaf.Internal || !strings.Contains(err.Error(), "something broke") {
		t.Errorf("prepare: %v of class %s", err, sheaf.ClassOf(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Prepare(ctx, &driverpb.PrepareRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("prepare in a cancelled context: %v", err)
	}
}

func TestCrashInACall(t *testing.T) {
	h, _ := host(t, "faulty")
	_, err := h.Fingerprint(t.Context())
	if !errors.Is(err, plugin.ErrCrashed) || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("fingerprint: %v, want ErrCrashed with how it ended", err)
	}
	if _, err := h.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "plain"}); err == nil || errors.Is(err, plugin.ErrCrashed) {
		t.Errorf("the next call: %v, want the answer of a new process", err)
	}
}

func TestCrashDuringExecute(t *testing.T) {
	h, _ := host(t, "mock")
	commands, events := make(chan *driverpb.Command), make(chan *driverpb.Event, 16)
	result := make(chan error, 1)
	go func() { result <- h.Execute(t.Context(), commands, events) }()
	commands <- &driverpb.Command{Body: &driverpb.Command_Start{Start: &driverpb.Start{Execution: "r.0.1", ConfigJson: []byte(`{"duration":"1h"}`)}}}
	if ev := <-events; ev.GetStarted() == nil {
		t.Fatalf("first event is %v", ev)
	}
	first := h.Pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, plugin.ErrCrashed) || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("Execute = %v, want ErrCrashed and that it was killed", err)
	}
	if fp, err := h.Fingerprint(t.Context()); err != nil || fp.GetName() != "mock" {
		t.Fatalf("fingerprint after the crash: %v, %v", fp, err)
	}
	if h.Pid() == first || h.Pid() == 0 {
		t.Errorf("process is %d, was %d", h.Pid(), first)
	}
}

func TestRunEndsTheProcessTree(t *testing.T) {
	h, stop := host(t, "family")
	resp, err := h.Prepare(t.Context(), &driverpb.PrepareRequest{})
	if err != nil {
		t.Fatal(err)
	}
	child, _ := strconv.Atoi(resp.GetHandle())
	parent := h.Pid()
	// A guest that is stopped cannot go by itself.
	if err := syscall.Kill(parent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	inState(t, parent, "T") // its threads run on until one of them has seen the signal
	stop()
	gone(t, parent)
	gone(t, child)
	if _, err := h.Fingerprint(t.Context()); !errors.Is(err, plugin.ErrClosed) {
		t.Errorf("a call after Run: %v, want ErrClosed", err)
	}
}

func TestRestEndsTheProcessUntilTheNextCall(t *testing.T) {
	h, _ := host(t, "mock")
	h.Rest() // nothing to end
	if _, err := h.Fingerprint(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := h.Pid()
	h.Rest()
	gone(t, first)
	if h.Pid() != 0 {
		t.Errorf("process %d is there at rest", h.Pid())
	}
	if err := h.Release(t.Context(), "old handle"); err != nil || h.Pid() != 0 {
		t.Errorf("release at rest: %v, process %d, want nothing started", err, h.Pid())
	}
	if _, err := h.Fingerprint(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPluginDiesWithItsAgent(t *testing.T) {
	agent := exec.Command(self(t), "plugin", "agent")
	agent.Env = []string{"TMPDIR=" + t.TempDir()} // its sockets are left behind
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	_ = agent.Process.Kill()
	_ = agent.Wait() // killed
	gone(t, pid)
}

func TestStrangersGetNoAnswer(t *testing.T) {
	sockets := t.TempDir()
	agent := exec.Command(self(t), "plugin", "agent")
	agent.Env = []string{"TMPDIR=" + sockets}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	defer func() {
		_ = agent.Process.Kill()
		_ = agent.Wait() // killed
		gone(t, pid)
	}()
	if err != nil {
		t.Fatal(err)
	}
	// This process is the same user's, and finds the socket, but it is not the agent.
	found, err := filepath.Glob(filepath.Join(sockets, "plugin-dir*", "plugin*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("sockets %q, %v, want one", found, err)
	}
	conn, err := grpc.NewClient("unix:"+found[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if fp, err := driverpb.NewDriverClient(conn).Fingerprint(t.Context(), &driverpb.FingerprintRequest{}); err == nil {
		t.Errorf("a stranger is told %v", fp)
	}
}

func TestCertificatesOnBothSides(t *testing.T) {
	h, _ := host(t, "mock", func(c *plugin.Config) { c.MTLS = true })
	if fp, err := h.Fingerprint(t.Context()); err != nil || !fp.GetHealthy() {
		t.Errorf("fingerprint: %v, %v", fp, err)
	}
}

func TestNoInheritedEnvironment(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	h, _ := host(t, "mock", func(c *plugin.Config) { c.Env = []string{"GIVEN=1"} })
	if _, err := h.Fingerprint(t.Context()); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(env), "hunter2") || !strings.Contains(string(env), "GIVEN=1\x00") {
		t.Errorf("the plugin's environment is %q", env)
	}
}

// gone waits until a process, which may not be a child of ours, is no more than a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	inState(t, pid, "Z")
}

// inState waits until a process is in the state that a letter stands for, or is gone.
func inState(t *testing.T, pid int, state string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") "+state+" ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there, and not in state %s: %s", pid, state, stat)
		}
		time.Sleep(time.Millisecond) // an outside process is awaited
	}
}

// forever waits for a signal that ends the process. A bare select would be a
// deadlock to the runtime where nothing else runs.
func forever() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, syscall.SIGUSR1)
	<-never
}
