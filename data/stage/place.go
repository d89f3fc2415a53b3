package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// noDir is the descriptor of no directory.
const noDir = -1

// place is an input's source and where its files go. Directories are opened
// once: atoms come in order, so that the last one is mostly the next one.
type place struct {
	in    Input
	root  string // of the source, "" where it does not say or is a single file
	host  string
	whole bool // mounted from root
	links bool // not found to be impossible

	rootFD, hostFD int
	last           string // directory of srcFD and dstFD
	srcFD, dstFD   int
	made           map[string]bool // directories below host
}

func newPlace(in Input, host string) (*place, error) {
	p := &place{in: in, host: host, links: true, rootFD: noDir, hostFD: noDir, srcFD: noDir, dstFD: noDir, made: map[string]bool{"": true}}
	var err error
	if root, ok := in.Source.Local(""); ok {
		p.root = root
		if p.rootFD, err = unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("open input %q: %w", in.Name, &os.PathError{Op: "open", Path: root, Err: err})
		}
	}
	if err = os.Mkdir(host, 0o755); err == nil {
		p.hostFD, err = unix.Open(host, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("make directory of input %q: %w", in.Name, err)
	}
	return p, nil
}

func (p *place) close() {
	for _, fd := range []int{p.rootFD, p.hostFD, p.srcFD, p.dstFD} {
		closeDir(fd)
	}
}

// enter opens a directory, given relative to the source's root, on both sides and makes it on ours.
// The root itself stays closed where the source does not say where it is.
func (p *place) enter(dir string) error {
	if p.dstFD != noDir && p.last == dir {
		return nil
	}
	src, err := p.open(dir)
	if err != nil && !errors.Is(err, errNoRoot) {
		return err
	}
	if err := p.makeDir(dir); err != nil {
		closeDir(src)
		return err
	}
	dst, err := unix.Openat(p.hostFD, path.Clean(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		closeDir(src)
		return &os.PathError{Op: "open", Path: filepath.Join(p.host, dir), Err: err}
	}
	closeDir(p.srcFD)
	closeDir(p.dstFD)
	p.srcFD, p.dstFD, p.last = src, dst, dir
	return nil
}

func closeDir(fd int) {
	if fd != noDir {
		_ = unix.Close(fd)
	}
}

var errNoRoot = errors.New("the source does not say where its root is")

// open opens a directory of the source.
func (p *place) open(dir string) (int, error) {
	if p.rootFD != noDir {
		return openBelow(p.rootFD, dir)
	}
	if dir == "" || p.far() != nil {
		return noDir, errNoRoot
	}
	host, ok := p.in.Source.Local(dir)
	if !ok {
		return noDir, unix.ENOENT
	}
	return openReal(host)
}

// openReal opens the directory at an absolute path that leads through no link.
func openReal(host string) (int, error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return noDir, err
	}
	defer func() { _ = unix.Close(root) }()
	return openBelow(root, strings.Trim(host, "/"))
}

// openBelow opens a directory name by name, through no link.
func openBelow(root int, dir string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(root, ".", flags, 0)
	if err != nil || dir == "" {
		return fd, err
	}
	for name := range strings.SplitSeq(dir, "/") {
		if name == "" || name == "." || name == ".." {
			_ = unix.Close(fd)
			return noDir, unix.EINVAL
		}
		next, err := unix.Openat(fd, name, flags, 0)
		_ = unix.Close(fd)
		if err != nil {
			return noDir, err
		}
		fd = next
	}
	return fd, nil
}

// makeDir makes a directory below host with those above it.
func (p *place) makeDir(dir string) error {
	if p.made[dir] {
		return nil
	}
	if i := strings.LastIndexByte(dir, '/'); i > 0 {
		if err := p.makeDir(dir[:i]); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(p.hostFD, dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "make directory", Path: filepath.Join(p.host, dir), Err: err}
	}
	p.made[dir] = true
	return nil
}

// split gives the directory and the name of a relative path.
func split(rel string) (dir, name string) {
	if i := strings.LastIndexByte(rel, '/'); i >= 0 {
		return rel[:i], rel[i+1:]
	}
	return "", rel
}

// inTree is where a path of the source lies in the tree.
func (p *place) inTree(rel string) string { return path.Join(p.in.Mount, rel) }

// lister is a source that lists itself.
type lister interface {
	List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error
}

// listed lays out what lies in a directory of an input by its own listing.
func (l *layout) listed(p *place, rel string, h *hasher) error {
	src, ok := p.in.Source.(lister)
	if !ok {
		return &sheaf.Error{Class: sheaf.Unavailable, Field: "input." + p.in.Name, Msg: fmt.Sprintf("the files of input %q are not on this host", p.in.Name)}
	}
	if rel != "" {
		if err := p.makeDir(rel); err != nil {
			return err
		}
	}
	return src.List(l.ctx, source.Scope{Below: rel}, func(entries []sheaf.Entry) error {
		if err := l.fetchEntries(p, entries); err != nil {
			return err
		}
		for i := range entries {
			e := &entries[i]
			at := p.inTree(e.Path)
			switch e.Kind {
			case sheaf.EntryDirLink:
			case sheaf.EntryDir:
				h.dir(at)
				if err := p.makeDir(e.Path); err != nil {
					return err
				}
			case sheaf.EntryFile:
				st, err := l.file(p, e.Path, at, "")
				if err != nil {
					return err
				}
				if e.Tag == "" {
					h.file(at, st)
				} else {
					h.tagged(at, e)
				}
			default:
				return notStageable(at, e.Kind.String())
			}
		}
		return nil
	})
}
