package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/sheaf"
)

// ticking counts aloud until SIGUSR1, and then exits with 7. Another run of it would begin with 0 again.
const ticking = `trap 'echo bye; exit 7' USR1; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.01; done`

// ticks are the numbers that were counted, which must follow each other.
func ticks(t *testing.T, stdout string) (first, last int) {
	t.Helper()
	first, last = -1, -1
	lines := strings.Split(stdout, "\n")
	for i, line := range lines {
		text, ok := strings.CutPrefix(line, "tick ")
		if !ok || i == len(lines)-1 {
			continue // a first or last line may be half of one
		}
		n, err := strconv.Atoi(text)
		if err != nil || first >= 0 && n != last+1 {
			t.Fatalf("%q after tick %d: %v", line, last, err)
		}
		if first < 0 {
			first = n
		}
		last = n
	}
	return first, last
}

// TestKilledDaemon: containers run and print on without the daemon. What ends meanwhile is
// told with its exit code when the daemon is back; what is stopped or started meanwhile waits for it.
func TestKilledDaemon(t *testing.T) {
	own, err := containerdtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(containerd.AddressVariable, own.Address)
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	on, ends := n.sh(ticking), n.sh(`trap 'echo gone; exit 9' USR1; echo ready; while :; do sleep 0.01; done`)
	n.session.Start(on)
	n.session.Start(ends)
	n.session.Printed(on.GetExecution(), "tick 3\n")
	n.session.Printed(ends.GetExecution(), "ready")
	pid := pidOf(t, own, containerID(n, ends))

	own.Kill()
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	n.session.Printed(ends.GetExecution(), "gone")
	_, last := ticks(t, n.session.Stdout(on.GetExecution()))
	n.session.Printed(on.GetExecution(), fmt.Sprintf("tick %d\n", last+10))
	n.session.Stop(on.GetExecution(), "SIGUSR1", long)
	late := n.sh("exit 4")
	n.session.Start(late)

	if err := own.Run(); err != nil {
		t.Fatal(err)
	}
	wantExit(t, n.session.Wait(ends.GetExecution()), 9)
	wantExit(t, n.session.Wait(late.GetExecution()), 4)
	r := n.session.Wait(on.GetExecution())
	wantExit(t, r, 7)
	if first, _ := ticks(t, string(r.Stdout)); first != 0 || !strings.HasSuffix(string(r.Stdout), "bye\n") {
		t.Errorf("it printed %q", r.Stdout)
	}
}

// TestKilledDriver: another driver process takes up the same containers, with their output,
// also one that has ended since; one that the client does not know is ended.
func TestKilledDriver(t *testing.T) {
	hosted := func() *node {
		n, _ := open(t, drivertest.Hosted(t, containerd.Name, containerd.AddressVariable+"="+daemon.Address), t.TempDir(), busybox(t, ""))
		return n
	}
	n := hosted()
	on, ended, stray := n.sh(ticking), n.sh(ticking), n.sh(ticking)
	var pids []int
	for _, start := range []*driverpb.Start{on, ended, stray} {
		n.session.Start(start)
		n.session.Printed(start.GetExecution(), "tick 3\n")
		pids = append(pids, pidOf(t, daemon, containerID(n, start)))
	}
	host := n.driver.(interface{ Pid() int })
	if err := syscall.Kill(host.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := n.session.Cancel(); err == nil {
		t.Error("Execute ended well with its process killed")
	}
	_, last := ticks(t, n.session.Stdout(on.GetExecution()))
	if err := syscall.Kill(pids[1], syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the second", func() bool { return dead(pids[1]) })

	known := []*driverpb.Known{{Execution: on.GetExecution()}, {Execution: ended.GetExecution(), State: []byte("garbage")}, {Execution: "never.0.1"}}
	second, running := open(t, drivertest.Hosted(t, containerd.Name, containerd.AddressVariable+"="+daemon.Address), n.stateDir, n.image, known...)
	slices.Sort(running)
	if want := []string{on.GetExecution(), ended.GetExecution()}; !slices.Equal(running, want) {
		t.Fatalf("running = %q, want %q", running, want)
	}
	if !dead(pids[2]) {
		t.Error("the unknown one still runs")
	}
	wantExit(t, second.session.Wait(ended.GetExecution()), 7)
	second.session.Printed(on.GetExecution(), "tick")
	if dead(pids[0]) {
		t.Error("the known one is another process")
	}
	second.session.Stop(on.GetExecution(), "SIGUSR1", long)
	r := second.session.Wait(on.GetExecution())
	wantExit(t, r, 7)
	if first, to := ticks(t, string(r.Stdout)); first <= last-1 || to < first {
		t.Errorf("ticks %d to %d after %d", first, to, last)
	}
}

// TestNoDaemon: without a daemon the driver says so at once, recovers when there is nothing to
// recover, and does not claim that something known is gone.
func TestNoDaemon(t *testing.T) {
	stale := t.TempDir() + "/stale.sock"
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: stale}) // nobody listens
	}
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for _, address := range []string{t.TempDir() + "/none.sock", stale} {
		t.Setenv(containerd.AddressVariable, address)
		var d drivers.Driver = containerd.New()
		fp, err := d.Fingerprint(t.Context())
		if err != nil || fp.GetHealthy() || !strings.Contains(fp.GetReason(), address) {
			t.Errorf("%s: fingerprint = %v, %v", address, fp, err)
		}
		if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir(), Known: []*driverpb.Known{{Execution: "x.0.1"}}}); sheaf.ClassOf(err) != sheaf.Unavailable {
			t.Errorf("%s: recover of something = %v", address, err)
		}
		if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
			t.Errorf("%s: recover of nothing = %v", address, err)
		}
		if _, err := d.Prepare(t.Context(), &driverpb.PrepareRequest{ConfigJson: config(t, "docker.io/library/x")}); sheaf.ClassOf(err) != sheaf.Unavailable {
			t.Errorf("%s: prepare = %v", address, err)
		}
	}
}

// dead reports whether a process is over; a zombie that nobody waits for counts as that, but not while others of its threads live.
func dead(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		text, readErr := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(text), ") ")
		if readErr == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
			return false
		}
	}
	return err == nil
}
