package containerd_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// kept is a Start that may share its container with others of the same limits.
func (n *node) kept(script string) *driverpb.Start {
	n.t.Helper()
	start := n.sh(script)
	start.Share = "a task"
	return start
}

// keptContainers are the containers that a node keeps for sharing.
func keptContainers(n *node) []string {
	n.t.Helper()
	conn, ctx := dial(n.t, daemon)
	list, err := conn.ContainerService().List(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	owner := containerd.Owner(n.driver.(*containerd.Driver))
	var ids []string
	for _, c := range list {
		if c.Labels["run.sheaf/owner"] == owner {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// busyboxWithProgram has the suite's program too.
func busyboxWithProgram(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(drivertest.Build(t, "linux", ""))
	if err != nil {
		t.Fatal(err)
	}
	image := containerdtest.Busybox(t)
	image.Files["bin/program"] = program
	return "docker-archive:" + containerdtest.DockerArchive(t, image)
}

func killPid(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// TestKeptContainer: executions of the same kind follow each other in one container, and nothing is
// left of it at the end of the stream.
func TestKeptContainer(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	var before []string
	for i := range 20 {
		r := n.session.Run(n.kept(fmt.Sprintf("readlink /proc/self/ns/pid; echo $$ >&2; exit %d", i)))
		wantExit(t, r, int32(i))
		if string(r.Stderr) == "1\n" {
			t.Error("it is process 1")
		}
		if i == 0 {
			before = keptContainers(n)
		}
	}
	if now := keptContainers(n); len(before) != 1 || !slices.Equal(now, before) {
		t.Errorf("kept are %q, at first %q", now, before)
	}
	other := n.kept("true")
	other.Share = "another task"
	wantExit(t, n.session.Run(other), 0)
	if now := keptContainers(n); len(now) != 2 || !slices.Contains(now, before[0]) {
		t.Errorf("with another task %q are kept, before it %q", now, before)
	}
	if err := n.session.Close(); err != nil {
		t.Fatal(err)
	}
	if left := keptContainers(n); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	for what, pattern := range map[string]string{"cgroup": "/sys/fs/cgroup/*/sheaf-containers/" + before[0], "socket": filepath.Join(n.stateDir, "containerd", before[0]+"*")} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("%s is left: %q", what, left)
		}
	}
}

// TestKeptConfinement looks around in a kept container: what is denied to a program in a
// container of its own is denied here, and its supervisor with it.
func TestKeptConfinement(t *testing.T) {
	for _, user := range []string{"", "1234", "2147483647"} {
		t.Run("user "+user, func(t *testing.T) {
			n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, user))
			r := n.session.Run(n.kept(`
				grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
				echo user $(id -u) of groups $(id -G)
				echo interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1)
				for f in /x /bin/x /etc/x /sys/x /dev/x /proc/sys/kernel/hostname /proc/1/oom_score_adj; do (echo 900 > $f) 2>/dev/null && echo wrote $f; done
				mkdir -p /mnt 2>/dev/null && echo made /mnt
				mount -t tmpfs none /tmp 2>/dev/null && echo mounted
				busybox umount /tmp 2>/dev/null && echo unmounted
				mknod /tmp/null c 1 3 2>/dev/null && echo made a device
				chroot / true 2>/dev/null && echo changed the root
				unshare -U true 2>/dev/null && echo made a user namespace
				busybox nsenter -t 1 -m true 2>/dev/null && echo entered
				for f in environ maps mem root/etc/passwd fd/3 exe cwd/bin; do head -c 1 /proc/1/$f >/dev/null 2>&1 && echo read /proc/1/$f; done
				ls /proc/1/fd 2>/dev/null | grep -q . && echo read its files
				busybox renice 19 -p 1 >/dev/null 2>&1 && echo changed its priority
				busybox chrt -b -p 0 1 >/dev/null 2>&1 && echo changed its scheduling
				for s in TERM QUIT INT SEGV STOP KILL; do kill -$s 1 2>/dev/null && echo signalled $s; done
				find / -xdev -name '*sheaf*' -o -xdev -name agent 2>/dev/null
				ls -A /run /tmp /dev/shm
				echo processes: $(ls -d /proc/[0-9]* | wc -l)
				echo x > /tmp/x && cat /tmp/x
			`))
			out := string(r.Stdout)
			for _, want := range []string{
				`(?m)^CapInh:\s0+$`, `(?m)^CapPrm:\s0+$`, `(?m)^CapEff:\s0+$`, `(?m)^CapBnd:\s0+$`, `(?m)^CapAmb:\s0+$`,
				`(?m)^NoNewPrivs:\s1$`, `(?m)^Seccomp:\s2$`, `(?m)^interfaces: lo$`, `(?m)^x$`, `(?m)^user ` + cmp.Or(user, "0") + ` `,
				`(?m)^/run:\n\n/tmp:$|(?m)^/dev/shm:\n\n/run:\n\n/tmp:$`,
			} {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("%s is missing in\n%s", want, out)
				}
			}
			if found := regexp.MustCompile(`(?m)^(wrote|made|mounted|unmounted|changed|entered|read|signalled|/.*(agent|sheaf)) ?.*$`).FindAllString(out, -1); found != nil {
				t.Errorf("it could do what it must not: %q", found)
			}
			if !regexp.MustCompile(`processes: [1-9]\n`).MatchString(out) {
				t.Errorf("it sees the processes of others:\n%s", out)
			}
			wantExit(t, r, 0)
			// The supervisor is there for the next one.
			wantExit(t, n.session.Run(n.kept("exit 5")), 5)
		})
	}
}

// hostile are programs that try to be known to whoever comes after them, and whether
// their container may be used again.
var hostile = []struct {
	name, script string
	reused       bool
}{
	{"files in memory", `for d in /tmp /run /dev/shm; do echo x > $d/x; mkdir $d/d; busybox chmod 700 $d/d; done; ln -s /etc /tmp/etc`, true},
	{"rights of its directories", `busybox chmod 700 /tmp /run /dev/shm`, true},
	{"a process", `sleep 1000 &`, false},
	{"a process that got away", `busybox setsid sh -c 'trap "" TERM HUP; sleep 1000' >/dev/null 2>&1 &`, false},
	{"a process that holds its files", `cd /out; busybox setsid sleep 1000 > /out/held &`, false},
	{"shared memory", `program leave shm`, false},
	{"semaphores", `program leave sem`, false},
	{"a message queue", `program leave msg`, false},
	{"a POSIX message queue", `program leave queue`, false},
	{"a connection", `program leave connection`, false},
	{"flags of its output", `program leave nonblocking`, true},
	{"its supervisor attacked", `test -z "$(program attack)"`, true},
	{"a killed supervisor", `kill -9 1; true`, true},
	{"a fork bomb", `f() { f | f & }; f; sleep 0.2; exit 1`, false},
	{"too much memory", `head -c 200m /dev/zero | tail > /dev/null`, false},
	{"too much memory in files", `head -c 200m /dev/zero > /tmp/big`, false},
	{"links out of its output", `ln -s / /out/root; ln -s /etc/passwd /out/passwd; ln -s ../../../../etc /out/up`, true},
	{"an input that is written", `echo x > /in/a; rm -rf /in/a /in; true`, true},
	{"its supervisor's settings", `echo 1000 > /proc/1/oom_score_adj; echo 0 > /proc/1/coredump_filter; true`, true},
	{"limits", `ulimit -n 5; ulimit -f 1; umask 777; cd /proc`, true},
}

// TestKeptHostile: whatever a program does, the next one finds a container as new: in its files,
// processes, directories and limits, and with files of its own alone.
func TestKeptHostile(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busyboxWithProgram(t))
	in, out := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "a"), []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	with := func(script string) *driverpb.Start {
		start := n.kept(script)
		dir := filepath.Join(out, fmt.Sprint(count.Add(1)))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		start.Mounts = []*driverpb.Mount{{Source: in, Target: "/in", ReadOnly: true}, {Source: dir, Target: "/out"}}
		return start
	}
	look := `ls -lnd /tmp /run /dev/shm | cut -c 1-10
		ls -A /tmp /run /dev/shm /out
		cat /in/a; echo; ulimit -n; ulimit -f; umask; pwd; tail -n +2 /proc/sysvipc/shm
		set -- /proc/[0-9]*; echo $#; cat /proc/self/oom_score_adj /proc/self/coredump_filter; echo y > /out/y && echo z > /tmp/z && cat /out/y`
	first := n.session.Run(with(look))
	wantExit(t, first, 0)
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			n.session.On(t)
			wantExit(t, n.session.Run(with(look)), 0)
			before := keptContainers(n)
			r := n.session.Run(with(h.script))
			if x := r.Exited; x.GetNotStarted() || h.reused && x.GetExitCode() != 0 {
				t.Errorf("exited = %v, stdout %q, stderr %q", x, r.Stdout, r.Stderr)
			}
			after := n.session.Run(with(look))
			now := keptContainers(n)
			wantExit(t, after, 0)
			if string(after.Stdout) != string(first.Stdout) {
				t.Errorf("the next one finds\n%s\nthe first found\n%s", after.Stdout, first.Stdout)
			}
			if made := slices.ContainsFunc(now, func(id string) bool { return !slices.Contains(before, id) }); made == h.reused {
				t.Errorf("another container: %v, want %v; it exited %v, stderr %q", made, !h.reused, r.Exited, r.Stderr)
			}
		})
	}
	n.session.On(t)
	if got, err := os.ReadFile(filepath.Join(in, "a")); err != nil || string(got) != "input" {
		t.Errorf("the input holds %q, %v", got, err)
	}
	if files, err := os.ReadDir(in); err != nil || len(files) != 1 {
		t.Errorf("the input's directory holds %v, %v", files, err)
	}
}

// TestKeptContainerIsKilled: a container that ends under its program is told as that and replaced.
func TestKeptContainerIsKilled(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	start := n.kept("echo ready; sleep 1000")
	n.session.Start(start)
	n.session.Printed(start.GetExecution(), "ready")
	kill := func() {
		ids := keptContainers(n)
		if len(ids) != 1 {
			t.Fatalf("kept are %q", ids)
		}
		pid := pidOf(t, daemon, ids[0])
		if err := killPid(pid); err != nil {
			t.Fatal(err)
		}
		await(t, "the container's end", func() bool { return dead(pid) })
	}
	kill()
	if x := n.session.Wait(start.GetExecution()).Exited; x.GetSignal() != "SIGKILL" || x.GetError() == "" || x.GetNotStarted() {
		t.Errorf("exited = %v, want that its container ended", x)
	}
	wantExit(t, n.session.Run(n.kept("exit 3")), 3)
	kill() // while it runs nothing
	wantExit(t, n.session.Run(n.kept("exit 4")), 4)
}

// TestKeptContainerEndsWithItsDriver: a driver that is killed takes its kept containers with
// it, and the next one removes what is left of them.
func TestKeptContainerEndsWithItsDriver(t *testing.T) {
	hosted := func() *node {
		n, _ := open(t, drivertest.Hosted(t, containerd.Name, containerd.AddressVariable+"="+daemon.Address), t.TempDir(), busybox(t, ""))
		return n
	}
	n := hosted()
	start := n.kept(ticking)
	n.session.Start(start)
	n.session.Printed(start.GetExecution(), "tick 3\n")
	d := containerd.New()
	if err := containerd.Settle(d, n.stateDir); err != nil {
		t.Fatal(err)
	}
	byOwner := &node{t: t, driver: d, stateDir: n.stateDir}
	ids := keptContainers(byOwner)
	if len(ids) != 1 {
		t.Fatalf("kept are %q", ids)
	}
	pid := pidOf(t, daemon, ids[0])
	if err := killPid(n.driver.(interface{ Pid() int }).Pid()); err != nil {
		t.Fatal(err)
	}
	_ = n.session.Cancel() // its error is the process' end
	await(t, "the container's end", func() bool { return dead(pid) })
	known := &driverpb.Known{Execution: start.GetExecution()}
	second, running := open(t, containerd.New(), n.stateDir, n.image, known)
	if len(running) != 0 {
		t.Errorf("recovered %q: what shares a container cannot be", running)
	}
	if left := keptContainers(second); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	wantExit(t, second.session.Run(second.kept("exit 6")), 6)
}

// TestKeptUser: in a kept container too an image's user owns the outputs and the scratch directory and reads its
// secrets, wherever they are mounted, and finds no more than its own of each.
func TestKeptUser(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busyboxWithUsers(t, "worker"))
	for i := range 3 {
		own := fmt.Sprint("of ", i)
		out, in, scratch, secret := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
		for _, dir := range []string{in, secret} {
			if err := os.WriteFile(filepath.Join(dir, "a"), []byte(own), 0o400); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Chmod(secret, 0o500), os.Chmod(filepath.Join(in, "a"), 0o444)); err != nil {
			t.Fatal(err)
		}
		start := n.kept("id -u; id -g; echo $HOME; ls -A /tmp; cat /in/a /tmp/s/a /file > /out/a && echo x > /tmp/x; echo y > /in/y; echo z > /z; true")
		start.Mounts = []*driverpb.Mount{
			{Source: in, Target: "/in", ReadOnly: true}, {Source: out, Target: "/out"}, {Source: filepath.Join(in, "a"), Target: "/file", ReadOnly: true},
			{Source: secret, Target: "/tmp/s", ReadOnly: true, Secret: true},
		}
		if i > 0 { // the first one's /tmp is in memory
			start.WorkDir = scratch
		}
		r := n.session.Run(start)
		wantExit(t, r, 0)
		if string(r.Stdout) != "1234\n2345\n/\ns\n" || strings.Count(string(r.Stderr), "Read-only file system") != 2 {
			t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
		}
		if got, err := os.ReadFile(filepath.Join(out, "a")); err != nil || string(got) != own+own+own {
			t.Errorf("the output holds %q, %v", got, err)
		}
		if got, err := os.ReadFile(filepath.Join(scratch, "x")); i > 0 && (err != nil || string(got) != "x\n") {
			t.Errorf("the scratch directory holds %q, %v", got, err)
		}
	}
	if now := keptContainers(n); len(now) != 1 {
		t.Errorf("kept are %q", now)
	}
}

// TestKeptHostNetwork: what goes on in the host's network does not speak against a container.
func TestKeptHostNetwork(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		start := n.kept("readlink /proc/self/ns/net")
		start.Network = "host"
		if r := n.session.Run(start); string(r.Stdout) != own+"\n" {
			t.Errorf("it has %q, the host %s", r.Stdout, own)
		}
	}
	if now := keptContainers(n); len(now) != 1 {
		t.Errorf("kept are %q", now)
	}
}

// TestKeptCannotStart: what cannot be started says why, as from a container of its own.
func TestKeptCannotStart(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	for command, want := range map[string]string{"/no/such": "no such file", "nosuch": "not found in $PATH", "/etc": "permission denied"} {
		start := n.start(command)
		start.Share = "a task"
		x := n.session.Run(start).Exited
		if !x.GetNotStarted() || !strings.HasPrefix(x.GetError(), `exec: "`+command) || !strings.Contains(x.GetError(), want) {
			t.Errorf("%s: %v", command, x)
		}
	}
	start := n.kept("true")
	start.Mounts = []*driverpb.Mount{{Source: "/nonexistent", Target: "/in"}}
	if x := n.session.Run(start).Exited; !x.GetNotStarted() || !strings.Contains(x.GetError(), "/nonexistent") {
		t.Errorf("without its input: %v", x)
	}
	wantExit(t, n.session.Run(n.kept("exit 3")), 3)
}
