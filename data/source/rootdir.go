package source

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// busyTries is how often an open is tried again that the kernel gave up
// because a directory on the way was being renamed.
const busyTries = 16

// rootDir opens what lies below one directory, and nothing else: the kernel
// refuses each path that would leave it (EXDEV). Where the kernel has no such call, os.Root
// walks the path itself.
type rootDir struct {
	fd   *os.File
	root *os.Root // nil where the kernel does it
}

// openRoot opens the directory at path, which leads through no link.
func openRoot(path string) (*rootDir, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if err == nil {
		return &rootDir{fd: os.NewFile(uintptr(fd), path)}, nil
	}
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return openPortableRoot(path)
}

// openPortableRoot is openRoot for kernels before 5.6 and sandboxes that hide the call.
func openPortableRoot(path string) (*rootDir, error) {
	fd, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		fd.Close()
		return nil, err
	}
	return &rootDir{fd: fd, root: root}, nil
}

// Close closes the directory.
func (r *rootDir) Close() error {
	err := r.fd.Close()
	if r.root != nil {
		err = errors.Join(err, r.root.Close())
	}
	return err
}

// open opens the file at a path below the root; "" is the root. Flags and resolve are those
// of openat2; what resolve forbids beside leaving is left to the caller's checks on other kernels.
func (r *rootDir) open(path string, flags int, resolve uint64) (*os.File, error) {
	if path == "" {
		path = "."
	}
	if r.root != nil {
		return r.openPortable(path, flags)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(int(r.fd.Fd()), path, &how)
		switch {
		case err == nil && flags&unix.O_PATH == 0 && flags&unix.O_NONBLOCK != 0:
			// The flag was there for the open of a FIFO alone.
			f := os.NewFile(uintptr(fd), path)
			if err = unix.SetNonblock(fd, false); err != nil {
				f.Close()
				return nil, &os.PathError{Op: "open", Path: path, Err: err}
			}
			return f, nil
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN) && try < busyTries:
			continue
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
}

// openPortable gives the errors of the kernel's call.
func (r *rootDir) openPortable(path string, flags int) (*os.File, error) {
	f, err := r.root.OpenFile(path, flags, 0)
	return f, portableError(path, err)
}

// portableError makes os.Root's word for a path that leaves it, which has no
// value of its own, the kernel's.
func portableError(path string, err error) error {
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		return &os.PathError{Op: "open", Path: path, Err: unix.EXDEV}
	}
	return err
}

// lstat looks at what stands at a path below the root, without following a
// link there.
func (r *rootDir) lstat(path string) (fileStat, error) {
	if r.root != nil {
		info, err := r.root.Lstat(path)
		return statOfInfo(info), portableError(path, err)
	}
	return r.statBy(path, unix.O_NOFOLLOW)
}

// stat is lstat, but follows a link inside the root.
func (r *rootDir) stat(path string) (fileStat, error) {
	if r.root != nil {
		info, err := r.root.Stat(path)
		return statOfInfo(info), portableError(path, err)
	}
	return r.statBy(path, 0)
}

func (r *rootDir) statBy(path string, flags int) (fileStat, error) {
	f, err := r.open(path, unix.O_PATH|flags, 0)
	if err != nil {
		return fileStat{}, err
	}
	defer f.Close()
	return fstat(f)
}

// readlink is the target of the link at a path below the root; EINVAL if it is none.
func (r *rootDir) readlink(path string) (string, error) {
	if r.root != nil {
		target, err := r.root.Readlink(path)
		return target, portableError(path, err)
	}
	f, err := r.open(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if errors.Is(err, unix.ENOENT) { // the kernel's answer to an empty path on what is no link
		err = unix.EINVAL
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// fileStat is what a listing needs of a file. Kind 0 is a link.
type fileStat struct {
	kind  sheaf.EntryKind
	size  int64
	mtime int64
}

func fstat(f *os.File) (fileStat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileStat{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fileStat{kind: kindOfMode(st.Mode), size: st.Size, mtime: st.Mtim.Nano()}, nil
}

// kindOfMode is the kind that a mode of stat says, 0 for links.
func kindOfMode(mode uint32) sheaf.EntryKind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return sheaf.EntryFile
	case unix.S_IFDIR:
		return sheaf.EntryDir
	case unix.S_IFLNK:
		return 0
	case unix.S_IFIFO:
		return sheaf.EntryFIFO
	case unix.S_IFSOCK:
		return sheaf.EntrySocket
	}
	return sheaf.EntryDevice
}

func statOfInfo(info fs.FileInfo) fileStat {
	if info == nil {
		return fileStat{}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileStat{kind: kindOfMode(st.Mode), size: st.Size, mtime: info.ModTime().UnixNano()}
	}
	return fileStat{kind: sheaf.EntryDevice}
}
