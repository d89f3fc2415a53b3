package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The machine of the tests is a v1 or hybrid one, so v2's files are stood in
// for by plain ones where they hold what a kernel would write.
func TestFilesOfV2(t *testing.T) {
	mount := t.TempDir()
	area := filepath.Join(mount, root, "me")
	group := filepath.Join(area, "g")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		filepath.Join(mount, "cgroup.controllers"):           "cpuset cpu io memory pids\n",
		filepath.Join(mount, "cgroup.subtree_control"):       "",
		filepath.Join(mount, root, "cgroup.subtree_control"): "",
		filepath.Join(area, "cgroup.subtree_control"):        "",
		filepath.Join(group, "cgroup.procs"):                 "",
		filepath.Join(group, "memory.max"):                   "max\n",
		filepath.Join(group, "memory.swap.max"):              "max\n",
		filepath.Join(group, "memory.current"):               "1000\n",
		filepath.Join(group, "memory.peak"):                  "1000\n",
		filepath.Join(group, "memory.events"):                "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\n",
		filepath.Join(group, "pids.max"):                     "max\n",
		filepath.Join(group, "pids.current"):                 "0\n",
		filepath.Join(group, "pids.events"):                  "max 4\n",
		filepath.Join(group, "cpu.weight"):                   "100\n",
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := unifiedTree(mount)
	if tree.Version() != 2 || len(tree.mounts) != 3 {
		t.Fatalf("tree = %+v", tree)
	}
	a, err := tree.Area("me")
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Group("g")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Limit(Limits{Memory: 64 << 20, Pids: 10, CPUMHz: 1024}); err != nil {
		t.Fatal(err)
	}
	g.Reset()
	if got := g.Events(); got != (Events{OOMKills: 3, PidsMax: 4}) {
		t.Errorf("events = %+v", got)
	}
	if !g.Alone() || !g.Kill() {
		t.Error("an empty group is not alone")
	}
	var attr syscall.SysProcAttr
	g.Attach(&attr)
	if !attr.UseCgroupFD || attr.CgroupFD != g.dirFD || g.dirFD < 0 {
		t.Errorf("attach gives %+v", attr)
	}
	want := map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "10", "cpu.weight": "39"}
	for name, prefix := range want {
		if got, _ := os.ReadFile(filepath.Join(group, name)); !strings.HasPrefix(string(got), prefix) {
			t.Errorf("%s holds %q, want %q", name, got, prefix)
		}
	}
	g.limits = Limits{} // the next one must write again
	if err := g.Limit(Limits{Memory: 0, Pids: 0}); err != nil {
		t.Fatal(err)
	}
}

// A child of an attached program is born in the v2 group and killed with it.
func TestBornInAV2Group(t *testing.T) {
	mount := "/sys/fs/cgroup"
	if _, err := os.Stat(mount + "/cgroup.controllers"); err != nil {
		mount += "/unified"
	}
	dir := filepath.Join(mount, fmt.Sprintf("sheaf-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeDir(dir); err != nil {
			t.Error(err)
		}
	})
	fd, err := syscall.Open(dir, syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := &Group{tree: &Tree{v2: true}, dirFD: fd}
	defer syscall.Close(fd)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	g.Attach(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	killed, own, empty := killProcs(dir)
	if killed != 1 || own || !empty {
		t.Errorf("killed %d, own %v, empty %v, want 1, false, true", killed, own, empty)
	}
	<-ended
}

func TestLimitsCanGrowAndShrink(t *testing.T) {
	g := group(t)
	for _, l := range []Limits{
		{Memory: 64 << 20, Pids: 10, CPUMHz: 100},
		{Memory: 128 << 20, Pids: 5, CPUMHz: 1 << 30},
		{Memory: 16 << 20},
		{Memory: 64 << 20, Pids: 10, CPUMHz: 1},
	} {
		if err := g.Limit(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// group is a group on this machine that goes with the test.
func group(t *testing.T) *Group {
	t.Helper()
	tree, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	a, err := tree.Area(fmt.Sprintf("test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Group("g")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestKillAll(t *testing.T) {
	g := group(t)
	cmd := exec.Command("sh", "-c", "read go; sleep 1000 & sleep 1000 & wait") // what it starts before it is in the group is not
	begin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := begin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	tree, _ := Find()
	a, err := tree.Area(fmt.Sprintf("test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.KillAll()
	if err != nil || n < 1 {
		t.Errorf("killed %d, %v", n, err)
	}
	<-ended
	if n, err := a.KillAll(); n != 0 || err != nil {
		t.Errorf("killed %d more, %v", n, err)
	}
}

// TestAreasComeAndGo: the last area takes the tree along, also while another process makes its own in it.
func TestAreasComeAndGo(t *testing.T) {
	dir := t.TempDir() // where nobody else's areas keep the tree
	tree := &Tree{mounts: map[string]string{"memory": dir + "/memory", "pids": dir + "/pids"}}
	for _, mount := range tree.dirs("") {
		if err := os.Mkdir(mount, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var owners sync.WaitGroup
	for i := range 4 {
		owners.Go(func() {
			for range 20 {
				a, err := tree.Area(fmt.Sprintf("test-%d-%d", os.Getpid(), i))
				if err != nil {
					t.Error(err)
					return
				}
				if err := a.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	owners.Wait()
}
