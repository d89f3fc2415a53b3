package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/sheaf-run/agent/sheaf"
)

// FileChunks is a ChunkStore of one file for each run and split attempt:
// dir/<run>/<attempt>.
type FileChunks struct {
	dir   string
	mu    sync.Mutex
	dirty map[string]bool // files and directories written to since the last Sync
}

// OpenFileChunks uses dir, which it makes where it is missing.
func OpenFileChunks(dir string) (*FileChunks, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of manifests: %w", err)
	}
	return &FileChunks{dir: dir, dirty: map[string]bool{}}, nil
}

func (f *FileChunks) path(run sheaf.RunID, attempt uint32) string {
	return filepath.Join(f.dir, string(run), strconv.FormatUint(uint64(attempt), 10))
}

// Put implements ChunkStore.
func (f *FileChunks) Put(run sheaf.RunID, attempt uint32, offset int64, data []byte) error {
	path := f.path(run, attempt)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("open a manifest for writing: %w", err)
	}
	_, err = file.WriteAt(data, offset)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write a manifest: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty[path], f.dirty[filepath.Dir(path)], f.dirty[f.dir] = true, true, true
	return nil
}

// Get implements ChunkStore.
func (f *FileChunks) Get(run sheaf.RunID, attempt uint32, offset int64, length uint32) ([]byte, error) {
	file, err := os.Open(f.path(run, attempt))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b := make([]byte, length)
	if _, err := file.ReadAt(b, offset); err != nil {
		return nil, fmt.Errorf("%s at %d: %w", file.Name(), offset, err)
	}
	return b, nil
}

// Delete implements ChunkStore.
func (f *FileChunks) Delete(run sheaf.RunID, keep uint32) error {
	dir := filepath.Join(f.dir, string(run))
	if keep == 0 {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != strconv.FormatUint(uint64(keep), 10) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Retain implements ChunkStore.
func (f *FileChunks) Retain(keep func(sheaf.RunID) bool) error {
	entries, err := os.ReadDir(f.dir)
	for _, e := range entries {
		if !keep(sheaf.RunID(e.Name())) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(f.dir, e.Name())))
		}
	}
	return err
}

// Sync implements ChunkStore. After an error what was put is in doubt, and
// the process must end.
func (f *FileChunks) Sync() error {
	f.mu.Lock()
	dirty := f.dirty
	f.dirty = map[string]bool{}
	f.mu.Unlock()
	for path := range dirty {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(file.Sync(), file.Close())
		}
		if err != nil {
			return fmt.Errorf("sync a manifest: %w", err)
		}
	}
	return nil
}
