package result

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// place is the directory of the folder that a worker writes to at the moment. It stays open, since the next
// file is most often there too: the folder's root opens every directory of a path for each name in it.
type place struct {
	name string
	dir  *os.File
}

// enter goes to a directory, which is made if it is not there.
func (p *place) enter(w *writer, name string) error {
	if p.dir != nil && p.name == name {
		return nil
	}
	p.leave()
	if err := w.makeDir(name); err != nil {
		return err
	}
	dir, err := w.root.Open(name)
	if err != nil {
		return err
	}
	p.name, p.dir = name, dir
	return nil
}

func (p *place) leave() {
	if p.dir != nil {
		p.dir.Close()
		p.dir = nil
	}
}

// The following take the name of an entry of a directory, never a path, and follow no link.

func lstatAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func renameAt(from *os.File, name string, to *os.File, as string) error {
	if err := unix.Renameat(int(from.Fd()), name, int(to.Fd()), as); err != nil {
		return &os.LinkError{Op: "rename", Old: name, New: as, Err: err}
	}
	return nil
}
