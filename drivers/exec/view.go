package exec

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/mount"
)

// A view is the file system as one execution sees it: the host's, and its
// inputs and outputs at their paths. It is a mount namespace made in two steps. What is the same
// for all executions of a run, a root in which every mount point exists, is a template (shadow.go). An
// execution's thread enters the template, takes a copy of it for itself, puts the mounts in, forks,
// and goes back to the host's namespace. The child keeps the copy alive.

// templateLife is how long a template is kept unused: it holds the host's
// mounts, so that they could not be unmounted for good.
const templateLife = 10 * time.Second

// views makes views. Its methods may be called concurrently.
type views struct {
	canMount func() bool

	mu        sync.Mutex
	mountinfo *os.File       // tells when the host's mounts have changed; nil before the first template
	templates map[string]int // namespace by the key of its mount points
	expiry    *time.Timer
}

func newViews() *views {
	v := &views{templates: map[string]int{}}
	v.canMount = sync.OnceValue(func() bool {
		if os.Geteuid() != 0 {
			return false
		}
		fd, err := makeTemplate(nil)
		if err != nil {
			return false
		}
		closeFD(fd)
		return true
	})
	return v
}

// usable reports whether this process may make mounts at all.
func (v *views) usable() bool { return v.canMount() }

// point is a place where something is mounted.
type point struct {
	target string // absolute and clean
	file   bool   // what is mounted there is a file
}

// enter moves the calling thread, which shares its working directory with no
// other, into a view with these mounts. leave moves it back to host, and is never nil. A thread
// that could not go back must not be used again: that is a panic.
func (v *views) enter(host int, mounts []*driverpb.Mount) (leave func(), err error) {
	leave = func() {}
	mounts = slices.SortedFunc(slices.Values(mounts), func(a, b *driverpb.Mount) int { return strings.Compare(a.GetTarget(), b.GetTarget()) })
	points := make([]point, len(mounts))
	trees := make([]int, 0, len(mounts))
	defer func() {
		for _, fd := range trees {
			closeFD(fd)
		}
	}()
	// Sources are taken hold of here, where the host's paths mean what they say.
	for i, m := range mounts {
		fd, file, err := mount.Hold(m, mount.WithBelow)
		if err != nil {
			return leave, fmt.Errorf("mount %s: %w", m.GetTarget(), err)
		}
		trees = append(trees, fd)
		points[i] = point{m.GetTarget(), file}
	}
	template, err := v.template(points)
	if err != nil {
		return leave, err
	}
	defer closeFD(template)
	if err := unix.Setns(template, unix.CLONE_NEWNS); err != nil {
		return leave, fmt.Errorf("enter the mount namespace: %w", err)
	}
	leave = func() {
		if err := unix.Setns(host, unix.CLONE_NEWNS); err != nil {
			panic("back to the host's mount namespace: " + err.Error())
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return leave, fmt.Errorf("copy the mount namespace: %w", err)
	}
	for i, p := range points {
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, p.target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
			return leave, fmt.Errorf("mount %s: %w", p.target, err)
		}
	}
	return leave, nil
}

// template is a namespace that has these mount points, made when there is
// none or the host's mounts have changed since. The caller closes it.
func (v *views) template(points []point) (int, error) {
	var key strings.Builder
	for _, p := range points {
		fmt.Fprintf(&key, "%s\x00%t\x00", p.target, p.file)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return -1, err
	}
	if v.expiry == nil {
		v.expiry = time.AfterFunc(templateLife, v.drop)
	} else {
		v.expiry.Reset(templateLife)
	}
	fd, ok := v.templates[key.String()]
	if !ok {
		var err error
		if fd, err = makeTemplate(points); err != nil {
			return -1, fmt.Errorf("make mount points: %w", err)
		}
		v.templates[key.String()] = fd
	}
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

// refresh forgets the templates when the host's mounts are no longer those that they were made from.
func (v *views) refresh() error {
	if v.mountinfo == nil {
		f, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		v.mountinfo = f
	}
	fds := []unix.PollFd{{Fd: int32(v.mountinfo.Fd()), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0 {
		v.clear()
	}
	return nil
}

func (v *views) clear() {
	for key, fd := range v.templates {
		closeFD(fd)
		delete(v.templates, key)
	}
}

// drop forgets all templates.
func (v *views) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	if v.mountinfo != nil {
		_ = v.mountinfo.Close() // read-only
		v.mountinfo = nil
	}
	if v.expiry != nil {
		v.expiry.Stop()
		v.expiry = nil
	}
}
