package wasm

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxModuleBytes bounds a module: large ones of real programs have tens of megabytes.
	maxModuleBytes = 256 << 20
	// maxStoreBytes bounds what modules and their compiled code take on disk; those in use stay.
	maxStoreBytes = 2 << 30

	storeName  = "wasm"        // below the state directory
	moduleFile = "module.wasm" // a module's copy, in a directory named by its digest
	cacheDir   = "compiled"    // beside it
)

// store is a directory with a subdirectory for each module: the module as it was
// when the run was prepared, and its compiled code. All of it can be made again.
type store struct{ dir string }

func storeIn(stateDir string) store { return store{filepath.Join(stateDir, storeName)} }

// add copies the module at path into the store and gives its place.
func (s store) add(path string) (moduleRef, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return moduleRef{}, fmt.Errorf("make the module store: %w", err)
	}
	source, err := openModule(path)
	if err != nil {
		return moduleRef{}, err
	}
	defer source.Close()
	temp, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return moduleRef{}, fmt.Errorf("copy the module: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // fails once it is renamed
	defer temp.Close()
	digest, err := copyModule(temp, source)
	if err != nil {
		return moduleRef{}, fmt.Errorf("module %s: %w", path, err)
	}
	ref := moduleRef{digest: digest, dir: filepath.Join(s.dir, digest)}
	if err := os.MkdirAll(filepath.Join(ref.dir, cacheDir), 0o700); err != nil {
		return moduleRef{}, fmt.Errorf("copy the module: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(ref.dir, now, now) // orders trim, and only that
	if err := os.Rename(temp.Name(), filepath.Join(ref.dir, moduleFile)); err != nil {
		return moduleRef{}, fmt.Errorf("copy the module: %w", err)
	}
	return ref, nil
}

// openModule opens a module's file; it is not held up by a FIFO.
func openModule(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module", Msg: fmt.Sprintf("the module %s does not exist on this node", path),
			Hint: "put it at the same path on every node, or pin the job to the node that has it",
		}
	case err != nil:
		return nil, fmt.Errorf("open the module: %w", err)
	case !info.Mode().IsRegular():
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "config.module", Msg: fmt.Sprintf("the module %s is not a file", path), Hint: "name the .wasm file itself"}
	case info.Size() > maxModuleBytes:
		return nil, tooLarge(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the module: %w", err)
	}
	return f, nil
}

func tooLarge(path string) error {
	return &sheaf.Error{
		Class: sheaf.TooLarge, Field: "config.module", Msg: fmt.Sprintf("the module %s is too large", path),
		Limit: fmt.Sprintf("%d MiB", maxModuleBytes>>20), Hint: "strip its debug information",
	}
}

// copyModule copies what looks like a module and gives its sha256 in hex.
func copyModule(to io.Writer, source *os.File) (string, error) {
	head := make([]byte, headerBytes)
	n, err := io.ReadFull(source, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("read the module: %w", err)
	}
	if f := checkHeader(head[:n]); f != nil {
		return "", f.err()
	}
	if _, err := source.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read the module: %w", err)
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(to, hash), io.LimitReader(source, maxModuleBytes+1))
	if err != nil {
		return "", fmt.Errorf("copy the module: %w", err)
	}
	if size > maxModuleBytes {
		return "", tooLarge(source.Name())
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// trim removes the modules that were prepared longest ago until the rest fits
// maxStoreBytes. drop removes one unless it is in use, and tells whether it did; what
// cannot be removed is tried again at the next time.
func (s store) trim(drop func(digest string, remove func() error) bool) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	type item struct {
		name  string
		bytes int64
		at    time.Time
	}
	var items []item
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() {
			continue
		}
		it := item{name: e.Name(), bytes: treeBytes(filepath.Join(s.dir, e.Name())), at: info.ModTime()}
		total += it.bytes
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b item) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	for _, it := range items {
		if total <= maxStoreBytes {
			return
		}
		if drop(it.name, func() error { return os.RemoveAll(filepath.Join(s.dir, it.name)) }) {
			total -= it.bytes
		}
	}
}

func treeBytes(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && !e.IsDir() {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}
