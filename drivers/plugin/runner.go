package plugin

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// outputGrace is how long output of a process that ended may still come: from
// then on only strays can hold its pipes.
const outputGrace = time.Second

// passedOn are the variables of this process that a plugin gets: where
// programs are, where temporary files go, how the network and a runtime are reached, and Go's own.
var passedOn = []string{
	"PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "CONTAINERD_ADDRESS",
	"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "GOCOVERDIR",
}

// procRunner is the process as go-plugin sees it. Unlike go-plugin's own it
// has no terminal and no environment to inherit, dies with the thread that started it, is killed with its tree, and
// says at once when it is gone.
type procRunner struct {
	cfg  Config
	env  []string
	cmd  *exec.Cmd
	out  *os.File
	err  *drainReader
	id   atomic.Int64
	gone chan struct{} // closed when the process was waited for, or could not be started

	exit    string        // how it ended; read after gone
	drained chan struct{} // closed when go-plugin has read stderr to its end,
}

var _ runner.Runner = (*procRunner)(nil)

func newProcRunner(cfg Config) *procRunner {
	r := &procRunner{cfg: cfg, gone: make(chan struct{}), drained: make(chan struct{})}
	for _, name := range passedOn {
		if v, ok := os.LookupEnv(name); ok {
			r.env = append(r.env, name+"="+v)
		}
	}
	r.env = append(r.env, cfg.Env...)
	return r
}

func (r *procRunner) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return r.notStarted(err)
	}
	defer outW.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		return r.notStarted(err)
	}
	defer errW.Close()
	r.out, r.err = outR, &drainReader{File: errR, drained: r.drained}
	r.cmd = &exec.Cmd{
		Path: r.cfg.Command[0], Args: r.cfg.Command, Env: r.env, Stdout: outW, Stderr: errW,
		// A session of its own: no terminal, and a Ctrl-C at the agent's doesn't reach it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := r.cmd.Start(); err != nil {
		outR.Close()
		errR.Close()
		return r.notStarted(err)
	}
	r.id.Store(int64(r.cmd.Process.Pid))
	go func() {
		_ = r.cmd.Wait() // its state says how it ended
		r.exit = r.cmd.ProcessState.String()
		deadline := time.Now().Add(outputGrace)
		_ = outR.SetReadDeadline(deadline)
		_ = errR.SetReadDeadline(deadline)
		close(r.gone)
	}()
	return nil
}

func (r *procRunner) notStarted(err error) error {
	r.exit = "not started"
	close(r.gone)
	return err
}

// mostLate is what a pipe holds at most, in bytes.
const mostLate = 64 << 10

// drainReader says when it was read to its end. Past its deadline that is what lies in the pipe: who reads may have come late.
type drainReader struct {
	*os.File
	drained chan struct{}
	once    sync.Once
	late    int // read past the deadline, in bytes
}

func (d *drainReader) Read(b []byte) (int, error) {
	n, err := d.File.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n, err = d.rest(b)
	}
	if err != nil {
		d.once.Do(func() { close(d.drained) })
	}
	return n, err
}

// rest reads without waiting. Strays that write on are not followed.
func (d *drainReader) rest(b []byte) (n int, err error) {
	raw, err := d.SyscallConn()
	if err != nil {
		return 0, err
	}
	b = b[:min(len(b), mostLate-d.late)]
	if err := raw.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), b) }); err != nil {
		return 0, err
	}
	if n <= 0 {
		return 0, io.EOF
	}
	d.late += n
	return n, nil
}

func (r *procRunner) Wait(context.Context) error {
	<-r.gone
	return nil
}

// Kill ends the process and everything below it. It may be called again.
func (r *procRunner) Kill(context.Context) error {
	if r.pid() == 0 {
		return nil
	}
	select {
	case <-r.gone:
		return nil
	default:
	}
	// Stopping each before its children are listed keeps it from making more meanwhile.
	tree := stopTree(r.pid(), nil)
	for _, pid := range slices.Backward(tree) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-r.gone
	return nil
}

func stopTree(pid int, tree []int) []int {
	if errors.Is(syscall.Kill(pid, syscall.SIGSTOP), syscall.ESRCH) {
		return tree
	}
	tree = append(tree, pid)
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, _ := os.ReadDir(dir) // gone meanwhile: nothing below it
	for _, t := range threads {
		list, _ := os.ReadFile(dir + "/" + t.Name() + "/children")
		for child := range fields(list) {
			tree = stopTree(child, tree)
		}
	}
	return tree
}

// fields are the numbers of a list of pids.
func fields(list []byte) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		n := 0
		for _, c := range list {
			if c >= '0' && c <= '9' {
				n = n*10 + int(c-'0')
				continue
			}
			if n > 0 && !yield(n) {
				return
			}
			n = 0
		}
		if n > 0 {
			yield(n)
		}
	}
}

func (r *procRunner) pid() int      { return int(r.id.Load()) }
func (r *procRunner) state() string { return r.exit }

func (r *procRunner) Stdout() io.ReadCloser           { return r.out }
func (r *procRunner) Stderr() io.ReadCloser           { return r.err }
func (r *procRunner) Name() string                    { return r.cfg.Command[0] }
func (r *procRunner) ID() string                      { return strconv.Itoa(r.pid()) }
func (r *procRunner) Diagnose(context.Context) string { return "" }
func (r *procRunner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}
func (r *procRunner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
