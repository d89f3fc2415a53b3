package guestfs

import (
	"io/fs"
	"os"
	"strings"
	"syscall"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
)

// writing are the flags that need a writable mount; O_RDWR and O_WRONLY are
// values of the lowest bits.
const writing = experimentalsys.O_RDWR | experimentalsys.O_WRONLY | experimentalsys.O_APPEND |
	experimentalsys.O_CREAT | experimentalsys.O_TRUNC

// OpenFile implements wazero's interface. Nothing but files and directories is opened.
func (f *FS) OpenFile(p string, flag experimentalsys.Oflag, perm fs.FileMode) (experimentalsys.File, experimentalsys.Errno) {
	at, errno := f.find(p)
	if errno == experimentalsys.ENOENT && flag&experimentalsys.O_CREAT != 0 {
		return nil, experimentalsys.EROFS
	}
	if errno != 0 {
		return nil, errno
	}
	if at.node != nil && !at.node.isFile {
		return openNode(at, flag)
	}
	if flag&writing != 0 && at.mount.readOnly {
		return nil, experimentalsys.EROFS
	}
	if flag&experimentalsys.O_NOFOLLOW != 0 {
		if info, err := at.mount.root.Lstat(at.rel); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, experimentalsys.ELOOP
		}
	}
	h, err := at.mount.root.OpenFile(at.rel, hostFlags(flag), perm.Perm())
	if err != nil {
		return nil, errnoOf(err)
	}
	info, err := h.Stat()
	if err == nil {
		switch {
		case info.IsDir():
			return &dir{host: h}, 0
		case !info.Mode().IsRegular():
			err = syscall.EACCES
		case strings.HasSuffix(p, "/"):
			err = syscall.ENOTDIR
		}
	}
	if err != nil {
		h.Close()
		return nil, errnoOf(err)
	}
	return newFile(h, flag), 0
}

// openNode opens a directory of the tree. Where mounts are nested, its entries
// are those of the mount below and of the tree.
func openNode(at place, flag experimentalsys.Oflag) (experimentalsys.File, experimentalsys.Errno) {
	if flag&experimentalsys.O_EXCL != 0 && flag&experimentalsys.O_CREAT != 0 {
		return nil, experimentalsys.EEXIST
	}
	if flag&writing != 0 {
		return nil, experimentalsys.EISDIR
	}
	d := &dir{node: at.node}
	if at.mount == nil {
		return d, 0
	}
	h, err := at.mount.root.OpenFile(at.rel, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil && at.node.root != nil {
		return nil, errnoOf(err)
	}
	if err == nil {
		d.host = h
	}
	return d, 0
}

// hostFlags translates flags. O_NONBLOCK is set so that a FIFO which lies in a
// mount cannot hold the guest up before it is refused.
func hostFlags(flag experimentalsys.Oflag) int {
	host := syscall.O_NONBLOCK
	switch {
	case flag&experimentalsys.O_RDWR != 0:
		host |= os.O_RDWR
	case flag&experimentalsys.O_WRONLY != 0:
		host |= os.O_WRONLY
	}
	for _, f := range []struct {
		guest experimentalsys.Oflag
		host  int
	}{
		{experimentalsys.O_APPEND, os.O_APPEND},
		{experimentalsys.O_CREAT, os.O_CREATE},
		{experimentalsys.O_EXCL, os.O_EXCL},
		{experimentalsys.O_TRUNC, os.O_TRUNC},
		{experimentalsys.O_DIRECTORY, syscall.O_DIRECTORY},
		{experimentalsys.O_SYNC, os.O_SYNC},
		{experimentalsys.O_DSYNC, syscall.O_DSYNC},
	} {
		if flag&f.guest != 0 {
			host |= f.host
		}
	}
	return host
}
