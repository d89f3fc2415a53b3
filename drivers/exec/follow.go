package exec

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// strayPatience is how long a pipe may stay open when the program and all
// that could be found of it are gone. Only unprivileged can something still hold it. A test sets it.
var strayPatience = time.Second

// mostHeld is the most that is read of the pipes after that time, in bytes: what the program left in them, which waits
// while the client is slow, is less, and strays may print for ever.
const mostHeld = 8 << 20

// follow passes a program's output on until it ends, ends what it left behind, and fills in how it was.
func (t *slot) follow(e *execution, c *child, x *driverpb.Exited) {
	defer closeFD(c.pidfd)
	for ended := false; !ended; {
		_, ended = t.step(e, c, -1)
	}
	c.pidfd = -1
	status, usage, err := e.wait(c.pid)
	c.strays = !t.cleared(c.pid)
	e.window.Open()
	late := 0
	for until := time.Now().Add(strayPatience); c.pipes != [2]int{-1, -1} && late < mostHeld; {
		left := max(time.Until(until), 0)
		n, _ := t.step(e, c, int((left + time.Millisecond - 1).Milliseconds()))
		if left > 0 {
			continue
		}
		if n < 0 {
			break
		}
		late += n
	}
	for i := range c.pipes {
		c.close(i)
	}
	t.report(e, x, status, &usage, err)
}

// step waits for output or the end, at most ms milliseconds, -1 being for
// ever. It reads what is there, and tells how many bytes of output that was, -1 being neither output nor its
// end, and whether the program has ended.
func (t *slot) step(e *execution, c *child, ms int) (bytes int, ended bool) {
	fds := [3]unix.PollFd{
		{Fd: int32(c.pipes[0]), Events: unix.POLLIN}, // poll passes over -1
		{Fd: int32(c.pipes[1]), Events: unix.POLLIN},
		{Fd: int32(c.pidfd), Events: unix.POLLIN},
	}
	n, err := unix.Poll(fds[:], ms)
	if err != nil && err != unix.EINTR {
		panic("poll of pipes: " + err.Error()) // only descriptors that aren't ours fail
	}
	if err != nil { // a signal came
		return 0, false
	}
	bytes = -1
	for i := range c.pipes {
		if fds[i].Revents != 0 && c.pipes[i] >= 0 {
			bytes = max(bytes, 0) + t.read(e, c, i)
		}
	}
	return bytes, n > 0 && fds[2].Revents != 0
}

// read reads once from a pipe that has something, or its end, to give. It returns how many bytes.
func (t *slot) read(e *execution, c *child, i int) int {
	n, err := unix.Read(c.pipes[i], t.buf)
	if err == unix.EINTR {
		return 0
	}
	if err != nil || n == 0 {
		c.close(i)
		return 0
	}
	if e.window.Take(t.session.ctx, int64(n)) != nil {
		return n // nobody receives any more
	}
	t.session.send(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{
		Execution: e.start.GetExecution(), Stderr: i == 1, Data: append([]byte(nil), t.buf[:n]...),
	}}})
	return n
}

// closeFD closes a descriptor that nothing was written to.
func closeFD(fd int) { _ = unix.Close(fd) }

func (c *child) close(i int) {
	if c.pipes[i] >= 0 {
		closeFD(c.pipes[i])
		c.pipes[i] = -1
	}
}

func (t *slot) report(e *execution, x *driverpb.Exited, status syscall.WaitStatus, usage *syscall.Rusage, err error) {
	x.CpuMs = (usage.Utime.Nano() + usage.Stime.Nano() + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	x.PeakMemoryBytes = usage.Maxrss << 10
	failed := true
	switch {
	case err != nil:
		x.Error = "wait for the program: " + err.Error()
	case status.Signaled():
		x.Signal = unix.SignalName(status.Signal())
	default:
		x.ExitCode = int32(status.ExitStatus())
		failed = x.ExitCode != 0
	}
	if t.group == nil {
		return
	}
	if peak := t.group.Peak(); peak > 0 {
		x.PeakMemoryBytes = peak
	}
	now := t.group.Events()
	x.OutOfMemory = failed && now.OOMKills > t.seen.OOMKills
	x.OutOfPids = failed && now.PidsMax > t.seen.PidsMax
	t.seen = now
}
