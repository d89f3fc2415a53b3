package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// OutputDirs makes an empty directory for each named output of an attempt.
// What an earlier, unrecorded start of the same attempt left there is removed. The directories are
// writable for every user, since the task may be any; the run's directory above them lets nobody in.
func (r *Run) OutputDirs(k Key, outputs []string) ([]output.Dir, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	step := "make output directories of " + string(sheaf.NewExecutionID(r.id, k.Partition, k.Attempt))
	r.mu.Lock()
	err := r.makeDir()
	r.mu.Unlock()
	if err != nil {
		return nil, noRoom(step, r.dir, err)
	}
	base := r.attemptDir("out", k)
	err = os.Mkdir(base, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(base), 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(base, 0o755)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		if err = os.RemoveAll(base); err == nil {
			err = os.Mkdir(base, 0o755)
		}
	}
	if err != nil {
		return nil, noRoom(step, r.dir, err)
	}
	dirs := make([]output.Dir, 0, len(outputs))
	for _, name := range outputs {
		if err := sheaf.CheckName("output", name); err != nil {
			return nil, err
		}
		d := output.Dir{Name: name, Host: filepath.Join(base, name)}
		if err := os.Mkdir(d.Host, 0o777); err != nil {
			return nil, noRoom(step, r.dir, err)
		}
		if err := os.Chmod(d.Host, 0o777); err != nil { // past the umask
			return nil, noRoom(step, r.dir, err)
		}
		dirs = append(dirs, d)
	}
	return dirs, nil
}

// DeleteOutput removes the output files of an attempt that was superseded or
// cancelled; its record and logs stay. What is not there is no error.
func (r *Run) DeleteOutput(k Key) error {
	if err := os.RemoveAll(r.attemptDir("out", k)); err != nil {
		return fmt.Errorf("delete output of %s: %w", sheaf.NewExecutionID(r.id, k.Partition, k.Attempt), err)
	}
	return nil
}

// Strays calls fn for each attempt that has output files here and no record.
// An attempt that runs is one of them.
func (r *Run) Strays(fn func(Key) error) error {
	d, err := os.Open(filepath.Join(r.dir, "out"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list outputs of run %s: %w", r.id, err)
	}
	defer d.Close()
	rd := r.reader()
	defer rd.close()
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			k, ok := parseKey(name)
			if !ok {
				continue
			}
			e, err := r.entry(k.Partition)
			if err == nil {
				err = r.find(rd, e, k, func(*decoded) {})
			}
			if err == nil {
				continue
			}
			if sheaf.ClassOf(err) != sheaf.NotFound && !r.heal(err) {
				return err
			}
			if err := fn(k); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list outputs of run %s: %w", r.id, err)
		}
	}
}

func parseKey(name string) (Key, bool) {
	p, a, ok := strings.Cut(name, ".")
	partition, err1 := strconv.Atoi(p)
	attempt, err2 := strconv.ParseUint(a, 10, 32)
	k := Key{partition, uint32(attempt)}
	return k, ok && err1 == nil && err2 == nil && k.check() == nil
}

// OpenFile opens length bytes from offset of an output file; length 0 is to its end.
// Links inside the output are followed, nothing outside it is ever opened.
func (r *Run) OpenFile(k Key, outputName, path string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length < 0 {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("offset %d and length %d", offset, length), Hint: "neither may be negative"}
	}
	f, _, err := r.OpenSized(k, outputName, path)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	if length == 0 {
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, length), f}, nil
}

// OpenSized opens a file of a committed output, and says how long it is. The caller closes it.
func (r *Run) OpenSized(k Key, outputName, path string) (*os.File, int64, error) {
	if err := k.check(); err != nil {
		return nil, 0, err
	}
	if err := sheaf.CheckName("output", outputName); err != nil {
		return nil, 0, err
	}
	if err := output.CheckPath(path); err != nil {
		return nil, 0, err
	}
	// The root is above the output's directory, which a task that runs as root can replace by a link.
	root, err := os.OpenRoot(r.attemptDir("out", k))
	if err != nil {
		return nil, 0, r.openError(k, outputName, path, err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(outputName+"/"+path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, r.openError(k, outputName, path, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q of output %q is no file", output.Clip(path), outputName)}
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (r *Run) openError(k Key, outputName, path string, err error) error {
	class := sheaf.Invalid // it leads outside, or through a file
	if errors.Is(err, fs.ErrNotExist) {
		class = sheaf.NotFound
	}
	var errno unix.Errno
	if class == sheaf.Invalid && errors.As(err, &errno) && errno != unix.ENOTDIR && errno != unix.ELOOP {
		class = sheaf.Internal
	}
	id := sheaf.NewExecutionID(r.id, k.Partition, k.Attempt)
	return &sheaf.Error{Class: class, Msg: fmt.Sprintf("open %q of output %q of %s", output.Clip(path), outputName, id), Err: err}
}
