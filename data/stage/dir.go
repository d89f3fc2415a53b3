package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	nameBatch = 1024 // names taken from a directory at once
	// maxDepth is how deep directories may nest below an atom: each level holds a descriptor.
	maxDepth = 512
)

// dir lays out a directory of a source with all below it.
func (l *layout) dir(p *place, rel string, h *hasher) error {
	fd, err := p.open(rel)
	if err != nil {
		return asChanged(p.inTree(rel), err)
	}
	return walk(fd, rel, 0, func(_ int, dir string, e os.DirEntry) error {
		return l.entry(p, below(dir, e.Name()), e, h)
	}, p.makeDir)
}

func below(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// entry lays out what lies in a directory, but for directories.
func (l *layout) entry(p *place, rel string, e os.DirEntry, h *hasher) error {
	path := p.inTree(rel)
	switch e.Type() {
	case os.ModeDir:
		h.dir(path)
		return nil
	case os.ModeSymlink:
		kind, _, err := target(p, rel)
		if err != nil {
			return err
		}
		if kind == sheaf.EntryDir {
			return nil
		}
	case 0:
	default:
		return notStageable(path, typeName(e.Type()))
	}
	st, err := l.file(p, rel, path, "")
	if err != nil {
		return err
	}
	h.file(path, st)
	return nil
}

func typeName(m os.FileMode) string {
	switch {
	case m&os.ModeNamedPipe != 0:
		return sheaf.EntryFIFO.String()
	case m&os.ModeSocket != 0:
		return sheaf.EntrySocket.String()
	}
	return sheaf.EntryDevice.String()
}

// target says what the link at rel leads to.
func target(p *place, rel string) (sheaf.EntryKind, stat, error) {
	path := p.inTree(rel)
	host, ok := p.in.Source.Local(rel)
	if !ok {
		return 0, stat{}, notStageable(path, "link that leads out of the source or to nothing")
	}
	var st unix.Stat_t
	if err := unix.Lstat(host, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return 0, stat{}, notStageable(path, sheaf.EntryDangling.String())
		}
		return 0, stat{}, asChanged(path, err)
	}
	kind := kindOf(st.Mode)
	if kind != sheaf.EntryFile && kind != sheaf.EntryDir {
		return 0, stat{}, notStageable(path, "link to a "+kind.String())
	}
	return kind, statOf(&st), nil
}

// walk calls fn for all that lies in the directory, whose descriptor it takes
// over, and enter for each directory before what lies in it.
func walk(fd int, dir string, depth int, fn func(dirFD int, dir string, e os.DirEntry) error, enter func(dir string) error) error {
	if depth > maxDepth {
		closeDir(fd)
		return &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("directories are nested too deep at %q", dir), Limit: fmt.Sprint(maxDepth) + " levels", Hint: "split by files instead of directories"}
	}
	// It was opened as a place only; reading needs a descriptor of its own.
	rd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	closeDir(fd)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(rd), dir)
	defer f.Close()
	if err := enter(dir); err != nil {
		return err
	}
	for {
		entries, err := f.ReadDir(nameBatch)
		for _, e := range entries {
			if err := fn(rd, dir, e); err != nil {
				return err
			}
		}
		for _, e := range entries {
			if e.Type() != os.ModeDir {
				continue
			}
			next, err := unix.Openat(rd, e.Name(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return asChanged(below(dir, e.Name()), err)
			}
			if err := walk(next, below(dir, e.Name()), depth+1, fn, enter); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "read directory", Path: dir, Err: err}
		}
	}
}

// hasher makes a directory atom's identity again of what is found.
type hasher struct {
	atom    *sheaf.Atom
	entries []sheaf.Entry
}

func newHasher(a *sheaf.Atom) *hasher { return &hasher{atom: a} }

// wanted reports whether the atom has an identity that can be made again.
func (h *hasher) wanted() bool { return strings.HasPrefix(h.atom.Identity, "tree:") }

func (h *hasher) dir(path string) {
	if h.wanted() {
		h.entries = append(h.entries, sheaf.Entry{Path: path, Kind: sheaf.EntryDir})
	}
}

func (h *hasher) file(path string, st stat) {
	if h.wanted() {
		h.entries = append(h.entries, sheaf.Entry{Path: path, Kind: sheaf.EntryFile, Size: st.size, MTime: st.mtime})
	}
}

// tagged adds a file whose identity its source gives.
func (h *hasher) tagged(path string, e *sheaf.Entry) {
	if h.wanted() {
		h.entries = append(h.entries, sheaf.Entry{Path: path, Kind: sheaf.EntryFile, Size: e.Size, Tag: e.Tag})
	}
}

// above adds the directories from below the atom down to a mount in it.
func (h *hasher) above(mount string) {
	for len(mount) > len(h.atom.Path) {
		h.dir(mount)
		i := strings.LastIndexByte(mount, '/')
		if mount = mount[:i]; i == 0 {
			return
		}
	}
}

// listing adds all that lies in a directory of a source, without laying it out.
func (h *hasher) listing(ctx context.Context, p *place, rel string) error {
	if !h.wanted() {
		return nil
	}
	fd, err := p.open(rel)
	if err != nil {
		return asChanged(p.inTree(rel), err)
	}
	n := 0
	return walk(fd, rel, 0, func(dirFD int, dir string, e os.DirEntry) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		path := p.inTree(below(dir, e.Name()))
		switch e.Type() {
		case os.ModeDir:
			h.dir(path)
		case os.ModeSymlink:
			kind, st, err := target(p, below(dir, e.Name()))
			if err != nil {
				return err
			}
			if kind == sheaf.EntryFile {
				h.file(path, st)
			}
		case 0:
			var st unix.Stat_t
			if err := unix.Fstatat(dirFD, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return asChanged(path, err)
			}
			h.file(path, statOf(&st))
		default:
			return notStageable(path, typeName(e.Type()))
		}
		return nil
	}, func(string) error { return nil })
}

// check compares what was found with what the split saw.
func (h *hasher) check() error {
	if !h.wanted() {
		return nil
	}
	slices.SortFunc(h.entries, func(a, b sheaf.Entry) int { return strings.Compare(a.Path, b.Path) })
	h.entries = slices.CompactFunc(h.entries, func(a, b sheaf.Entry) bool { return a.Path == b.Path })
	sum := shard.NewTreeHash(h.atom.Path)
	for i := range h.entries {
		sum.Add(&h.entries[i])
	}
	identity, size := sum.Identity()
	if identity == h.atom.Identity {
		return nil
	}
	what := "a file in it was added, removed or written to"
	if size != h.atom.Size {
		what = fmt.Sprintf("its files had %d bytes, now %d", h.atom.Size, size)
	}
	return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("directory %q changed since the split: %s", h.atom.Path, what), Hint: "run the job again, on files that stay as they are"}
}
