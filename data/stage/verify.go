package stage

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// wholeAtom is an atom whose inputs are all mounted from where they lie.
type wholeAtom struct {
	atom   sheaf.Atom
	inputs []Input
}

func newWhole(a sheaf.Atom, places []*place) wholeAtom {
	w := wholeAtom{atom: a}
	for _, p := range places {
		w.inputs = append(w.inputs, p.in)
	}
	return w
}

// verify lists the inputs again.
func (w *wholeAtom) verify() error {
	h := newHasher(&w.atom)
	for _, in := range w.inputs {
		root, ok := in.Source.Local("")
		if !ok {
			return fmt.Errorf("verify inputs: the root of input %q is gone", in.Name)
		}
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return asChanged(in.Mount, err)
		}
		h.above(in.Mount)
		err = h.listing(context.Background(), &place{in: in, root: root, rootFD: fd}, "")
		closeDir(fd)
		if err != nil {
			return err
		}
	}
	return h.check()
}

// Verify checks after the run that no file of the tree changed since the split.
// Links are the originals themselves; copies cannot change with them, and were checked while they were made. The error is of class Conflict and names the file.
func (t *Tree) Verify() error {
	base, fd, last := noDir, noDir, ""
	defer func() {
		for _, d := range []int{base, fd} {
			if d != noDir {
				closeDir(d)
			}
		}
	}()
	for i := range t.linked {
		f := &t.linked[i]
		if base == noDir {
			var err error
			if base, err = unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				return fmt.Errorf("verify inputs: %w", &os.PathError{Op: "open", Path: t.dir, Err: err})
			}
		}
		if fd == noDir || f.dir != last {
			next, err := unix.Openat(base, f.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("verify inputs: %w", &os.PathError{Op: "open", Path: f.dir, Err: err})
			}
			if fd != noDir {
				closeDir(fd)
			}
			fd, last = next, f.dir
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, f.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("verify inputs: %w", &os.PathError{Op: "stat", Path: f.path, Err: err})
		}
		if now := statOf(&st); now != f.stat {
			return changed(f.path, f.stat, now)
		}
	}
	for i := range t.whole {
		if err := t.whole[i].verify(); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes what Stage made.
func (t *Tree) Remove() error {
	if t.dir == "" {
		return nil
	}
	err := os.RemoveAll(t.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
