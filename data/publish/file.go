package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// dirPlace is a directory. Everything goes through its root, so that no link that lies there leads a
// write out of what the configuration allows.
type dirPlace struct {
	root   *os.Root
	packed bool // a result goes into a CAR file

	mu   sync.Mutex
	dirs map[string]bool // written to, and not synced
}

func (c Config) openDir(p string, packed bool) (Place, error) {
	for _, allowed := range c.Dirs {
		if !within(p, allowed) {
			continue
		}
		top, err := os.OpenRoot(allowed)
		if err != nil {
			return nil, failedFile("open "+allowed, err)
		}
		defer func() { _ = top.Close() }()
		rel := strings.TrimPrefix(strings.TrimPrefix(p, path.Clean(allowed)), "/")
		if rel == "" {
			rel = "."
		}
		if err := top.MkdirAll(rel, 0o755); err != nil {
			return nil, failedFile("make "+p, err)
		}
		root, err := top.OpenRoot(rel)
		if err != nil {
			return nil, failedFile("open "+p, err)
		}
		return &dirPlace{root: root, packed: packed, dirs: map[string]bool{".": true}}, nil
	}
	return nil, &sheaf.Error{
		Class: sheaf.Denied, Field: "publish.to", Msg: fmt.Sprintf("the configuration of this client lets nobody write to %s", p),
		Hint: fmt.Sprintf("add file_root %q { writable = true } to its client block", p),
	}
}

// Put writes a file in place: nobody reads what no manifest names.
func (d *dirPlace) Put(ctx context.Context, o Object, open func() (io.ReadCloser, error)) error {
	if err := d.makeDirs(path.Dir(o.Name)); err != nil {
		return err
	}
	if o.Link != "" {
		err := d.root.Symlink(o.Link, o.Name)
		if errors.Is(err, fs.ErrExist) {
			if err = d.root.Remove(o.Name); err == nil {
				err = d.root.Symlink(o.Link, o.Name)
			}
		}
		return failedFile("link "+o.Name, err)
	}
	body, err := open()
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := d.root.OpenFile(o.Name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return failedFile("write "+o.Name, err)
	}
	defer f.Close()
	if _, err := io.Copy(f, &cancelled{ctx, body}); err != nil {
		return failedFile("write "+o.Name, err)
	}
	if err := f.Chmod(o.Mode & fs.ModePerm); err != nil {
		return failedFile("write "+o.Name, err)
	}
	if err := f.Sync(); err != nil {
		return failedFile("sync "+o.Name, err)
	}
	return nil
}

// makeDirs makes a directory and those above it, and notes them for Sync.
func (d *dirPlace) makeDirs(dir string) error {
	d.mu.Lock()
	known := d.dirs[dir]
	d.mu.Unlock()
	if known {
		return nil
	}
	if err := d.root.MkdirAll(dir, 0o755); err != nil {
		return failedFile("make "+dir, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; !d.dirs[dir]; dir = path.Dir(dir) {
		d.dirs[dir] = true
	}
	return nil
}

// Sync syncs the directories; files were synced when they were written.
func (d *dirPlace) Sync(ctx context.Context) error {
	d.mu.Lock()
	dirs := d.dirs
	d.dirs = map[string]bool{}
	d.mu.Unlock()
	for dir := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (d *dirPlace) syncDir(dir string) error {
	f, err := d.root.Open(dir)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	return failedFile("sync "+dir, err)
}

// Get reads a file; its version is its digest.
func (d *dirPlace) Get(_ context.Context, name string) ([]byte, string, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", failedFile("read "+name, err)
	}
	defer f.Close()
	data, err := small(f)
	if err != nil {
		return nil, "", failedFile("read "+name, err)
	}
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:]), nil
}

// Replace writes beside the file and renames, one process at a time.
func (d *dirPlace) Replace(ctx context.Context, name string, data []byte, version string) error {
	dir := path.Dir(name)
	if err := d.makeDirs(dir); err != nil {
		return err
	}
	lock, err := d.root.Open(dir)
	if err != nil {
		return failedFile("lock "+dir, err)
	}
	defer lock.Close() // and unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return failedFile("lock "+dir, err)
	}
	switch _, stands, err := d.Get(ctx, name); {
	case err != nil && sheaf.ClassOf(err) != sheaf.NotFound:
		return err
	case stands != version:
		return ErrStands
	}
	part := path.Join(dir, "."+path.Base(name)+".new")
	f, err := d.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return failedFile("write "+name, err)
	}
	defer f.Close()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.root.Rename(part, name)
	}
	if err == nil {
		err = lock.Sync()
	}
	return failedFile("write "+name, err)
}

// Clear deletes files, and the directories that are empty then.
func (d *dirPlace) Clear(ctx context.Context, dir string, keep func(string, bool) bool) error {
	_, err := d.clear(ctx, dir, keep)
	return err
}

// clear reports whether dir is gone.
func (d *dirPlace) clear(ctx context.Context, dir string, keep func(string, bool) bool) (gone bool, err error) {
	f, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, failedFile("list "+dir, err)
	}
	entries, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return false, failedFile("list "+dir, err)
	}
	left := 0
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			gone, err := d.clear(ctx, name, keep)
			if err != nil {
				return false, err
			}
			if !gone {
				left++
			}
		case keep(name, true):
			left++
		default:
			if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, failedFile("delete "+name, err)
			}
		}
	}
	if left > 0 {
		return false, nil
	}
	d.mu.Lock()
	delete(d.dirs, dir)
	d.mu.Unlock()
	err = d.root.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return true, failedFile("delete "+dir, err)
}

// Close closes the root.
func (d *dirPlace) Close() error { return d.root.Close() }

// failedFile gives an error of the file system its class.
func failedFile(step string, err error) error {
	if err == nil {
		return nil
	}
	var own *sheaf.Error
	if errors.As(err, &own) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", step, err)
	}
	e := &sheaf.Error{Class: sheaf.Unavailable, Field: "publish.to", Msg: step, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Class = sheaf.NotFound
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Hint = sheaf.Denied, "let the agent's user write there"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e.Hint = "make room there"
	}
	return e
}

// small reads what must be short.
func small(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = &sheaf.Error{Class: sheaf.Invalid, Msg: "it is no manifest of ours", Limit: fmt.Sprintf("%d bytes", maxSmall)}
	}
	return data, err
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
