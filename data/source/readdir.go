package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// direntBuffer holds about a thousand names for each call of the kernel.
	direntBuffer = 64 << 10

	// statShare is the fewest files of one directory that are worth another
	// goroutine: about a millisecond of work.
	statShare = 1024
)

// item is one name of a directory.
type item struct {
	off, len int32 // in the names
	fileStat
}

// listing is a directory's content in bytewise order of the names.
type listing struct {
	names string // each ends in NUL, as the kernel takes them
	items []item
}

func (l *listing) name(i int) string {
	it := &l.items[i]
	return l.names[it.off : it.off+it.len]
}

// readDir reads a directory of the source with all that its entries say.
func (s *fileSource) readDir(path string, scratch []byte) (*listing, error) {
	dir, err := s.dir.open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, items, err := dirents(dir, scratch)
	if err != nil {
		return nil, err
	}
	stats := len(items)
	for _, it := range items {
		if it.kind != sheaf.EntryFile {
			stats-- // all that the kernel says of it is in the directory
		}
	}
	share := max(statShare, (len(items)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	errs := make([]error, (len(items)+share-1)/share)
	for n, part := 0, items; len(part) > 0; n++ {
		mine := part[:min(share, len(part))]
		part = part[len(mine):]
		if len(part) == 0 {
			errs[n] = s.statAll(dir, path, names, mine)
			break
		}
		wg.Go(func() { errs[n] = s.statAll(dir, path, names, mine) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l := &listing{names: unsafe.String(unsafe.SliceData(names), len(names)), items: items}
	l.items = slices.DeleteFunc(l.items, func(it item) bool { return it.kind == gone })
	slices.SortFunc(l.items, func(a, b item) int {
		return strings.Compare(l.names[a.off:a.off+a.len], l.names[b.off:b.off+b.len])
	})
	return l, nil
}

// gone marks a name that vanished between the reading of its directory and
// the look at it.
const gone = sheaf.EntryKind(0xff)

// Kinds that a directory entry does not settle.
const (
	kindLink    = sheaf.EntryKind(0)
	kindUnknown = sheaf.EntryKind(0xfe)
)

// dirents reads the names of a directory and what the file system says of
// their kinds.
func dirents(dir *os.File, scratch []byte) (names []byte, items []item, err error) {
	for {
		n, err := unix.Getdents(int(dir.Fd()), scratch)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, nil, &os.PathError{Op: "read", Path: dir.Name(), Err: err}
		}
		if n == 0 {
			return names, items, nil
		}
		// struct linux_dirent64: inode 8, offset 8, record length 2, type 1, name.
		for rest := scratch[:n]; len(rest) > 0; {
			length := int(binary.NativeEndian.Uint16(rest[16:]))
			kind, name := rest[18], rest[19:length]
			name = name[:bytes.IndexByte(name, 0)]
			rest = rest[length:]
			if string(name) == "." || string(name) == ".." {
				continue
			}
			items = append(items, item{off: int32(len(names)), len: int32(len(name)), fileStat: fileStat{kind: kindOfDirent(kind)}})
			names = append(append(names, name...), 0)
			if len(names) > maxNames {
				return nil, nil, &sheaf.Error{Class: sheaf.TooLarge, Msg: "the names of the directory " + quote(dir.Name()) + " do not fit in memory", Limit: "1 GiB", Hint: "spread the files over more directories"}
			}
		}
	}
}

// maxNames is the most bytes that the names of one directory may have
// together: what an item's offset can say, with room to spare.
const maxNames = 1 << 30

func kindOfDirent(t byte) sheaf.EntryKind {
	switch t {
	case unix.DT_UNKNOWN:
		return kindUnknown
	case unix.DT_LNK:
		return kindLink
	}
	return kindOfMode(uint32(t) << 12) // a dirent's type is the mode's, shifted
}

// statAll completes items with sizes, times and the targets of links.
func (s *fileSource) statAll(dir *os.File, path string, names []byte, items []item) error {
	fd := int(dir.Fd())
	for i := range items {
		it := &items[i]
		if it.kind == sheaf.EntryFile || it.kind == kindUnknown {
			st, err := statAt(fd, &names[it.off])
			if errors.Is(err, unix.ENOENT) {
				it.kind = gone
				continue
			}
			if err != nil {
				return &os.PathError{Op: "stat", Path: join(path, string(names[it.off:it.off+it.len])), Err: err}
			}
			it.fileStat = st
		}
		if it.kind == kindLink {
			it.fileStat = s.follow(join(path, string(names[it.off:it.off+it.len])))
		}
	}
	return nil
}

// statAt is statx of a name that ends in NUL, without the copy that a string
// would need: it is called once for every file that is listed.
func statAt(fd int, name *byte) (fileStat, error) {
	var st unix.Statx_t
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(name)), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
			unix.STATX_TYPE|unix.STATX_SIZE|unix.STATX_MTIME, uintptr(unsafe.Pointer(&st)), 0)
		switch errno {
		case 0:
			return fileStat{kind: kindOfMode(uint32(st.Mode)), size: int64(st.Size), mtime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)}, nil
		case unix.EINTR:
			continue
		}
		return fileStat{}, errno
	}
}

// join is the path of a name in a directory; "" is the root.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
