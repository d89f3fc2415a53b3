package wasm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// tryConfined is a process of its own: it confines itself to a directory and
// prints what it can still do.
func tryConfined(dir string) {
	s := setup{confine: canConfine(), readOnly: []string{dir + "/ro"}, writable: []string{dir + "/rw"}}
	if err := restrict(s); err != nil {
		fmt.Println(err)
	}
	try := func(what string, err error) { fmt.Println(what, err == nil) }
	_, err := os.ReadFile(dir + "/ro/file")
	try("read-only: read", err)
	try("read-only: write", os.WriteFile(dir+"/ro/new", nil, 0o644))
	try("writable: write", os.WriteFile(dir+"/rw/new", nil, 0o644))
	try("writable: move", errors.Join(os.Mkdir(dir+"/rw/d", 0o755), os.Rename(dir+"/rw/new", dir+"/rw/d/new")))
	_, err = os.ReadFile(dir + "/file")
	try("outside: read", err)
	_, err = os.ReadFile("/etc/passwd")
	try("host: read", err)
	conn, err := net.Dial("tcp", os.Getenv("LISTENER"))
	if err == nil {
		conn.Close()
	}
	try("network: connect", err)
	os.Exit(0)
}

func TestConfinement(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, dir+"/ro/file", "x")
	mustWrite(t, dir+"/rw/file", "x")
	mustWrite(t, dir+"/file", "x")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("/proc/self/exe", "try-confined", dir)
	cmd.Env = append(os.Environ(), "LISTENER="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Without Landlock nothing is refused; guestfs and wazero are the walls then.
	free := fmt.Sprint(!canConfine())
	want := "read-only: read true\nread-only: write " + free + "\nwritable: write true\nwritable: move true\n" +
		"outside: read " + free + "\nhost: read " + free + "\nnetwork: connect " + free + "\n"
	if string(out) != want {
		t.Errorf("can do\n%swant\n%s", out, want)
	}
}

// dieBusy is a driver process: it runs an endless module, prints the worker's
// process ID, and waits to be killed.
func dieBusy(state, module string) {
	d := New(Options{}).(*Driver)
	config := []byte(`{"module": "` + module + `"}`)
	p, err := d.Prepare(context.Background(), &driverpb.PrepareRequest{ConfigJson: config, StateDir: state})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	commands, events := make(chan *driverpb.Command), make(chan *driverpb.Event)
	go d.Execute(context.Background(), commands, events)
	commands <- &driverpb.Command{Body: &driverpb.Command_Start{Start: &driverpb.Start{Execution: "a", Handle: p.Handle, ConfigJson: config}}}
	<-events // Started
	d.pool.mu.Lock()
	for c := range d.pool.busy {
		fmt.Println("pid", c.cmd.Process.Pid)
	}
	d.pool.mu.Unlock()
	select {}
}

// A killed driver leaves no worker behind, not even one in an endless loop
// that never calls its host.
func TestNoWorkerOutlivesItsDriver(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "die-busy", newState(t), writeFile(t, "m.wasm", loops))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pid %d", &pid); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guest loops", func() bool { return cpuSeconds(pid) > 0 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	waitFor(t, "the worker is gone", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

// cpuSeconds are a process's user time in hundredths.
func cpuSeconds(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 12 {
		return 0
	}
	n, _ := strconv.Atoi(fields[11])
	return n
}

// Workers that outlived their driver all the same are ended by the next one,
// and those of another agent are not.
func TestRecoverKillsLeftovers(t *testing.T) {
	state := newState(t)
	script := []string{"/bin/sh", "-c", "while :; do sleep 1; done", "worker"}
	// Started through another shell, so that it is no child of this process.
	leave := func(dir string) int {
		out, err := exec.Command("/bin/sh", "-c", `"$@" >/dev/null 2>&1 & echo $!`, "sh", script[0], script[1], script[2], script[3], dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		return pid
	}
	runs := func(pid int) bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	ours, other := leave(state), leave(filepath.Dir(state))
	waitFor(t, "both are shells", func() bool { return len(commandLine(ours)) == 5 && len(commandLine(other)) == 5 })
	d := newDriver(t, Options{Worker: script})
	r, err := d.Recover(context.Background(), &driverpb.RecoverRequest{StateDir: state, Known: []*driverpb.Known{{Execution: "a"}}})
	if err != nil || len(r.Running) > 0 {
		t.Errorf("recover = %v, %v, want nothing running", r, err)
	}
	waitFor(t, "the leftover is gone", func() bool { return !runs(ours) })
	if !runs(other) {
		t.Error("another agent's worker was ended")
	}
}

func commandLine(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}
