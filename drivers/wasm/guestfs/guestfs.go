// Package guestfs is the file tree of a WebAssembly guest: the mounts of an
// execution at their paths, and above them directories that hold nothing else.
//
// Every access goes through an os.Root of the mount it falls into, so no path
// and no symbolic link, whoever made it, leads out of a mount. Read-only mounts refuse
// every change. Links and renames between mounts are refused.
//
// wazero's own directory mounts do none of this: a guest can make a symbolic
// link to the host and read through it. A tree serves one guest and is not safe for
// concurrent use, as guests have a single thread.
package guestfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// Mount shows a file or directory of the host at a path of the guest.
type Mount struct {
	Source   string // absolute, on the host
	Target   string // absolute, in the guest
	ReadOnly bool
}

// FS is the tree. It implements wazero's file system interface.
type FS struct {
	experimentalsys.UnimplementedFS

	top   *node
	nodes uint64 // made so far; numbers the next one
}

var _ experimentalsys.FS = (*FS)(nil)

// node is a mount, or a directory that is only there because a mount lies below it.
type node struct {
	name     string
	ino      uint64
	children []*node  // by name
	root     *os.Root // nil: no mount
	base     string   // what is shown of root: "." or, for a file, its name
	isFile   bool
	readOnly bool
}

// New opens the mounts. The caller closes the tree.
func New(mounts []Mount) (*FS, error) {
	f := &FS{}
	f.top = f.newNode("/")
	for _, m := range mounts {
		if err := f.mount(m); err != nil {
			f.Close()
			return nil, fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
		}
	}
	return f, nil
}

// Close closes the mounts. Files that the guest opened are closed by wazero.
func (f *FS) Close() { f.top.close() }

func (n *node) close() {
	if n.root != nil {
		_ = n.root.Close()
	}
	for _, c := range n.children {
		c.close()
	}
}

func (f *FS) newNode(name string) *node {
	f.nodes++
	return &node{name: name, ino: f.nodes}
}

func (f *FS) mount(m Mount) error {
	if !path.IsAbs(m.Target) || !filepath.IsAbs(m.Source) {
		return errors.New("the path is not absolute")
	}
	at := f.top
	for _, name := range segments(m.Target) {
		next := at.child(name)
		if next == nil {
			next = f.newNode(name)
			at.children = append(at.children, next)
			sort.Slice(at.children, func(i, j int) bool { return at.children[i].name < at.children[j].name })
		}
		at = next
	}
	if at.root != nil {
		return errors.New("something is mounted there already")
	}
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	at.readOnly = m.ReadOnly
	switch {
	case info.IsDir():
		at.base = "."
		at.root, err = os.OpenRoot(m.Source)
	case info.Mode().IsRegular():
		at.isFile, at.base = true, filepath.Base(m.Source)
		at.root, err = os.OpenRoot(filepath.Dir(m.Source))
	default:
		err = fmt.Errorf("it is neither a file nor a directory (%s)", info.Mode().Type())
	}
	return err
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// segments splits a path; "..", which cannot lead above the top, is cleaned away.
func segments(p string) []string {
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// place is where a path leads.
type place struct {
	node  *node  // set when the path names a node of the tree itself
	mount *node  // the mount it falls into; nil above all mounts
	rel   string // within mount.root
}

// find resolves a path. It is ENOENT above the mounts where there is no node.
func (f *FS) find(p string) (place, experimentalsys.Errno) {
	at := place{node: f.top}
	if f.top.root != nil {
		at.mount, at.rel = f.top, f.top.base
	}
	for _, name := range segments(p) {
		if at.mount != nil {
			at.rel = path.Join(at.rel, name)
		}
		if at.node != nil {
			if at.node.isFile {
				return at, experimentalsys.ENOTDIR
			}
			at.node = at.node.child(name)
		}
		switch {
		case at.node == nil && at.mount == nil:
			return at, experimentalsys.ENOENT
		case at.node != nil && at.node.root != nil:
			at.mount, at.rel = at.node, at.node.base
		}
	}
	return at, 0
}

// change resolves a path that is to be made, altered or removed.
func (f *FS) change(p string) (place, experimentalsys.Errno) {
	at, errno := f.find(p)
	switch {
	case errno == experimentalsys.ENOENT, errno == 0 && (at.mount == nil || at.mount.readOnly):
		return at, experimentalsys.EROFS
	case errno == 0 && at.node != nil:
		return at, experimentalsys.EPERM // the mounts stay where they are
	}
	return at, errno
}

// stat describes a node that is no mount.
func (n *node) stat() sys.Stat_t {
	return sys.Stat_t{Ino: n.ino, Mode: fs.ModeDir | 0o555, Nlink: 2}
}

// errnoOf is what the guest is told of a host's error.
func errnoOf(err error) experimentalsys.Errno {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		switch e {
		case syscall.EXDEV:
			return experimentalsys.ENOTSUP
		case syscall.ENXIO:
			return experimentalsys.EACCES
		}
		return experimentalsys.UnwrapOSError(e)
	}
	for _, known := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrInvalid, fs.ErrClosed} {
		if errors.Is(err, known) {
			return experimentalsys.UnwrapOSError(known)
		}
	}
	return experimentalsys.EPERM // a path that leads out of its os.Root
}
