package exec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/cgroup"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// defaultPath is PATH where a task's environment has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// child is a started program.
type child struct {
	pid    int
	pidfd  int
	pipes  [2]int // stdout, stderr; -1 when at their end
	began  time.Time
	strays bool // the slot's group could not be cleared
}

// execute runs one execution to its Exited, and reports whether the slot
// takes another. The slot is free before its Exited is sent, so that the next Start finds it.
func (t *slot) execute(e *execution) bool {
	x := &driverpb.Exited{Execution: e.start.GetExecution(), ExitCode: -1}
	began := time.Now()
	c, err := t.start(e)
	reusable := true
	if err != nil {
		x.NotStarted, x.Error = true, err.Error()
	} else {
		began = c.began
		t.session.send(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: e.start.GetExecution()}}})
		t.follow(e, c, x)
		reusable = !c.strays
	}
	x.StartedUnixMs, x.DurationMs = began.UnixMilli(), time.Since(began).Milliseconds()
	stay := t.session.over(e, t, reusable)
	t.session.send(&driverpb.Event{Body: &driverpb.Event_Exited{Exited: x}})
	return stay
}

// start forks the program into the slot's group and, where it has mounts, its view.
func (t *slot) start(e *execution) (*child, error) {
	cfg, err := parse(e.start.GetConfigJson())
	if err != nil {
		return nil, err
	}
	null, err := devNull()
	if err != nil {
		return nil, err
	}
	if t.group != nil {
		if err := t.group.Limit(cgroup.Limits{Memory: e.start.GetMemoryBytes(), Pids: e.start.GetPids(), CPUMHz: e.start.GetCpuMhz()}); err != nil {
			return nil, err
		}
		t.group.Reset()
	}
	if len(e.start.GetMounts()) > 0 && t.host >= 0 {
		leave, err := t.session.driver.views.enter(t.host, e.start.GetMounts())
		defer leave()
		if err != nil {
			return nil, err
		}
	}
	env, path := environment(e.start.GetEnv())
	dir := e.start.GetWorkDir()
	if dir == "" {
		dir = "/"
	}
	program, err := lookUp(cfg.Command, path, dir)
	if err != nil {
		return nil, err
	}

	var out, errs [2]int
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.Pipe2(errs[:], unix.O_CLOEXEC); err != nil {
		closeFD(out[0])
		closeFD(out[1])
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	c := &child{pidfd: -1, pipes: [2]int{out[0], errs[0]}}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, PidFD: &c.pidfd}
	if t.group != nil {
		t.group.Attach(sys)
	}
	c.began = time.Now()
	c.pid, err = syscall.ForkExec(program, append([]string{cfg.Command}, cfg.Args...), &syscall.ProcAttr{
		Dir: dir, Env: env, Files: []uintptr{null.Fd(), uintptr(out[1]), uintptr(errs[1])}, Sys: sys,
	})
	closeFD(out[1])
	closeFD(errs[1])
	if err == nil && c.pidfd < 0 {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		_, _, _ = e.wait(c.pid)
		err = errors.New("the kernel has no pidfd; Linux 5.4 has")
	}
	if err != nil {
		closeFD(out[0])
		closeFD(errs[0])
		return nil, startError(cfg.Command, dir, err)
	}
	e.began(c.pid)
	return c, nil
}

// environment is what the program gets: what it was given, and a PATH.
func environment(given []string) (env []string, path string) {
	i := slices.IndexFunc(given, func(s string) bool { return strings.HasPrefix(s, "PATH=") })
	if i >= 0 {
		return given, given[i][len("PATH="):]
	}
	return append(slices.Clip(given), "PATH="+defaultPath), defaultPath
}

// lookUp finds the program as the calling thread sees the file system.
func lookUp(command, path, dir string) (string, error) {
	if strings.Contains(command, "/") {
		if !strings.HasPrefix(command, "/") {
			return strings.TrimSuffix(dir, "/") + "/" + command, nil
		}
		return command, nil
	}
	for at := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(at, "/") {
			continue // relative to a directory that nobody chose
		}
		var st unix.Stat_t
		candidate := at + "/" + command
		if unix.Stat(candidate, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(candidate, unix.X_OK) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("command %q is not in PATH (%s)", command, path)
}

func startError(command, dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil {
			return fmt.Errorf("start command %q: its working directory %s does not exist", command, dir)
		}
		return fmt.Errorf("command %q does not exist, or its interpreter doesn't", command)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("command %q is not an executable file: %w", command, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("command %q is no program for this machine, nor a script that begins with #!: %w", command, err)
	}
	return fmt.Errorf("start command %q: %w", command, err)
}
