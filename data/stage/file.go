package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// copyBuffer is how much is copied at once where neither links nor reflinks work, in bytes.
const copyBuffer = 256 << 10

// stat is what a file is known by.
type stat struct{ size, mtime int64 }

func statOf(st *unix.Stat_t) stat { return stat{st.Size, st.Mtim.Nano()} }

func (s stat) String() string {
	return fmt.Sprintf("%d bytes written at %s", s.size, time.Unix(0, s.mtime).UTC().Format(time.RFC3339Nano))
}

// linked is a hard link, for the check after the run.
type linked struct {
	dir  string // on the host, relative to the tree's
	name string
	path string // in the tree
	stat stat
}

// put lays out the file at rel, unless it is there already: a file may stand
// in several tuples of a shard.
func (l *layout) put(p *place, rel, path, identity string) error {
	_, err := l.file(p, rel, path, identity)
	return err
}

// file lays out the file at rel and checks that it has the identity, if that is of the kind that a file can be asked for.
func (l *layout) file(p *place, rel, path, identity string) (stat, error) {
	if err := l.tick(); err != nil {
		return stat{}, err
	}
	dir, name := split(rel)
	if err := p.enter(dir); err != nil {
		return stat{}, asChanged(path, err)
	}
	if p.far() != nil {
		return l.brought(p, rel, path, identity)
	}
	if p.srcFD == noDir {
		return l.resolved(p, rel, path, identity)
	}
	if !l.links || !p.links {
		return l.copy(p, p.srcFD, name, rel, path, identity)
	}
	err := unix.Linkat(p.srcFD, name, p.dstFD, name, 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.EEXIST):
		return l.there(p, name, path)
	case noLinks(err):
		// EMLINK is of this file alone, the others of the file system or the file's owner.
		p.links = errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM)
		return l.copy(p, p.srcFD, name, rel, path, identity)
	default:
		return stat{}, asChanged(path, err)
	}
	// What was linked is looked at afterwards: it can no longer be exchanged.
	var st unix.Stat_t
	if err := unix.Fstatat(p.dstFD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stat{}, asChanged(path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if err := unix.Unlinkat(p.dstFD, name, 0); err != nil {
			return stat{}, asChanged(path, err)
		}
		return l.resolved(p, rel, path, identity)
	}
	return l.linked(p, name, path, identity, &st)
}

// linked checks a link that was made and takes note of it.
func (l *layout) linked(p *place, name, path, identity string, st *unix.Stat_t) (stat, error) {
	got, err := check(path, identity, st)
	if err != nil {
		return got, err
	}
	l.tree.linked = append(l.tree.linked, linked{dir: filepath.Base(p.host) + "/" + p.last, name: name, path: path, stat: got})
	return got, nil
}

// there looks at a file that was laid out before.
func (l *layout) there(p *place, name, path string) (stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dstFD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stat{}, asChanged(path, err)
	}
	return statOf(&st), nil
}

// resolved lays out what the link at rel leads to, into the directory that was entered.
func (l *layout) resolved(p *place, rel, path, identity string) (stat, error) {
	host, ok := p.in.Source.Local(rel)
	if !ok {
		return stat{}, notStageable(path, "link that leads out of the source or to nothing")
	}
	return l.onHost(p, host, rel, path, identity)
}

// onHost lays out a file of this host as rel, into the directory that was entered.
func (l *layout) onHost(p *place, host, rel, path, identity string) (stat, error) {
	dirFD, err := openReal(filepath.Dir(host))
	if err != nil {
		return stat{}, asChanged(path, err)
	}
	defer func() { _ = unix.Close(dirFD) }()
	name := filepath.Base(host)
	_, own := split(rel)
	if l.links && p.links {
		err := unix.Linkat(dirFD, name, p.dstFD, own, 0)
		if errors.Is(err, unix.EEXIST) {
			return l.there(p, own, path)
		}
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstatat(p.dstFD, own, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return stat{}, asChanged(path, err)
			}
			return l.linked(p, own, path, identity, &st)
		}
		if !noLinks(err) {
			return stat{}, asChanged(path, err)
		}
	}
	return l.copyAs(p, dirFD, name, own, path, identity)
}

func (l *layout) copy(p *place, dirFD int, name, rel, path, identity string) (stat, error) {
	got, err := l.copyAs(p, dirFD, name, name, path, identity)
	if errors.Is(err, unix.ELOOP) {
		return l.resolved(p, rel, path, identity)
	}
	return got, err
}

// copyAs reflinks or copies a file, and checks that it stays what it is meanwhile.
func (l *layout) copyAs(p *place, dirFD int, name, own, path, identity string) (stat, error) {
	fd, err := unix.Openat(dirFD, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return stat{}, err
	}
	if errors.Is(err, unix.ENXIO) {
		return stat{}, notStageable(path, sheaf.EntrySocket.String())
	}
	if err != nil {
		return stat{}, asChanged(path, err)
	}
	src := os.NewFile(uintptr(fd), path)
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return stat{}, asChanged(path, err)
	}
	got, err := check(path, identity, &st)
	if err != nil {
		return got, err
	}
	out, err := unix.Openat(p.dstFD, own, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, st.Mode&0o777)
	if errors.Is(err, unix.EEXIST) {
		return got, nil
	}
	if err != nil {
		return got, &os.PathError{Op: "make", Path: path, Err: err}
	}
	dst := os.NewFile(uintptr(out), path)
	defer dst.Close()
	if err := unix.IoctlFileClone(out, fd); err != nil {
		if err := l.bytes(dst, src, got.size); err != nil {
			return got, fmt.Errorf("copy %q: %w", path, err)
		}
		l.tree.Bytes += got.size
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", out), times, 0); err != nil {
		return got, fmt.Errorf("set time of %q: %w", path, err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return got, asChanged(path, err)
	}
	if now := statOf(&st); now != got {
		return got, changed(path, got, now)
	}
	return got, nil
}

// bytes copies size bytes, looking at the context between pieces.
func (l *layout) bytes(dst, src *os.File, size int64) error {
	if l.buf == nil {
		l.buf = make([]byte, copyBuffer)
	}
	for size > 0 {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := src.Read(l.buf[:min(int64(len(l.buf)), size)])
		if err != nil {
			return err
		}
		if _, err := dst.Write(l.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// noLinks reports whether a copy will do where a link did not.
func noLinks(err error) bool {
	return errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES)
}

// check compares a file with the identity that the split saw.
func check(path, identity string, st *unix.Stat_t) (stat, error) {
	got := statOf(st)
	if kind := kindOf(st.Mode); kind != sheaf.EntryFile {
		return got, notStageable(path, kind.String())
	}
	if !strings.HasPrefix(identity, "stat:") {
		return got, nil // a digest or an ETag was checked when the file was fetched
	}
	if sheaf.StatIdentity(got.size, got.mtime) == identity {
		return got, nil
	}
	var was stat
	if _, err := fmt.Sscanf(identity, "stat:%d:%d", &was.size, &was.mtime); err != nil {
		return got, fmt.Errorf("%q has the identity %q, which makes no sense", path, identity)
	}
	return got, changed(path, was, got)
}

func changed(path string, was, is stat) error {
	return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("file %q changed since the split: it had %s, now %s", path, was, is), Hint: "run the job again, on files that stay as they are"}
}

// asChanged makes of what cannot be found any more a change, and names the path in any other error.
func asChanged(path string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("file %q changed since the split: it is gone", path), Err: err}
	}
	return &os.PathError{Op: "stage", Path: path, Err: err}
}

// asGone is the error for a file of a far source that is not there any more.
func asGone(path string, err error) error {
	return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("file %q changed since the split", path), Err: err, Hint: "run the job again, on files that stay as they are"}
}

func notStageable(path, what string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q is a %s", path, what), Hint: "inputs may hold files, directories, and links to files inside the source"}
}

func kindOf(mode uint32) sheaf.EntryKind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return sheaf.EntryFile
	case unix.S_IFDIR:
		return sheaf.EntryDir
	case unix.S_IFIFO:
		return sheaf.EntryFIFO
	case unix.S_IFSOCK:
		return sheaf.EntrySocket
	}
	return sheaf.EntryDevice
}
