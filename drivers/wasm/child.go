package wasm

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spawner starts worker processes.
type spawner struct {
	command []string

	mu       sync.Mutex
	stateDir string
}

// mark makes workers carry the agent's state directory as their last argument, by
// which leftovers are found, and gives their whole command line.
func (s *spawner) mark(stateDir string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stateDir != "" {
		s.stateDir = stateDir
	}
	return append(slices.Clone(s.command), s.stateDir)
}

// child is the driver's side of a worker process. One goroutine at a time uses it; kill may be
// called from any.
type child struct {
	cmd      *exec.Cmd
	commands *os.File
	events   *os.File
	lifeline *os.File
	frames   *frameReader
	tail     *tail
	buf      []byte
	area     *area     // what it can reach; nil: not confined
	held     []string  // digests of the modules it has compiled, as the worker orders them
	ooms     uint64    // of the machine, when it was started
	cpuNs    uint64    // of the executions so far
	idle     time.Time // since when; the pool's
	thread   uint64    // of the worker, on which guests run; 0 before awaitReady

	wake chan *execution // capacity 1; closed to end an idle worker
}

// workerEnv is a worker's whole environment. Two threads may run Go code: one in a guest, and one
// beside it for the collector, which lets more garbage lie than it would by itself: a worker holds little, and
// would collect at every 4 MB, which short executions leave behind by the hundred.
var workerEnv = []string{"GOMAXPROCS=2", "GOGC=200"}

// spawn starts a worker. The caller ends it with end.
func (s *spawner) spawn(boot setup) (c *child, err error) {
	c = &child{wake: make(chan *execution, 1), ooms: oomKills()}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			c.closeFiles()
			err = fmt.Errorf("start wasm worker: %w", err)
		}
	}()
	pipe := func(mine **os.File, childReads bool) {
		r, w, e := os.Pipe()
		switch {
		case e != nil:
			err = e
		case childReads:
			*mine, theirs = w, append(theirs, r)
		default:
			*mine, theirs = r, append(theirs, w)
		}
	}
	var output *os.File
	pipe(&c.commands, true)
	pipe(&c.events, false)
	pipe(&c.lifeline, true)
	pipe(&output, false)
	if err != nil {
		if output != nil {
			output.Close()
		}
		return nil, err
	}
	line := s.mark("")
	c.cmd = &exec.Cmd{
		Path: line[0], Args: line, Env: workerEnv, Dir: "/",
		Stdout: theirs[3], Stderr: theirs[3], ExtraFiles: theirs[:3],
		// Apart from the terminal: the driver decides when a worker ends.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err = c.cmd.Start(); err != nil {
		output.Close()
		return nil, err
	}
	c.tail = readTail(output)
	c.frames = newFrameReader(c.events, readBuffer)
	if err = c.send(kindSetup, boot.append); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (c *child) send(k kind, body func([]byte) []byte) error {
	c.buf = appendFrame(c.buf[:0], k, body)
	if n := len(c.buf); n > maxFrame {
		return fmt.Errorf("args, env and mounts take %d bytes (limit %d)", n, maxFrame)
	}
	_, err := c.commands.Write(c.buf)
	return err
}

// awaitReady waits until the worker can run something.
func (c *child) awaitReady() error {
	k, body, err := c.frames.next()
	if err != nil {
		return err
	}
	if k != kindReady {
		return fmt.Errorf("the worker's first frame is of kind %d", k)
	}
	r, err := decodeReady(body)
	c.thread = r.thread
	return err
}

// load has the worker compile a module, or read it from the cache.
func (c *child) load(ref moduleRef) (loaded, error) {
	if err := c.send(kindLoad, ref.append); err != nil {
		return loaded{}, err
	}
	k, body, err := c.frames.next()
	if err != nil {
		return loaded{}, err
	}
	if k != kindLoaded {
		return loaded{}, fmt.Errorf("the worker answers a load with a frame of kind %d", k)
	}
	return decodeLoaded(body)
}

// kill ends the process whatever it does; the events that it wrote stay readable.
func (c *child) kill() { _ = c.cmd.Process.Kill() }

// end kills the process if it lives, waits for it and frees what belongs to it.
func (c *child) end() {
	c.kill()
	_ = c.cmd.Wait() // how it ended is in ProcessState
	c.tail.wait()
	c.closeFiles()
}

func (c *child) closeFiles() {
	for _, f := range []*os.File{c.commands, c.events, c.lifeline} {
		if f != nil {
			f.Close()
		}
	}
}

// wanted is for how long the worker's thread has computed or waited for a
// processor so far; 0 where the kernel does not say.
func (c *child) wanted() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", c.cmd.Process.Pid, c.thread))
	if err != nil {
		return 0
	}
	var sum time.Duration // of the first two numbers; less where it is of another form
	for i, number := range strings.Fields(string(stat)) {
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && i < 2 {
			sum += time.Duration(n)
		}
	}
	return sum
}

// holds reports whether the worker has the module compiled in memory.
func (c *child) holds(digest string) bool { return slices.Contains(c.held, digest) }

// use notes that the worker runs the module, as the worker itself does.
func (c *child) use(digest string) {
	if len(c.held) > 0 && c.held[0] == digest {
		return
	}
	c.held = slices.Insert(slices.DeleteFunc(c.held, func(d string) bool { return d == digest }), 0, digest)
	c.held = c.held[:min(len(c.held), workerModules)]
}
