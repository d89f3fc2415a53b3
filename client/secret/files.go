package secret

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Files is where the files of secrets lie, in memory: a directory for each run, with one for each
// directory that its task sees. Nobody but the agent's user enters it on the host.
type Files struct{ dir string }

// errOnDisk says that a place is no memory.
var errOnDisk = errors.New("it lies on a disk")

// NewFiles finds the place for a client. Owner tells clients of one machine apart and stays the same
// over restarts. Nothing is made before a run needs it.
func NewFiles(owner string) *Files {
	sum := sha256.Sum256([]byte(owner))
	name := "sheaf-secrets-" + hex.EncodeToString(sum[:8])
	places := []string{"/run", os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"}
	for _, p := range places {
		if p != "" && inMemory(p) == nil && unix.Access(p, unix.W_OK) == nil {
			return &Files{dir: filepath.Join(p, name)}
		}
	}
	return &Files{}
}

// inMemory reports a place that is not in memory.
func inMemory(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return errOnDisk
	}
	return nil
}

// Make writes the files of a run's secrets and gives their mounts. Made again it replaces what has
// changed, each file at once.
func (f *Files) Make(run sheaf.RunID, task *sheaf.Task, set *Set) ([]*driverpb.Mount, error) {
	if !HasFiles(task) {
		return nil, nil
	}
	if f.dir == "" {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Field: "task.secrets", Msg: "this node has no memory file system to keep files of secrets in", Hint: "mount a tmpfs at /run, or use the secrets as variables"}
	}
	if err := f.ensure(); err != nil {
		return nil, fmt.Errorf("make the directory of secrets: %w", err)
	}
	var mounts []*driverpb.Mount
	for i, target := range directories(task) {
		dir := filepath.Join(f.dir, string(run), strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a directory of secrets: %w", err)
		}
		for _, t := range task.Secrets {
			if t.File == "" || path.Dir(t.File) != target {
				continue
			}
			if err := put(filepath.Join(dir, path.Base(t.File)), set.values[t.Name].Reveal()); err != nil {
				return nil, fmt.Errorf("write the file of secret %q: %w", t.Name, err)
			}
		}
		mounts = append(mounts, &driverpb.Mount{Source: dir, Target: target, ReadOnly: true, Secret: true})
	}
	return mounts, nil
}

// ensure makes the directory, and refuses one that is somebody else's.
func (f *Files) ensure() error {
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(f.dir)
	if err != nil {
		return err
	}
	// In a place that all may write to, somebody else may have been first.
	var st unix.Stat_t
	if err := unix.Lstat(f.dir, &st); err != nil {
		return err
	}
	if !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not ours alone", f.dir)
	}
	return inMemory(f.dir)
}

// put writes a file that its user alone may read.
func put(name string, value []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, value) {
		return nil
	}
	temp := name + ".new"
	_ = os.Remove(temp) // of a process that was killed
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = w.Write(value)
	if err := errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, name)
}

// Remove removes the files of a run that is over here.
func (f *Files) Remove(run sheaf.RunID) error {
	if f.dir == "" {
		return nil
	}
	err := os.RemoveAll(filepath.Join(f.dir, string(run)))
	_ = os.Remove(f.dir) // stays while another run has files
	return err
}

// Clean removes what earlier processes left, but for the runs that keep names.
func (f *Files) Clean(keep func(run sheaf.RunID) bool) error {
	if f.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the files of secrets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !keep(sheaf.RunID(e.Name())) {
			errs = append(errs, os.RemoveAll(filepath.Join(f.dir, e.Name())))
		}
	}
	_ = os.Remove(f.dir) // stays while a run has files
	return errors.Join(errs...)
}
