package wasm

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// probeModule builds testdata/probe for wasip1.
func probeModule(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "probe.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/probe")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustWrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each wall must hold alone: guestfs where the kernel has no Landlock, too.
func unconfined(s *stand) { s.driver.pool.area = nil }

func TestMounts(t *testing.T) {
	t.Run("confined", func(t *testing.T) { testMounts(t, newStand(t, Options{})) })
	t.Run("by guestfs alone", func(t *testing.T) {
		s := newStand(t, Options{})
		unconfined(s)
		testMounts(t, s)
	})
}

func testMounts(t *testing.T, s *stand) {
	base := filepath.Dir(s.state)
	in, in2, out, secret := base+"/exec/in", base+"/exec/in2", base+"/exec/out", base+"/secret"
	mustWrite(t, in+"/a.txt", "of the input")
	mustWrite(t, in2+"/sub/b.txt", "second")
	mustWrite(t, secret, "of the host")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	probe := s.start(probeModule(t))
	run := func(mounts []*driverpb.Mount, args ...string) string {
		t.Helper()
		start := s.again(probe)
		start.ConfigJson, start.Mounts = configOf(t, "/probe.wasm", args...), mounts
		r := s.Run(start)
		if r.Exited.ExitCode != 0 || r.Exited.Signal != "" {
			t.Fatalf("%v: exited = %v, stderr %q", args, r.Exited, r.Stderr)
		}
		return string(r.Stdout)
	}
	all := []*driverpb.Mount{
		{Source: in, Target: "/input_images/volume1", ReadOnly: true},
		{Source: in2, Target: "/input_images/volume2", ReadOnly: true},
		{Source: out, Target: "/output_images"},
		{Source: secret, Target: "/sheaf/shard.jsonl", ReadOnly: true},
	}
	tree := "/input_images true\n/input_images/volume1 true\n/input_images/volume1/a.txt false\n" +
		"/input_images/volume2 true\n/input_images/volume2/sub true\n/input_images/volume2/sub/b.txt false\n" +
		"/output_images true\n/sheaf true\n/sheaf/shard.jsonl false\n"
	if got := run(all, "names", "/"); got != tree {
		t.Errorf("the tree is\n%swant\n%s", got, tree)
	}
	if got := run(nil, "names", "/"); got != "" {
		t.Errorf("without mounts the tree is\n%s", got)
	}
	if got := run(all, "links", "/sheaf"); got != "shard.jsonl \"of the host\" false\n" {
		t.Errorf("a mounted file reads as %q", got)
	}
	nested := []*driverpb.Mount{{Source: in, Target: "/", ReadOnly: true}, {Source: out, Target: "/made/out"}, {Source: in2, Target: "/made"}}
	if got, want := run(nested, "names", "/"), "/a.txt false\n/made true\n/made/out true\n/made/sub true\n/made/sub/b.txt false\n"; got != want {
		t.Errorf("nested mounts are\n%swant\n%s", got, want)
	}
	if got := run(all, "files", "/output_images"); got != "" {
		t.Errorf("file calls: %s", got)
	}

	got := run(all, "escape", "/output_images", "/input_images/volume1/a.txt", "/etc/shadow", secret)
	if got != "" {
		t.Errorf("a way out: %s", got)
	}
	if b, _ := os.ReadFile(secret); string(b) != "of the host" {
		t.Errorf("the host's file is now %q", b)
	}
}

// What the host left in a mount leads no guest out of it either.
func TestLinksOfTheHost(t *testing.T) {
	s := newStand(t, Options{})
	unconfined(s)
	base := filepath.Dir(s.state)
	mustWrite(t, base+"/secret", "of the host")
	mustWrite(t, base+"/exec/in/real", "inside")
	for name, to := range map[string]string{
		"absolute": base + "/secret", "dots": "../../secret", "fine": "real", "loop": "loop", "dangling": "none", "proc": "/proc/self/environ",
	} {
		if err := os.Symlink(to, base+"/exec/in/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(base+"/exec/in/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	start := s.start(probeModule(t), "links", "/in")
	start.Mounts = []*driverpb.Mount{{Source: base + "/exec/in", Target: "/in", ReadOnly: true}}
	want := []string{`absolute "" true`, `dangling "" true`, `dots "" true`, `fifo "" true`, `fine "inside" false`, `loop "" true`, `proc "" true`, `real "inside" false`}
	if got := strings.Split(strings.TrimSpace(string(s.Run(start).Stdout)), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("reads\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Executions staged side by side share workers, although each worker is confined.
func TestConfinedWorkersAreReused(t *testing.T) {
	s := newStand(t, Options{Lanes: 1})
	base := filepath.Dir(s.state)
	start := s.start(noop)
	pids := map[int]bool{}
	for _, name := range []string{"one", "two", "three", "four", "five", "six"} {
		mustWrite(t, base+"/stage/"+name+"/in/a", "")
		mustWrite(t, base+"/runs/"+name+"/out/b", "")
		next := s.again(start)
		next.Mounts = []*driverpb.Mount{
			{Source: base + "/stage/" + name + "/in", Target: "/in", ReadOnly: true},
			{Source: base + "/runs/" + name + "/out", Target: "/out"},
		}
		if x := s.Run(next).Exited; x.ExitCode != 0 || x.NotStarted {
			t.Fatalf("exited = %v", x)
		}
		waitFor(t, "the worker idles", func() bool {
			s.driver.pool.mu.Lock()
			defer s.driver.pool.mu.Unlock()
			for _, c := range s.driver.pool.idle {
				pids[c.cmd.Process.Pid] = true
			}
			return len(s.driver.pool.idle) > 0
		})
	}
	if len(pids) > 3 {
		t.Errorf("%d workers for six executions, want 3 at most", len(pids))
	}
}

// Names are bytes: a guest sees them as they are.
func TestHostileNames(t *testing.T) {
	s := newStand(t, Options{})
	in := filepath.Dir(s.state) + "/exec/in"
	names := []string{" lead", "$HOME", "*", "-rf", ".hidden", "c:\\d", "new\nline", "quote\"s'", strings.Repeat("n", 250), "tab\t", "é", "\xff\xfe"}
	slices.Sort(names) // as Go's ReadDir gives them
	var want strings.Builder
	for _, n := range names {
		mustWrite(t, in+"/"+n, "x")
		want.WriteString("/in/" + n + " false\n")
	}
	start := s.start(probeModule(t), "names", "/in")
	start.Mounts = []*driverpb.Mount{{Source: in, Target: "/in", ReadOnly: true}}
	if got := string(s.Run(start).Stdout); got != want.String() {
		t.Errorf("sees %q, want %q", got, want.String())
	}
}

// An input cannot be changed by any call, not even through a descriptor.
func TestInputsStay(t *testing.T) {
	s := newStand(t, Options{})
	in := filepath.Dir(s.state) + "/exec/in"
	mustWrite(t, in+"/a", "as it was")
	before, err := os.Stat(in + "/a")
	if err != nil {
		t.Fatal(err)
	}
	start := s.start(goModule(t), "tamper", "/in", "a")
	start.Mounts = []*driverpb.Mount{{Source: in, Target: "/in", ReadOnly: true}}
	if got := string(s.Run(start).Stdout); got != "" {
		t.Errorf("the guest could %s", got)
	}
	after, err := os.Stat(in + "/a")
	if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		t.Errorf("the input is now %v, %v", after, err)
	}
	if entries, _ := os.ReadDir(in); len(entries) != 1 {
		t.Errorf("the input directory holds %v", entries)
	}
}

// One guest's refused memory is its own affair.
func TestMemoryOfNeighbours(t *testing.T) {
	s := newStand(t, Options{Lanes: 2})
	neighbour := s.start(goModule(t), "sleep", "3600")
	s.Start(neighbour)
	s.Printed(neighbour.Execution, "ready")
	grow := s.again(neighbour)
	grow.ConfigJson = configOf(t, "/program.wasm", "grow", "256")
	if x := s.Run(grow).Exited; !x.OutOfMemory || x.ExitCode != 2 || x.PeakMemoryBytes > 32<<20 {
		t.Errorf("exited = %v, want Go's own exit code 2 and out of memory", x)
	}
	s.Stop(neighbour.Execution, "", 0)
	if x := s.Wait(neighbour.Execution).Exited; x.OutOfMemory || x.Signal != "SIGKILL" {
		t.Errorf("the neighbour exited = %v", x)
	}
}
