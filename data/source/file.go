package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// fileSource is a directory of this machine, or one file of it.
type fileSource struct {
	given  string // the path that was asked for, clean
	real   string // the root directory, links resolved
	only   string // of a single file, the name it is listed under; "" for a directory
	target string // of a single file, its name in real
	shared bool
	dir    *rootDir
}

// Shared reports what the configuration says of the directory.
func (s *fileSource) Shared() bool { return s.shared }

// Close closes the root directory.
func (s *fileSource) Close() error { return s.dir.Close() }

// List lists by walking the directories with several readers.
func (s *fileSource) List(ctx context.Context, scope Scope, yield func([]sheaf.Entry) error) error {
	if s.only == "" {
		if scope.Below != "" {
			if err := CheckPath(scope.Below); err != nil {
				return err
			}
		}
		return walk(ctx, s, scope, yield)
	}
	if scope.Below != "" {
		return notFound(scope.Below)
	}
	e, err := s.Stat(ctx, s.only)
	if err != nil {
		return err
	}
	return yield([]sheaf.Entry{e})
}

// Stat looks at one path.
func (s *fileSource) Stat(_ context.Context, path string) (sheaf.Entry, error) {
	name, err := s.name(path)
	if err != nil {
		return sheaf.Entry{}, err
	}
	st, err := s.dir.lstat(name)
	if err != nil {
		return sheaf.Entry{}, stepError("look at "+quote(path), "", err)
	}
	e := sheaf.Entry{Path: path}
	s.fill(&e, name, st)
	return e, nil
}

// fill completes an entry from what stands at name; a link is followed.
func (s *fileSource) fill(e *sheaf.Entry, name string, st fileStat) {
	if e.Kind = st.kind; e.Kind == 0 {
		st = s.follow(name)
		e.Kind = st.kind
	}
	if e.Kind == sheaf.EntryFile {
		e.Size, e.MTime = st.size, st.mtime
	}
}

// Open opens a file without leaving the root and compares it with identity.
func (s *fileSource) Open(_ context.Context, path, identity string) (File, error) {
	name, err := s.name(path)
	if err != nil {
		return nil, err
	}
	step := "open " + quote(path)
	f, err := s.dir.open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EXDEV) {
		var inside string
		if inside, err = s.resolve(name); err == nil {
			f, err = s.dir.open(inside, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS)
		}
	}
	if err != nil {
		return nil, stepError(step, "", err)
	}
	st, err := fstat(f)
	switch {
	case err != nil:
	case st.kind != sheaf.EntryFile:
		err = &sheaf.Error{Class: sheaf.Invalid, Msg: "it is a " + st.kind.String() + ", not a file"}
	case identity != "" && identity != sheaf.StatIdentity(st.size, st.mtime):
		err = &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("it was %s and is %s", identity, sheaf.StatIdentity(st.size, st.mtime)), Err: ErrChanged}
	}
	if err != nil {
		f.Close()
		return nil, stepError(step, "", err)
	}
	return &hostFile{File: f, entry: sheaf.Entry{Path: path, Kind: sheaf.EntryFile, Size: st.size, MTime: st.mtime}}, nil
}

// Local resolves links, so that what is linked to is the file itself.
func (s *fileSource) Local(path string) (string, bool) {
	if path == "" {
		return s.real, s.only == ""
	}
	name, err := s.name(path)
	if err != nil {
		return "", false
	}
	inside, err := s.resolve(name)
	if err != nil {
		return "", false
	}
	return filepath.Join(s.real, inside), true
}

// name is the path in the root directory of what is listed under path.
func (s *fileSource) name(path string) (string, error) {
	if err := CheckPath(path); err != nil {
		return "", err
	}
	if s.only == "" {
		return path, nil
	}
	if path != s.only {
		return "", notFound(path)
	}
	return s.target, nil
}

// CheckPath refuses what no listing gives: paths that are empty, absolute or not clean, with
// an error of class Invalid.
func CheckPath(path string) error {
	if path == "" || path[0] == '/' || strings.IndexByte(path, 0) >= 0 || filepath.Clean(path) != path || path == "." || path == ".." || strings.HasPrefix(path, "../") {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: "path " + quote(path) + " is not a clean path below the source"}
	}
	return nil
}

func notFound(path string) error {
	return &sheaf.Error{Class: sheaf.NotFound, Msg: "the source holds no " + quote(path)}
}

// hostFile is an open file of this machine.
type hostFile struct {
	*os.File
	entry sheaf.Entry
}

var _ io.ReaderAt = (*hostFile)(nil)

// Entry is the file as it was when it was opened.
func (f *hostFile) Entry() sheaf.Entry { return f.entry }

// Host is the open file itself.
func (f *hostFile) Host() *os.File { return f.File }

// Check looks at the open file again.
func (f *hostFile) Check() error {
	st, err := fstat(f.File)
	if err != nil {
		return stepError("look again at "+quote(f.entry.Path), "", err)
	}
	if st.size != f.entry.Size || st.mtime != f.entry.MTime {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("%s was %s and is %s", quote(f.entry.Path), f.entry.Identity(), sheaf.StatIdentity(st.size, st.mtime)), Err: ErrChanged}
	}
	return nil
}
