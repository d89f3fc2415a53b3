package guestfs

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"
)

// dirBuffer is what is read of a directory at once: some hundred entries.
const dirBuffer = 16 << 10

// dir is an open directory: of a mount, of the tree, or of both where a mount
// lies within another's.
type dir struct {
	experimentalsys.DirFile

	node    *node    // nil in the depth of a mount
	host    *os.File // nil above the mounts
	closed  bool
	started bool // the tree's entries were given
	ended   bool // the host's entries are at their end
	waiting []experimentalsys.Dirent
	buf     []byte
}

var _ experimentalsys.File = (*dir)(nil)

// Stat implements wazero's interface, as do the methods below.
func (d *dir) Stat() (sys.Stat_t, experimentalsys.Errno) {
	switch {
	case d.closed:
		return sys.Stat_t{}, experimentalsys.EBADF
	case d.host == nil:
		return d.node.stat(), 0
	}
	info, err := d.host.Stat()
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return sys.NewStat_t(info), 0
}

func (d *dir) Dev() (uint64, experimentalsys.Errno) {
	st, errno := d.Stat()
	return st.Dev, errno
}

func (d *dir) Ino() (sys.Inode, experimentalsys.Errno) {
	st, errno := d.Stat()
	return st.Ino, errno
}

// Seek goes back to the start, the only place that is known.
func (d *dir) Seek(offset int64, whence int) (int64, experimentalsys.Errno) { //nolint:govet // the signature is wazero's
	switch {
	case d.closed:
		return 0, experimentalsys.EBADF
	case offset != 0 || whence != 0:
		return 0, experimentalsys.EINVAL
	}
	d.started, d.ended, d.waiting = false, false, nil
	if d.host != nil {
		if _, err := unix.Seek(int(d.host.Fd()), 0, 0); err != nil {
			return 0, errnoOf(err)
		}
	}
	return 0, 0
}

// Readdir gives up to n entries, or all for n < 1; fewer than n only at the end.
func (d *dir) Readdir(n int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	if d.closed {
		return nil, experimentalsys.EBADF
	}
	if !d.started {
		d.started = true
		d.waiting = d.treeEntries()
	}
	for (n < 1 || len(d.waiting) < n) && !d.ended {
		if d.host == nil {
			d.ended = true
		} else if err := d.fill(); err != nil {
			return nil, errnoOf(err)
		}
	}
	if n < 1 || n > len(d.waiting) {
		n = len(d.waiting)
	}
	entries := d.waiting[:n:n]
	d.waiting = d.waiting[n:]
	return entries, 0
}

func (d *dir) treeEntries() []experimentalsys.Dirent {
	if d.node == nil {
		return nil
	}
	entries := make([]experimentalsys.Dirent, len(d.node.children))
	for i, c := range d.node.children {
		entries[i] = experimentalsys.Dirent{Ino: c.ino, Name: c.name, Type: fs.ModeDir}
		if c.isFile {
			entries[i].Type = 0
		}
	}
	return entries
}

// fill reads more of the host's entries. Unlike os.File it gives inode numbers
// without a stat of each; the layout is linux_dirent64 of getdents64(2).
func (d *dir) fill() error {
	if d.buf == nil {
		d.buf = make([]byte, dirBuffer)
	}
	fd := int(d.host.Fd())
	n, err := unix.Getdents(fd, d.buf)
	if err != nil {
		return err
	}
	d.ended = n <= 0
	for b := d.buf[:max(n, 0)]; len(b) > 19; {
		ino, length, typ := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint16(b[16:]), b[18]
		raw, _, _ := bytes.Cut(b[19:length], []byte{0})
		name := string(raw)
		b = b[length:]
		if name == "." || name == ".." || d.node != nil && d.node.child(name) != nil {
			continue
		}
		d.waiting = append(d.waiting, experimentalsys.Dirent{Ino: ino, Name: name, Type: entryType(fd, name, typ)})
	}
	return nil
}

// entryType asks the file system where the directory does not say.
func entryType(fd int, name string, typ byte) fs.FileMode {
	if typ == unix.DT_UNKNOWN {
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			typ = byte(st.Mode & unix.S_IFMT >> 12)
		}
	}
	switch typ {
	case unix.DT_DIR:
		return fs.ModeDir
	case unix.DT_REG:
		return 0
	case unix.DT_LNK:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

func (d *dir) Sync() experimentalsys.Errno     { return 0 }
func (d *dir) Datasync() experimentalsys.Errno { return 0 }

func (d *dir) Utimens(int64, int64) experimentalsys.Errno { return experimentalsys.EPERM }

func (d *dir) Close() experimentalsys.Errno {
	if d.closed {
		return 0
	}
	d.closed = true
	if d.host == nil {
		return 0
	}
	return errnoOf(d.host.Close())
}
