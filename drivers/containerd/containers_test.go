package containerd_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// patience is how long something outside of the test is waited for.
const patience = time.Minute

// dial gives a connection to a daemon and a context in the driver's namespace.
func dial(t testing.TB, d *containerdtest.Daemon) (*client.Client, context.Context) {
	t.Helper()
	conn, err := client.New(d.Address, client.WithTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, namespaces.WithNamespace(t.Context(), "sheaf")
}

// containerID is how the driver of a node's state directory names a container.
func containerID(n *node, start *driverpb.Start) string {
	n.t.Helper()
	d := containerd.New()
	if err := containerd.Settle(d, n.stateDir); err != nil {
		n.t.Fatal(err)
	}
	return d.ContainerID(start.GetExecution())
}

func pidOf(t testing.TB, d *containerdtest.Daemon, container string) int {
	t.Helper()
	conn, ctx := dial(t, d)
	c, err := conn.LoadContainer(ctx, container)
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return int(task.Pid())
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

// TestNothingIsLeft runs forty containers, eight at once, and looks for anything of them.
func TestNothingIsLeft(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	const count, atOnce = 40, 8
	starts := make(chan *driverpb.Start, count)
	ours := map[string]bool{}
	for range count {
		start := n.sh("echo out; echo err >&2; exit 3")
		ours[containerID(n, start)] = true
		starts <- start
	}
	close(starts)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for start := range starts {
				r := n.session.Run(start)
				wantExit(t, r, 3)
				if string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
					t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
				}
			}
		})
	}
	workers.Wait()
	if err := n.session.Close(); err != nil {
		t.Fatal(err)
	}

	isOurs := func(name string) bool {
		for id := range ours {
			if strings.Contains(name, id) {
				return true
			}
		}
		return false
	}
	left := func(what, name string) {
		if isOurs(name) {
			t.Errorf("%s is left: %s", what, name)
		}
	}
	conn, ctx := dial(t, daemon)
	list, err := conn.ContainerService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		left("container", c.ID)
	}
	if err := conn.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		left("snapshot", info.Name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for what, pattern := range map[string]string{
		"cgroup": "/sys/fs/cgroup/*/sheaf-containers/*",
		"pipe":   filepath.Join(n.stateDir, "containerd", "*"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			left(what, name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	left("mount", string(mounts))
	shims, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range shims {
		// A shim that has said that it goes may take a moment to be gone.
		await(t, "the end of the shims", func() bool {
			text, err := os.ReadFile(path)
			return err != nil || !strings.Contains(string(text), "shim") || !isOurs(string(text))
		})
	}
}

// TestTwoDrivers: a driver that comes up anew ends what is left of its own state
// directory and of no other, though the executions have the same names.
func TestTwoDrivers(t *testing.T) {
	image := busybox(t, "")
	one, _ := open(t, containerd.New(), t.TempDir(), image)
	two, _ := open(t, containerd.New(), t.TempDir(), image)
	first, second := one.sh(ticking), two.sh(ticking)
	if first.GetExecution() != second.GetExecution() {
		t.Fatal("the executions have different names")
	}
	one.session.Start(first)
	two.session.Start(second)
	one.session.Printed(first.GetExecution(), "tick 3\n")
	two.session.Printed(second.GetExecution(), "tick 3\n")
	pid := pidOf(t, daemon, containerID(two, second))
	_ = two.session.Cancel() // its error is the context's
	if dead(pid) {
		t.Error("the container ended with its session")
	}
	open(t, containerd.New(), two.stateDir, image)
	if !dead(pid) {
		t.Error("what nobody knows of still runs")
	}
	one.session.Stop(first.GetExecution(), "SIGUSR1", long)
	wantExit(t, one.session.Wait(first.GetExecution()), 7)
}
