package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/mount"
)

// maxShadowed is how many entries a directory may have in which a mount point
// is missing: each becomes a mount.
const maxShadowed = 2000

// makeTemplate makes a mount namespace in which every point exists and
// returns it open. Nothing is made on the host for that: a directory in which one is
// missing is replaced by one in memory, whose entries are the host's, mounted one by one, and the point.
func makeTemplate(points []point) (ns int, err error) {
	ns = -1
	mount.OffMainThread(func() {
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("unshare: %w", err)
			return
		}
		// What the host mounts or unmounts later is seen here; what is mounted here isn't seen by the host.
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			err = fmt.Errorf("keep mounts to ourselves: %w", err)
			return
		}
		if err = shadow(points); err != nil {
			return
		}
		ns, err = mount.Namespace()
	})
	return ns, err
}

// node is a directory on the way to mount points; one without children is a point.
type node struct {
	children map[string]*node
	file     bool
}

func (n *node) add(path string, file bool) {
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if n.children == nil {
			n.children = map[string]*node{}
		}
		if n.children[name] == nil {
			n.children[name] = &node{}
		}
		n = n.children[name]
	}
	n.file = file
}

// missing reports whether a point at or below path does not exist.
func (n *node) missing(path string) bool {
	if _, err := os.Lstat(path); err != nil {
		return true
	}
	for name, child := range n.children {
		if child.missing(filepath.Join(path, name)) {
			return true
		}
	}
	return false
}

// part is one entry of the new root.
type part struct {
	path string
	info fs.FileInfo // of the host's entry; nil for what is new
	dir  bool
	link string // of a symlink
	tree int    // the host's entry as a detached mount; -1 when there is none
}

// shadow replaces the root of the calling thread's namespace by one in which
// the points exist. It does nothing when they all do.
func shadow(points []point) error {
	top := &node{}
	for _, p := range points {
		resolved, err := resolve(p.target)
		if err != nil {
			return err
		}
		top.add(resolved, p.file)
	}
	if !top.missing("/") {
		return nil
	}
	var parts []part
	defer func() {
		for _, p := range parts {
			if p.tree >= 0 {
				closeFD(p.tree)
			}
		}
	}()
	// All of the host is taken hold of before the new root hides a part of it.
	if err := collect(top, "/", &parts); err != nil {
		return err
	}
	stage := ""
	for _, p := range parts {
		if p.dir && p.info != nil && filepath.Dir(p.path) == "/" {
			stage = p.path
			break
		}
	}
	if stage == "" {
		return errors.New("the host's root has no directory")
	}
	options := fmt.Sprintf("mode=755,size=1m,nr_inodes=%d", len(parts)+16)
	if err := unix.Mount("sheaf", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	syscall.Umask(0) // the thread's own: modes are the host's
	for _, p := range parts {
		if err := p.place(stage); err != nil {
			return fmt.Errorf("place %s: %w", p.path, err)
		}
	}
	// One execution's additions would be seen by the next: there are none.
	if err := unix.MountSetattr(unix.AT_FDCWD, stage, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	if err := unix.Chdir(stage); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	// The old root now lies upon the new one, at the same place.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// resolve follows the symlinks of that part of path which exists.
func resolve(path string) (string, error) {
	for at, rest := path, ""; ; {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest)
	}
}

// collect lists what the directory at path, in which points are missing, is made of.
func collect(n *node, path string, parts *[]part) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > maxShadowed {
		return fmt.Errorf("%s has %d entries, too many to mount something new in it (limit %d): choose another path", path, len(entries), maxShadowed)
	}
	here := map[string]bool{}
	for _, e := range entries {
		at := filepath.Join(path, e.Name())
		here[e.Name()] = true
		info, err := e.Info()
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			return err
		}
		p := part{path: at, info: info, dir: e.IsDir(), tree: -1}
		child := n.children[e.Name()]
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			p.link, err = os.Readlink(at)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
		case child != nil && e.IsDir() && child.missing(at):
			*parts = append(*parts, p)
			if err := collect(child, at, parts); err != nil {
				return err
			}
			continue
		default:
			p.tree, err = unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("hold %s: %w", at, err)
			}
		}
		*parts = append(*parts, p)
	}
	for name, child := range n.children {
		if !here[name] {
			child.fresh(filepath.Join(path, name), parts)
		}
	}
	return nil
}

// fresh lists directories that exist nowhere on the host.
func (n *node) fresh(path string, parts *[]part) {
	*parts = append(*parts, part{path: path, dir: !n.file, tree: -1})
	for name, child := range n.children {
		child.fresh(filepath.Join(path, name), parts)
	}
}

// place makes the part in the new root.
func (p *part) place(root string) error {
	path := root + p.path
	switch {
	case p.link != "":
		return os.Symlink(p.link, path)
	case p.dir:
		mode := uint32(0o755)
		if p.info != nil {
			mode = p.info.Sys().(*syscall.Stat_t).Mode & 0o7777
		}
		if err := unix.Mkdir(path, mode); err != nil {
			return err
		}
		if p.info != nil && p.tree < 0 { // its owner shows through only where nothing is mounted on it
			st := p.info.Sys().(*syscall.Stat_t)
			if err := unix.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	default:
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		closeFD(fd)
	}
	if p.tree < 0 {
		return nil
	}
	err := unix.MoveMount(p.tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if errors.Is(err, fs.ErrNotExist) { // the host removed it since it was taken hold of
		return os.Remove(path)
	}
	return err
}
