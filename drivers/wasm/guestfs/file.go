package guestfs

import (
	"errors"
	"os"
	"unsafe"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"
)

// file is a regular file that the guest opened. It reads and writes by the
// descriptor: os.File adds locks and, for appending files, refuses offsets.
type file struct {
	host *os.File // nil once closed
	fd   int
	flag experimentalsys.Oflag
}

var _ experimentalsys.File = (*file)(nil)

func newFile(h *os.File, flag experimentalsys.Oflag) *file {
	return &file{host: h, fd: int(h.Fd()), flag: flag}
}

// do runs a system call unless the file is closed: its descriptor may then be
// another's.
func (f *file) do(call func(fd int) error) experimentalsys.Errno {
	if f.host == nil {
		return experimentalsys.EBADF
	}
	for {
		err := call(f.fd)
		if !errors.Is(err, unix.EINTR) {
			return errnoOf(err)
		}
	}
}

// Stat implements wazero's interface, as do the methods below.
func (f *file) Stat() (sys.Stat_t, experimentalsys.Errno) {
	if f.host == nil {
		return sys.Stat_t{}, experimentalsys.EBADF
	}
	info, err := f.host.Stat()
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return sys.NewStat_t(info), 0
}

func (f *file) Dev() (uint64, experimentalsys.Errno) {
	st, errno := f.Stat()
	return st.Dev, errno
}

func (f *file) Ino() (sys.Inode, experimentalsys.Errno) {
	st, errno := f.Stat()
	return st.Ino, errno
}

func (f *file) IsDir() (bool, experimentalsys.Errno) { return false, 0 }

func (f *file) IsAppend() bool { return f.flag&experimentalsys.O_APPEND != 0 }

func (f *file) SetAppend(enable bool) experimentalsys.Errno {
	errno := f.do(func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		flags &^= unix.O_APPEND
		if enable {
			flags |= unix.O_APPEND
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
		return err
	})
	if errno == 0 {
		f.flag &^= experimentalsys.O_APPEND
		if enable {
			f.flag |= experimentalsys.O_APPEND
		}
	}
	return errno
}

// transfer runs a read or write and never gives a negative count.
func (f *file) transfer(call func(fd int) (int, error)) (n int, errno experimentalsys.Errno) {
	errno = f.do(func(fd int) (err error) {
		n, err = call(fd)
		return err
	})
	return max(n, 0), errno
}

func (f *file) Read(buf []byte) (int, experimentalsys.Errno) {
	return f.transfer(func(fd int) (int, error) { return unix.Read(fd, buf) })
}

func (f *file) Pread(buf []byte, off int64) (int, experimentalsys.Errno) {
	return f.transfer(func(fd int) (int, error) { return unix.Pread(fd, buf, off) })
}

func (f *file) Write(buf []byte) (int, experimentalsys.Errno) {
	return f.transfer(func(fd int) (int, error) { return unix.Write(fd, buf) })
}

func (f *file) Pwrite(buf []byte, off int64) (int, experimentalsys.Errno) {
	return f.transfer(func(fd int) (int, error) { return unix.Pwrite(fd, buf, off) })
}

func (f *file) Seek(offset int64, whence int) (at int64, errno experimentalsys.Errno) { //nolint:govet // the signature is wazero's
	errno = f.do(func(fd int) (err error) {
		at, err = unix.Seek(fd, offset, whence)
		return err
	})
	return at, errno
}

func (f *file) Truncate(size int64) experimentalsys.Errno {
	return f.do(func(fd int) error { return unix.Ftruncate(fd, size) })
}

func (f *file) Sync() experimentalsys.Errno { return f.do(unix.Fsync) }

func (f *file) Datasync() experimentalsys.Errno { return f.do(unix.Fdatasync) }

// Utimens needs a file opened for writing: the permission of the mount is
// that of the open file.
func (f *file) Utimens(atim, mtim int64) experimentalsys.Errno {
	if f.flag&writing == 0 {
		return experimentalsys.EBADF
	}
	return f.do(func(fd int) error {
		ts := [2]unix.Timespec{timespec(atim), timespec(mtim)}
		// Without a path the call means the descriptor itself; x/sys offers only the other form.
		_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if e != 0 {
			return e
		}
		return nil
	})
}

func (f *file) Readdir(int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	return nil, experimentalsys.ENOTDIR
}

func (f *file) Close() experimentalsys.Errno {
	h := f.host
	if h == nil {
		return 0
	}
	f.host = nil
	return errnoOf(h.Close())
}

func timespec(ns int64) unix.Timespec {
	if ns == experimentalsys.UTIME_OMIT {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(ns)
}
