package containerd

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/supervisor"
)

const (
	// readLen is the most that is read of a program's output at once: a whole pipe.
	readLen = drivers.MaxLog
	// strayPatience is how long a pipe may stay open when nothing of the program is
	// left: one with the host's network may have passed it to somebody outside.
	strayPatience = time.Second
	// mostHeld is the most that is read of the pipes after that time, in bytes: what the program left in
	// them, which waits while the client is slow, is less, and one outside may print for ever.
	mostHeld = 8 << 20
)

// execute runs an execution in the container. It is on the worker's thread.
func (w *worker) execute(j *job) {
	placed, err := w.place(j.held)
	if err == nil {
		w.program(j)
	} else {
		j.exited, j.sound, j.alone = notStarted(err), true, true
	}
	if !j.sound {
		return
	}
	if err := w.clear(j.held[:placed]); err != nil {
		j.sound = false
		slog.Debug("container not kept", "container", w.container, "execution", j.e.id, "error", err)
	}
}

// program has the supervisor run the execution's program.
func (w *worker) program(j *job) {
	e := j.e
	var conf config
	if err := drivers.DecodeConfig(Name, e.start.GetConfigJson(), &conf); err != nil {
		j.exited, j.sound, j.alone = notStarted(err), true, true
		return
	}
	var out, errs [2]int
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		j.exited, j.sound, j.alone = notStarted(fmt.Errorf("make a pipe: %w", err)), true, true
		return
	}
	if err := unix.Pipe2(errs[:], unix.O_CLOEXEC); err != nil {
		closeAll(out[:])
		j.exited, j.sound, j.alone = notStarted(fmt.Errorf("make a pipe: %w", err)), true, true
		return
	}
	user := w.user
	w.group.Reset()
	e.began = time.Now()
	err := w.conn.Start(&supervisor.Program{
		Args: w.template.args(conf), Env: w.template.env(e.start.GetEnv()), Dir: w.template.spec.Process.Cwd,
		UID: user.UID, GID: user.GID, Groups: user.AdditionalGids,
	}, out[1], errs[1])
	closeAll([]int{out[1], errs[1]})
	if _, refused := errors.AsType[*supervisor.RefusedError](err); refused {
		closeAll([]int{out[0], errs[0]})
		j.exited, j.sound, j.alone = notStarted(err), true, true
		return
	}
	f := &following{w: w, e: e, pipes: [2]int{out[0], errs[0]}}
	if err == nil {
		err = f.toEnd()
	}
	f.close()
	switch {
	case f.refused != nil:
		j.exited, j.sound, j.alone = notStarted(f.refused), true, true
	case errors.Is(err, supervisor.ErrUnread) && !f.began:
	default:
		j.exited = f.report(err)
		j.alone = err == nil
		j.sound = err == nil && f.clean()
		if !j.sound {
			slog.Debug("container not kept", "container", w.container, "execution", e.id, "left", f.left(), "error", err)
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// following is a program that runs, or just did.
type following struct {
	w     *worker
	e     *execution
	pipes [2]int // stdout, stderr; -1 at their end

	began   bool
	refused error
	end     *supervisor.End
	ended   time.Time
	open    bool // its pipes were still open when all of it had ended
	hits    struct{ memory, pids bool }
}

// toEnd passes output on until the program and its pipes have ended. An error
// is the supervisor's end.
func (f *following) toEnd() error {
	defer f.e.window.Open()
	var done chan struct{}
	defer func() {
		if done != nil {
			close(done)
		}
	}()
	for f.end == nil && f.refused == nil {
		news, _, err := f.step(-1)
		if err != nil {
			f.ended = time.Now()
			return err
		}
		if news.Began {
			f.began = true
			f.w.session.emit(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: f.e.id}}})
			done = make(chan struct{})
			f.w.session.all.Go(func() { f.w.signals(f.e, done) })
		}
		f.refused, f.end = news.Refused, news.End
	}
	f.ended = time.Now()
	f.e.window.Open()
	late := 0
	for until := f.ended.Add(strayPatience); f.pipes != [2]int{-1, -1}; {
		left := max(time.Until(until), 0)
		_, n, err := f.step(int((left + time.Millisecond - 1).Milliseconds()))
		if err != nil {
			return err
		}
		if left > 0 {
			continue
		}
		if late += n; n < 0 || late > mostHeld {
			f.open = true
			break
		}
	}
	return nil
}

// step waits for output or news, at most ms milliseconds, -1 being for ever. Output comes first, so
// that none is behind the news of its end. It tells how many bytes of output there were, -1 being neither output nor its end.
func (f *following) step(ms int) (news supervisor.News, bytes int, err error) {
	fds := [3]unix.PollFd{
		{Fd: int32(f.pipes[0]), Events: unix.POLLIN}, // poll passes over -1
		{Fd: int32(f.pipes[1]), Events: unix.POLLIN},
		{Fd: int32(f.w.conn.FD()), Events: unix.POLLIN},
	}
	switch {
	case f.end != nil:
		fds[2].Fd = -1 // there will be no more news
	case !f.began:
		fds[0].Fd, fds[1].Fd = -1, -1 // Started is told before what is printed
	}
	if _, err := unix.Poll(fds[:], ms); errors.Is(err, unix.EINTR) {
		return news, 0, nil
	} else if err != nil {
		panic("poll of pipes: " + err.Error()) // only descriptors that aren't ours fail
	}
	if fds[2].Revents != 0 {
		if news, err = f.w.conn.Read(); err != nil {
			return news, 0, err
		}
	}
	bytes = -1
	for i := range f.pipes {
		if fds[i].Revents != 0 && f.pipes[i] >= 0 {
			bytes = max(bytes, 0) + f.pass(i)
		}
	}
	return news, bytes, nil
}

// pass reads once from a pipe that has something, or its end, to give. It returns how many bytes.
func (f *following) pass(i int) int {
	n, err := unix.Read(f.pipes[i], f.w.buf)
	if errors.Is(err, unix.EINTR) {
		return 0
	}
	if err != nil || n == 0 {
		_ = unix.Close(f.pipes[i])
		f.pipes[i] = -1
		return 0
	}
	s := f.w.session
	if f.e.window.Take(s.client, int64(n)) != nil {
		return n // nobody receives any more
	}
	s.emit(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: f.e.id, Stderr: i == 1, Data: append([]byte(nil), f.w.buf[:n]...)}}})
	return n
}

func (f *following) close() {
	for _, fd := range f.pipes {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// signals sends what Stop asks for until done. A container that does not end a program that
// was killed is ended itself.
func (w *worker) signals(e *execution, done <-chan struct{}) {
	var sent syscall.Signal
	closing := w.session.ctx.Done()
	for {
		signal, killAt := e.stop.due(time.Now())
		if closing == nil {
			signal = syscall.SIGKILL
		}
		var again <-chan time.Time
		if signal != 0 && signal != sent {
			_ = w.conn.Signal(signal) // a supervisor that has gone is noticed by its reader
			sent = signal
		}
		switch {
		case sent == syscall.SIGKILL:
			e.window.Open()
			again = time.After(killing)
		case sent != 0:
			again = time.After(max(time.Until(killAt), time.Millisecond))
		}
		select {
		case <-e.stop.wake:
		case <-closing:
			closing = nil
		case <-again:
			if sent == syscall.SIGKILL {
				w.session.driver.clear(w.session.client, w.container)
				return
			}
		case <-done:
			return
		}
	}
}

// report is the Exited of a program that has ended; err is why nobody knows how.
func (f *following) report(err error) *driverpb.Exited {
	x := &driverpb.Exited{ExitCode: -1, StartedUnixMs: f.e.began.UnixMilli(), DurationMs: f.ended.Sub(f.e.began).Milliseconds()}
	failed := true
	switch {
	case err != nil:
		x.Signal, x.Error = unix.SignalName(unix.SIGKILL), err.Error()
	default:
		status := syscall.WaitStatus(f.end.Status)
		if status.Signaled() {
			x.Signal = unix.SignalName(status.Signal())
		} else {
			x.ExitCode = int32(status.ExitStatus())
			failed = x.ExitCode != 0
		}
		x.CpuMs = (f.end.CPU + time.Millisecond - 1).Milliseconds()
		x.PeakMemoryBytes = f.end.MaxRSS
	}
	if peak := f.w.group.Peak(); peak > 0 {
		x.PeakMemoryBytes = peak
	}
	now := f.w.group.Events()
	f.hits.memory, f.hits.pids = now.OOMKills > f.w.seen.OOMKills, now.PidsMax > f.w.seen.PidsMax
	f.w.seen = now
	x.OutOfMemory, x.OutOfPids = failed && f.hits.memory, failed && f.hits.pids
	if x.GetOutOfMemory() || x.GetOutOfPids() {
		x.Error = ""
	}
	return x
}

// clean reports whether a program that was reported left the container as it found it.
func (f *following) clean() bool { return f.left() == "" }

// left is why not, "" where it did.
func (f *following) left() string {
	switch {
	case f.end == nil:
		return "nothing that is known"
	case f.hits.memory:
		return "no memory"
	case f.hits.pids:
		return "no room for processes"
	case f.open:
		return "open pipes"
	case f.end.Left == supervisor.LeftConnections && f.w.host:
		return "" // they are the machine's
	}
	return f.end.Left
}
