package containerd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/drivers/supervisor"
)

// daemon is the tests' containerd. Those that kill one have one of their own.
var daemon *containerdtest.Daemon

// long is a grace that no test waits for.
const long = time.Minute

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[2] == "supervisor" {
		os.Exit(supervisor.Main(os.Args[3:]))
	}
	if len(os.Args) == 3 && os.Args[1] == "plugin" {
		plugin.Serve(containerd.Name, containerd.New())
		os.Exit(0)
	}
	os.Exit(beside(m))
}

// beside runs the tests beside the daemon.
func beside(m *testing.M) int {
	var err error
	if daemon, err = containerdtest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv(containerd.AddressVariable, daemon.Address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := daemon.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// config is a task's config block.
func config(t testing.TB, image string, args ...string) []byte {
	return configWith(t, map[string]any{"image": image, "args": args})
}

func configWith(t testing.TB, block map[string]any) []byte {
	t.Helper()
	b, err := json.Marshal(block)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// subject runs the suite's program from an image.
func subject(t *testing.T) drivertest.Subject {
	program, err := os.ReadFile(drivertest.Build(t, "linux", ""))
	if err != nil {
		t.Fatal(err)
	}
	image := containerdtest.Busybox(t)
	image.Ref, image.Entrypoint = "sheaf.test/program:1", []string{"/bin/program"}
	image.Files["bin/program"] = program
	archive := "docker-archive:" + containerdtest.DockerArchive(t, image)
	return drivertest.Subject{
		New: func(t *testing.T) drivers.Driver {
			return drivertest.Hosted(t, containerd.Name, containerd.AddressVariable+"="+daemon.Address)
		},
		Config: func(t *testing.T, args ...string) []byte { return config(t, archive, args...) },
		Bad: map[string][]byte{
			"no image":            []byte(`{"args":["x"]}`),
			"a missing archive":   []byte(`{"image":"docker-archive:/nonexistent.tar"}`),
			"a malformed name":    []byte(`{"image":"UPPER CASE"}`),
			"an unknown argument": []byte(`{"image":"a","nope":1}`),
		},
		Can:   drivertest.Capabilities{Program: true, Signals: true, Mounts: true, Memory: true, Pids: true, Peak: true},
		Short: 40,
		Env:   []string{"PATH", "HOSTNAME", "HOME"},
	}
}

func TestConformance(t *testing.T) {
	s := subject(t)
	plain := s.Config
	s.Config = func(t *testing.T, args ...string) []byte {
		if args[0] != "spin" {
			return plain(t, args...)
		}
		// Go's runtime catches SIGTERM to end itself by it, which the kernel refuses to a container's
		// process 1: it exits with 2 instead. Below a shell the default action stands.
		var block map[string]any
		if err := json.Unmarshal(plain(t, args...), &block); err != nil {
			t.Fatal(err)
		}
		return configWith(t, map[string]any{"image": block["image"], "entrypoint": []string{"/bin/sh", "-c", "/bin/program spin; exit $?"}})
	}
	s.Can.Survive = true
	drivertest.Run(t, s)
}

// TestKeptConformance: in a kept container a program finds what it finds in one of its own.
func TestKeptConformance(t *testing.T) {
	s := subject(t)
	s.Share, s.Short = "a task", 0
	drivertest.Run(t, s)
}

// node is a driver with a session and busybox, which is prepared.
type node struct {
	t        testing.TB
	driver   drivers.Driver
	session  *drivertest.Session
	stateDir string
	image    string
	handle   string
	count    int
}

// busybox is an archive of busybox with the given user.
func busybox(t testing.TB, user string) string {
	image := containerdtest.Busybox(t)
	image.User = user
	return "docker-archive:" + containerdtest.DockerArchive(t, image)
}

// busyboxWithUsers has a user named worker, with the ID 1234.
func busyboxWithUsers(t testing.TB, user string) string {
	image := containerdtest.Busybox(t)
	image.User, image.Passwd = user, "root:x:0:0::/:/bin/sh\nworker:x:1234:2345::/:/bin/sh\n"
	return "docker-archive:" + containerdtest.DockerArchive(t, image)
}

// open has d take up known on a state directory, and prepare the image.
func open(t testing.TB, d drivers.Driver, stateDir, image string, known ...*driverpb.Known) (*node, []string) {
	t.Helper()
	if here, ok := d.(*containerd.Driver); ok {
		containerd.KeepContainers(here, time.Hour) // none goes for its age while a test looks
	}
	rec, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: stateDir, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, driver: d, stateDir: stateDir, image: image}
	got, err := d.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "r", ConfigJson: config(t, image, "true"), StateDir: stateDir})
	if err != nil {
		t.Fatal(err)
	}
	n.handle = got.GetHandle()
	n.session = drivertest.Open(t, d, rec.GetRunning()...)
	return n, rec.GetRunning()
}

// start is the Start of a program with arguments.
func (n *node) start(args ...string) *driverpb.Start {
	n.t.Helper()
	n.count++
	return &driverpb.Start{
		Execution: fmt.Sprintf("r.%d.1", n.count), Handle: n.handle, ConfigJson: config(n.t, n.image, args...),
		CpuMhz: 100, MemoryBytes: 64 << 20, Pids: 32, Network: "none",
	}
}

// sh is the Start of a shell script.
func (n *node) sh(script string) *driverpb.Start {
	n.t.Helper()
	return n.start("/bin/sh", "-c", script)
}

func wantExit(t testing.TB, r *drivertest.Result, code int32) {
	t.Helper()
	if x := r.Exited; x.GetExitCode() != code || x.GetSignal() != "" || x.GetNotStarted() || x.GetError() != "" {
		t.Errorf("exited = %v, want exit code %d; stdout %q, stderr %q", x, code, r.Stdout, r.Stderr)
	}
}
