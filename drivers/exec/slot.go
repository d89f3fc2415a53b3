package exec

import (
	"log/slog"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/cgroup"
	"github.com/sheaf-run/agent/drivers/mount"
)

// readLen is the most that is read of a program's output at once: a whole pipe.
const readLen = 64 << 10

// slot is a thread that runs one execution after another. In cgroup v1 the
// thread itself is in the slot's group, so that children are born there. It has a working
// directory and root of its own, and ends with the slot, never to be used by other goroutines.
type slot struct {
	session *session
	name    string
	work    chan *execution // holds one, so that giving work never waits
	group   *cgroup.Group   // nil without cgroups
	seen    cgroup.Events   // at the end of the execution before
	host    int             // the host's mount namespace; -1 where views cannot be made
	buf     []byte
}

func newSlot(s *session, name string) *slot {
	return &slot{session: s, name: name, work: make(chan *execution, 1), host: -1}
}

// run is the slot's life.
func (t *slot) run() {
	mount.OffMainThread(func() {
		t.setUp()
		for e := range t.work {
			if !t.execute(e) {
				break
			}
		}
		t.tearDown()
	})
}

func (t *slot) setUp() {
	t.buf = make([]byte, readLen)
	if area, err := t.session.driver.cgroups(); err == nil {
		if err := t.enter(area); err != nil {
			slog.Warn("executions run without limits", "error", err)
		}
	}
	if t.session.driver.views.usable() {
		fd, err := mount.Namespace()
		if err == nil {
			err = unix.Unshare(unix.CLONE_FS)
		}
		if err != nil {
			slog.Warn("executions run without mounts", "error", err)
			return
		}
		t.host = fd
	}
}

func (t *slot) enter(area *cgroup.Area) error {
	g, err := area.Group(t.name)
	if err != nil {
		return err
	}
	if err := g.Enter(); err != nil {
		_ = g.Remove() // best effort: the first error counts
		return err
	}
	t.group, t.seen = g, g.Events()
	return nil
}

func (t *slot) tearDown() {
	if t.host >= 0 {
		closeFD(t.host)
	}
	if t.group == nil {
		return
	}
	t.group.Kill()
	err := t.group.Leave()
	if err == nil {
		err = t.group.Remove()
	}
	if err != nil {
		slog.Warn("a cgroup is left", "error", err)
	}
}

// cleared ends what the execution left behind and reports whether the slot is good for another.
func (t *slot) cleared(pid int) bool {
	if t.group == nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // most often nobody is left to get it
		return true
	}
	return t.group.Kill()
}
