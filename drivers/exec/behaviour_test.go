package exec_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/drivers/exec"
	"github.com/sheaf-run/agent/drivers/plugin"
)

// open is a session on a driver in this process, whose cgroups are the test's own.
func open(t *testing.T) *drivertest.Session {
	t.Helper()
	d := exec.New()
	if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return drivertest.Open(t, d)
}

func shell(t *testing.T, id, script string) *driverpb.Start {
	t.Helper()
	return &driverpb.Start{Execution: id, ConfigJson: config(t, "sh", "-c", script), MemoryBytes: 64 << 20, Pids: 32, CpuMhz: 100}
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"plain": "x", "garbage": "\x01\x02\x03", "script": "#!/no/such/interpreter\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"garbage", "script"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t)
	tests := []struct {
		command, workDir string
		mounts           []*driverpb.Mount
		says             []string
	}{
		{command: "no-such-command", says: []string{`"no-such-command"`, "PATH"}},
		{command: "/no/such/command", says: []string{`"/no/such/command"`, "does not exist"}},
		{command: dir + "/plain", says: []string{"plain", "not an executable"}},
		{command: dir, says: []string{"not an executable"}},
		{command: dir + "/garbage", says: []string{"garbage", "no program for this machine"}},
		{command: dir + "/script", says: []string{"script", "interpreter"}},
		{command: "true", workDir: "/no/such/directory", says: []string{"/no/such/directory"}},
		{command: "true", mounts: []*driverpb.Mount{{Source: "/no/such/source", Target: "/in"}}, says: []string{"/no/such/source", "/in"}},
		{command: "true", mounts: []*driverpb.Mount{{Source: dir, Target: "relative"}}, says: []string{"relative", "absolute"}},
		{command: "true", mounts: []*driverpb.Mount{{Source: dir, Target: "/a/../etc"}}, says: []string{"/a/../etc", "clean"}},
		{command: "true", mounts: []*driverpb.Mount{{Source: dir, Target: "/"}}, says: []string{"root"}},
		{command: "true", mounts: []*driverpb.Mount{{Source: dir, Target: "/etc/hostname/x"}}, says: []string{"/etc/hostname"}},
	}
	for i, tt := range tests {
		x := s.Run(&driverpb.Start{Execution: fmt.Sprint("r.0.", i), ConfigJson: config(t, tt.command), WorkDir: tt.workDir, Mounts: tt.mounts}).Exited
		if !x.GetNotStarted() || x.GetExitCode() != -1 {
			t.Errorf("%v: %v, want not started", tt, x)
		}
		for _, part := range tt.says {
			if !strings.Contains(x.GetError(), part) {
				t.Errorf("%q %v: error %q, want it to say %q", tt.command, tt.mounts, x.GetError(), part)
			}
		}
	}
	if x := s.Run(shell(t, "r.1.1", "exit 7")).Exited; x.GetExitCode() != 7 {
		t.Errorf("after all those: %v, want exit code 7", x)
	}
}

// A task's processes are ended with it, also one in a session of its own that closed everything.
func TestNothingIsLeftBehind(t *testing.T) {
	s := open(t)
	r := s.Run(shell(t, "r.0.1", `setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!; sleep 1000 & echo $!`))
	if r.Exited.GetExitCode() != 0 {
		t.Fatalf("%v, stderr %q", r.Exited, r.Stderr)
	}
	for pid := range strings.FieldsSeq(string(r.Stdout)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		gone(t, n)
	}
}

func TestStopReachesTheShellsChildren(t *testing.T) {
	s := open(t)
	s.Start(shell(t, "r.0.1", `sleep 1000 & echo ready; wait; echo never`))
	s.Printed("r.0.1", "ready")
	s.Stop("r.0.1", "", time.Hour)
	if r := s.Wait("r.0.1"); r.Exited.GetSignal() != "SIGTERM" || bytes.Contains(r.Stdout, []byte("never")) {
		t.Errorf("%v, stdout %q, want an end by SIGTERM", r.Exited, r.Stdout)
	}
}

// A Stop that comes right behind its Start is not lost.
func TestStopAtOnce(t *testing.T) {
	s := open(t)
	for i := range 50 {
		id := fmt.Sprint("r.", i, ".1")
		s.Start(shell(t, id, "exec sleep 1000"))
		s.Stop(id, "SIGKILL", 0)
	}
	for i := range 50 {
		if x := s.Wait(fmt.Sprint("r.", i, ".1")).Exited; x.GetSignal() != "SIGKILL" {
			t.Errorf("%v, want SIGKILL", x)
		}
	}
}

// What a program left in its pipes is passed on however late that is: whoever receives may be slow.
func TestOutputIsNotLostWithTime(t *testing.T) {
	t.Cleanup(exec.StrayPatience(0)) // it was over when the program ended
	s := open(t)
	const n = 60000 // less than a pipe holds
	for i := range 50 {
		r := s.Run(shell(t, fmt.Sprint("r.", i, ".1"), fmt.Sprintf("exec head -c %d /dev/zero", n)))
		if len(r.Stdout) != n {
			t.Fatalf("%d bytes of %d came; %v", len(r.Stdout), n, r.Exited)
		}
	}
}

func TestOwnPathAndWorkDir(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mine"), []byte("#!/bin/sh\npwd; echo $PATH\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	start := &driverpb.Start{Execution: "r.0.1", ConfigJson: config(t, "mine"), Env: []string{"PATH=" + bin + ":/bin"}, WorkDir: dir}
	if r := s.Run(start); string(r.Stdout) != dir+"\n"+bin+":/bin\n" {
		t.Errorf("stdout %q, %v", r.Stdout, r.Exited)
	}
	if r := s.Run(shell(t, "r.1.1", "pwd; echo $PATH")); !strings.HasPrefix(string(r.Stdout), "/\n/usr/local/sbin:") {
		t.Errorf("stdout %q, %v", r.Stdout, r.Exited)
	}
}

// A new mount point in a directory of the host keeps that directory's other
// entries, and the host never sees it.
func TestMountPointsInAHostsDirectory(t *testing.T) {
	parent, in := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(parent, "kept"), []byte("host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("kept", filepath.Join(parent, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "a"), []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	for i := range 3 {
		start := shell(t, fmt.Sprint("r.", i, ".1"), fmt.Sprintf("cat %[1]s/link %[1]s/new/deep/a /in.txt", parent))
		start.Mounts = []*driverpb.Mount{
			{Source: in, Target: parent + "/new/deep", ReadOnly: true},
			{Source: filepath.Join(in, "a"), Target: "/in.txt", ReadOnly: true},
		}
		if r := s.Run(start); string(r.Stdout) != "host'sinputinput" {
			t.Errorf("stdout %q stderr %q, %v", r.Stdout, r.Stderr, r.Exited)
		}
	}
	if r := s.Run(shell(t, "r.9.1", "ls -d /in.txt "+parent+"/new")); r.Exited.GetExitCode() == 0 {
		t.Errorf("an execution without mounts sees another's: %q", r.Stdout)
	}
	if _, err := os.Lstat(parent + "/new"); err == nil {
		t.Error("the mount point is on the host")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) { // others may mount meanwhile
		if strings.Contains(line, parent) || strings.Contains(line, in) || strings.Contains(line, "/in.txt") {
			t.Errorf("the host has the mount %s", line)
		}
	}
}

// A killed driver takes its programs along, and what got away is ended by the next one.
func TestKilledDriver(t *testing.T) {
	state := t.TempDir()
	first := drivertest.Hosted(t, "exec")
	recoverAt(t, first, state)
	s := drivertest.Open(t, first)
	s.Start(shell(t, "r.0.1", "setsid sleep 1000 >/dev/null 2>&1 & echo $! $$ ready; wait"))
	s.Printed("r.0.1", "ready")
	var stray, main int
	if _, err := fmt.Sscan(s.Stdout("r.0.1"), &stray, &main); err != nil {
		t.Fatal(err)
	}
	groups := groupsOf(t, main)
	if len(groups) == 0 {
		t.Fatalf("process %d is in no cgroup of the driver", main)
	}
	if err := syscall.Kill(first.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Cancel(); err == nil {
		t.Error("Execute returned nil though its process was killed")
	}
	second := drivertest.Hosted(t, "exec")
	recoverAt(t, second, state)
	for _, pid := range []int{stray, main} {
		gone(t, pid)
	}
	for _, dir := range groups {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
}

// groupsOf is the directories of the driver's cgroups that a process is in.
func groupsOf(t *testing.T, pid int) (dirs []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, path, ok := strings.Cut(strings.TrimSpace(line), "/sheaf/exec-")
		for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			if found, _ := filepath.Glob(top + "/sheaf/exec-" + path); ok {
				dirs = append(dirs, found...)
			}
		}
	}
	return dirs
}

func recoverAt(t *testing.T, h *plugin.Host, state string) {
	t.Helper()
	if _, err := h.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: state}); err != nil {
		t.Fatal(err)
	}
}

// gone wants that a process has ended or just does. It has left its cgroup a moment before
// it is seen to have ended; one that was spared would stay.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // an outside process is awaited
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if err != nil || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X") { // nobody has waited for it yet
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process %d is left: %s", pid, stat)
			return
		}
	}
}
