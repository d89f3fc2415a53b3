package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// TestConfinement looks around from inside a container.
func TestConfinement(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	r := n.session.Run(n.sh(`
		grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
		echo interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1)
		for f in /x /bin/x /etc/x /sys/x /proc/sys/kernel/hostname; do (echo x > $f) 2>/dev/null && echo wrote $f; done
		mkdir -p /mnt 2>/dev/null && echo made /mnt
		mount -t tmpfs none /tmp 2>/dev/null && echo mounted
		mknod /tmp/null c 1 3 2>/dev/null && echo made a device
		chroot / true 2>/dev/null && echo changed the root
		unshare -U true 2>/dev/null && echo made a user namespace
		cat /proc/kcore 2>/dev/null | head -c 1 | wc -c | grep -v '^0' && echo read memory
		echo processes: $(ls -d /proc/[0-9]* | wc -l)
		echo x > /tmp/x && cat /tmp/x
		echo files: $(ulimit -Sn) $(ulimit -Hn)
	`))
	out := string(r.Stdout)
	for _, want := range []string{
		`(?m)^CapInh:\s0+$`, `(?m)^CapPrm:\s0+$`, `(?m)^CapEff:\s0+$`, `(?m)^CapBnd:\s0+$`, `(?m)^CapAmb:\s0+$`,
		`(?m)^NoNewPrivs:\s1$`, `(?m)^Seccomp:\s2$`, `(?m)^interfaces: lo$`, `(?m)^x$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
	if found := regexp.MustCompile(`(?m)^(wrote|made|mounted|changed|read) ?.*$`).FindAllString(out, -1); found != nil {
		t.Errorf("it could do what it must not: %q", found)
	}
	if !regexp.MustCompile(`processes: [1-9]\n`).MatchString(out) {
		t.Errorf("it sees the processes of others:\n%s", out)
	}
	var ours unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &ours); err != nil {
		t.Fatal(err)
	}
	if files := min(ours.Max, 1<<20); !strings.Contains(out, fmt.Sprintf("files: %d %d\n", files, files)) {
		t.Errorf("it may not open %d files:\n%s", files, out)
	}
	wantExit(t, r, 0)
}

// TestHostNetwork: only a job that asks for the host's network has it.
func TestHostNetwork(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	start := n.sh("readlink /proc/self/ns/net; cat /etc/hosts")
	start.Network = "host"
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	r := n.session.Run(start)
	wantExit(t, r, 0)
	if got := string(r.Stdout); got != own+"\n"+string(hosts) {
		t.Errorf("it has %q, the host %s and %q", got, own, hosts)
	}
}

// TestUser: an image's user, by number or name, owns the outputs and the scratch
// directory, and may write nowhere else.
func TestUser(t *testing.T) {
	for _, user := range []string{"1234:2345", "1234", "worker"} {
		t.Run(user, func(t *testing.T) {
			image := busyboxWithUsers(t, user)
			n, _ := open(t, containerd.New(), t.TempDir(), image)
			out, in, scratch := t.TempDir(), t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(in, "a"), []byte("input"), 0o644); err != nil {
				t.Fatal(err)
			}
			start := n.sh("id -u; cat /in/a > /out/a && echo x > /tmp/x; echo y > /in/y; echo z > /z; true")
			start.Mounts = []*driverpb.Mount{{Source: in, Target: "/in", ReadOnly: true}, {Source: out, Target: "/out"}}
			start.WorkDir = scratch
			r := n.session.Run(start)
			wantExit(t, r, 0)
			if string(r.Stdout) != "1234\n" || strings.Count(string(r.Stderr), "Read-only file system") != 2 {
				t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
			}
			for path, want := range map[string]string{filepath.Join(out, "a"): "input", filepath.Join(scratch, "x"): "x\n"} {
				if got, err := os.ReadFile(path); err != nil || string(got) != want {
					t.Errorf("%s holds %q, %v", path, got, err)
				}
			}
		})
	}
	if _, err := prepare(t, busyboxWithUsers(t, "nobody-of-that-name")); err == nil || !strings.Contains(err.Error(), "user") {
		t.Errorf("prepare with an unknown user = %v", err)
	}
}
