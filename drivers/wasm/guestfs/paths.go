package guestfs

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// Stat implements wazero's interface.
func (f *FS) Stat(p string) (sys.Stat_t, experimentalsys.Errno) {
	return f.statBy(p, (*os.Root).Stat)
}

// Lstat implements wazero's interface.
func (f *FS) Lstat(p string) (sys.Stat_t, experimentalsys.Errno) {
	return f.statBy(p, (*os.Root).Lstat)
}

func (f *FS) statBy(p string, stat func(*os.Root, string) (fs.FileInfo, error)) (sys.Stat_t, experimentalsys.Errno) {
	at, errno := f.find(p)
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	if at.node != nil && at.node.root == nil {
		return at.node.stat(), 0
	}
	info, err := stat(at.mount.root, at.rel)
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	if strings.HasSuffix(p, "/") && !info.IsDir() {
		return sys.Stat_t{}, experimentalsys.ENOTDIR
	}
	return sys.NewStat_t(info), 0
}

// Mkdir implements wazero's interface.
func (f *FS) Mkdir(p string, perm fs.FileMode) experimentalsys.Errno {
	if at, errno := f.find(p); errno == 0 && at.node != nil {
		return experimentalsys.EEXIST
	}
	at, errno := f.change(p)
	if errno != 0 {
		return errno
	}
	return errnoOf(at.mount.root.Mkdir(at.rel, perm.Perm()))
}

// Chmod implements wazero's interface.
func (f *FS) Chmod(p string, perm fs.FileMode) experimentalsys.Errno {
	at, errno := f.change(p)
	if errno != 0 {
		return errno
	}
	return errnoOf(at.mount.root.Chmod(at.rel, perm.Perm()))
}

// Rename implements wazero's interface. Both paths must lie in one mount.
func (f *FS) Rename(from, to string) experimentalsys.Errno {
	a, b, errno := f.changeTwo(from, to)
	if errno != 0 {
		return errno
	}
	return errnoOf(a.mount.root.Rename(a.rel, b.rel))
}

// Link implements wazero's interface. Both paths must lie in one mount: a link from an
// input would let the guest write to the input's own bytes.
func (f *FS) Link(from, to string) experimentalsys.Errno {
	a, b, errno := f.changeTwo(from, to)
	if errno != 0 {
		return errno
	}
	return errnoOf(a.mount.root.Link(a.rel, b.rel))
}

func (f *FS) changeTwo(from, to string) (a, b place, errno experimentalsys.Errno) {
	if a, errno = f.change(from); errno != 0 {
		return a, b, errno
	}
	if b, errno = f.change(to); errno != 0 {
		return a, b, errno
	}
	if a.mount != b.mount {
		errno = experimentalsys.ENOTSUP
	}
	return a, b, errno
}

// Rmdir implements wazero's interface.
func (f *FS) Rmdir(p string) experimentalsys.Errno {
	return f.remove(p, true)
}

// Unlink implements wazero's interface.
func (f *FS) Unlink(p string) experimentalsys.Errno {
	return f.remove(p, false)
}

func (f *FS) remove(p string, dir bool) experimentalsys.Errno {
	at, errno := f.change(p)
	if errno != 0 {
		return errno
	}
	info, err := at.mount.root.Lstat(at.rel)
	switch {
	case err != nil:
		return errnoOf(err)
	case dir && !info.IsDir():
		return experimentalsys.ENOTDIR
	case !dir && info.IsDir():
		return experimentalsys.EISDIR
	}
	return errnoOf(at.mount.root.Remove(at.rel))
}

// Symlink implements wazero's interface. The link's target must be relative
// and stay inside the mount, so that nobody who later walks the output with less care is led out.
// A link that a rename turned outwards still leads nowhere: os.Root refuses it.
func (f *FS) Symlink(target, link string) experimentalsys.Errno {
	at, errno := f.change(link)
	if errno != 0 {
		return errno
	}
	target = strings.Clone(target) // it lies in the guest's memory
	if path.IsAbs(target) {
		return experimentalsys.EPERM
	}
	end := path.Join(path.Dir(at.rel), target)
	if end == ".." || strings.HasPrefix(end, "../") {
		return experimentalsys.EPERM
	}
	return errnoOf(at.mount.root.Symlink(target, at.rel))
}

// Readlink implements wazero's interface.
func (f *FS) Readlink(p string) (string, experimentalsys.Errno) {
	at, errno := f.find(p)
	if errno != 0 {
		return "", errno
	}
	if at.node != nil {
		return "", experimentalsys.EINVAL
	}
	target, err := at.mount.root.Readlink(at.rel)
	return target, errnoOf(err)
}

// Utimens implements wazero's interface.
func (f *FS) Utimens(p string, atim, mtim int64) experimentalsys.Errno {
	at, errno := f.change(p)
	if errno != 0 {
		return errno
	}
	return errnoOf(at.mount.root.Chtimes(at.rel, timeOf(atim), timeOf(mtim)))
}

// timeOf is the zero time, which leaves a time as it is, for UTIME_OMIT.
func timeOf(ns int64) time.Time {
	if ns == experimentalsys.UTIME_OMIT {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
