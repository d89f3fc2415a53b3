package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside is the supervisor, as process 1 of its container. It has one thread of its own.
type inside struct {
	socket int
	in     inbox
	homes  map[uint32]string // by user
	traces *traces
}

// Main is the container's process 1; its one argument is the path of the socket. It returns when
// the driver lets go, and the container ends with it. It is to be started as another user than the programs', and
// refuses to be anything but a process 1: at the end of a program it kills all that it may.
func Main(args []string) int {
	if len(args) != 1 || os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "the supervisor runs in containers alone: the containerd driver starts it")
		return 2
	}
	runtime.LockOSThread() // what is dropped below is dropped for this thread, which forks
	s := &inside{homes: map[uint32]string{}}
	if err := s.serve(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		return 1
	}
	return 0
}

func (s *inside) serve(path string) error {
	if err := confine(); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil { // its directory may be one that is unmounted
		return err
	}
	var err error
	if s.traces, err = openTraces(); err != nil {
		return err
	}
	if s.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(s.socket, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect to the driver: %w", err)
	}
	if err := write(s.socket, frame(frameHello, []byte(version))); err != nil {
		return err
	}
	for {
		kind, body, ok, err := s.in.next()
		switch {
		case err != nil:
			return err
		case !ok:
			err = s.in.fill(s.socket)
		case kind == frameProgram:
			err = s.run(body)
		case kind == frameSignal: // for one that had ended already
		default:
			err = errFrame
		}
		switch {
		case errors.Is(err, io.EOF): // the driver has let go
			return nil
		case err != nil:
			return err
		}
	}
}

// confine drops for the calling thread, and so for what it forks, all that a
// program could get: what is left is lost when it becomes the program's user and executes it.
func confine() error {
	// Programs may have its user's rights no more than its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from tracers: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for _, c := range []uintptr{unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	const kept = 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// run runs one program to the end of all its processes.
func (s *inside) run(body []byte) error {
	var p Program
	files := s.in.files
	s.in.files = nil
	if err := json.Unmarshal(body, &p); err != nil || len(files) != 2 || len(p.Args) == 0 {
		return errFrame
	}
	pid, pidfd, err := s.start(&p, files)
	for _, fd := range files {
		_ = unix.Close(fd)
	}
	if err != nil {
		return write(s.socket, frame(frameRefused, []byte(fmt.Sprintf("exec: %q: %v", p.Args[0], err))))
	}
	if err := write(s.socket, frame(frameBegan, nil)); err != nil {
		return err
	}
	if err := s.watch(pidfd); err != nil {
		return err
	}
	_ = unix.Close(pidfd)
	end, err := reap(pid)
	if err != nil {
		return err
	}
	if end.Left == "" {
		end.Left = s.traces.found()
	}
	text, err := json.Marshal(end)
	if err != nil {
		return err
	}
	return write(s.socket, frame(frameEnd, text))
}

// watch passes signals on until the program has ended.
func (s *inside) watch(pidfd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(s.socket), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if fds[1].Revents != 0 {
			if err := s.in.fill(s.socket); err != nil {
				return err
			}
			for {
				kind, body, ok, err := s.in.next()
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				if kind != frameSignal || len(body) != 1 {
					return errFrame
				}
				_ = unix.PidfdSendSignal(pidfd, syscall.Signal(body[0]), nil, 0) // one that has ended needs none
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// reap waits for the program, which has ended, and ends and waits for whatever it left. As
// process 1 it becomes the parent of all whose own have ended, so no child is no process.
func reap(program int) (*End, error) {
	end := &End{}
	over := false
	options := 0
	for {
		var status unix.WaitStatus
		var used unix.Rusage
		pid, err := unix.Wait4(-1, &status, options, &used)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			if !over {
				return nil, errors.New("the program is nobody's child")
			}
			return end, nil
		case err != nil:
			return nil, err
		case pid == 0: // what is left lives
			end.Left = "processes"
			options = 0
		default:
			end.CPU += time.Duration(used.Utime.Nano() + used.Stime.Nano())
			end.MaxRSS = max(end.MaxRSS, used.Maxrss<<10)
			if pid == program {
				end.Status, over = uint32(status), true
				options = unix.WNOHANG
			}
		}
		if end.Left != "" {
			_ = unix.Kill(-1, unix.SIGKILL) // again each time: they may have forked
		}
	}
}

// start forks a program. The PATH is tried as a shell does, by the program's user.
func (s *inside) start(p *Program, files []int) (pid, pidfd int, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir: p.Dir, Env: s.environment(p), Files: []uintptr{uintptr(null), uintptr(files[0]), uintptr(files[1])},
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, Credential: &syscall.Credential{Uid: p.UID, Gid: p.GID, Groups: p.Groups}},
	}
	err = errors.New("executable file not found in $PATH")
	for _, path := range candidates(p.Args[0], attr.Env) {
		var tried error
		pid, tried = syscall.ForkExec(path, p.Args, attr)
		switch {
		case tried == nil && pidfd < 0:
			return 0, 0, errors.New("the kernel has no pidfd; Linux 5.4 has")
		case tried == nil:
			return pid, pidfd, nil
		case path == p.Args[0]:
			return 0, 0, tried
		case !errors.Is(tried, syscall.ENOENT) && !errors.Is(tried, syscall.ENOTDIR):
			err = tried // as EACCES: another directory may have it
		}
	}
	return 0, 0, err
}

// candidates are the paths that a command may be at.
func candidates(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	var paths []string
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(list, ":") {
			if !strings.HasPrefix(dir, "/") {
				continue // relative to a directory that nobody chose
			}
			path := strings.TrimSuffix(dir, "/") + "/" + command
			var st unix.Stat_t
			if err := unix.Stat(path, &st); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue // saves a fork
			}
			paths = append(paths, path)
		}
	}
	return paths
}

// environment is the program's, with HOME as the image's users have it where none is given.
func (s *inside) environment(p *Program) []string {
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") {
			return p.Env
		}
	}
	home, ok := s.homes[p.UID]
	if !ok {
		home = homeOf(p.UID)
		s.homes[p.UID] = home
	}
	return append(p.Env, "HOME="+home)
}

// homeOf looks a user up in the image; "/" is who is not in it.
func homeOf(uid uint32) string {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(text)) {
		// name:password:uid:gid:comment:home:shell, as passwd(5) has it
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 6 && f[2] == fmt.Sprint(uid) && f[5] != "" {
			return f[5]
		}
	}
	return "/"
}
