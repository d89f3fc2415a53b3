// Package mount is what drivers that put an execution's files in place have in
// common: mounts that are held before anything shows them, and threads that may look at
// another file system than the rest of the process.
package mount

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// Below says what becomes of what is mounted below a source.
type Below bool

// What is mounted below a source is taken along or left out.
const (
	WithBelow    Below = true
	WithoutBelow Below = false
)

// Hold opens a detached mount of what m names, which nobody sees until it is
// moved into place. It is read-only where m is, and has no devices and no set-user-ID programs.
func Hold(m *driverpb.Mount, below Below) (fd int, file bool, err error) {
	if t := m.GetTarget(); !filepath.IsAbs(t) || filepath.Clean(t) != t || t == "/" || strings.IndexByte(t, 0) >= 0 {
		return -1, false, errors.New("not an absolute, clean path below the root")
	}
	var st unix.Stat_t
	if err := unix.Stat(m.GetSource(), &st); err != nil {
		return -1, false, fmt.Errorf("source %s: %w", m.GetSource(), err)
	}
	recursive := uint(0)
	if below {
		recursive = unix.AT_RECURSIVE
	}
	fd, err = unix.OpenTree(unix.AT_FDCWD, m.GetSource(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
	if err != nil {
		return -1, false, fmt.Errorf("source %s: %w", m.GetSource(), err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if m.GetReadOnly() {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if !below { // nor is what is mounted there later
		attr.Propagation = unix.MS_PRIVATE
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, attr); err != nil {
		_ = unix.Close(fd)
		return -1, false, fmt.Errorf("source %s read-only: %w", m.GetSource(), err)
	}
	return fd, st.Mode&unix.S_IFMT != unix.S_IFDIR, nil
}

// Namespace opens the mount namespace that the calling thread is in.
func Namespace() (int, error) {
	return unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// OffMainThread runs f on a thread that ends with it, so that f may change what is the
// thread's own. It is never the process' first thread, which is what others see of the process, and in cgroup v1
// is charged for its memory.
func OffMainThread(f func()) {
	done := make(chan struct{})
	var attempt func()
	attempt = func() {
		runtime.LockOSThread() // without an unlock the thread ends with its goroutine
		if unix.Gettid() != unix.Getpid() {
			defer close(done)
			f()
			return
		}
		// While this goroutine holds the first thread the next gets another.
		go attempt()
		<-done
		runtime.UnlockOSThread()
	}
	go attempt()
	<-done
}
