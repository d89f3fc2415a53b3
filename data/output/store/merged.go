package store

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sheaf-run/agent/sheaf"
)

func (r *Run) mergedName(attempt uint32) string {
	return filepath.Join(r.dir, "merged", strconv.FormatUint(uint64(attempt), 10))
}

// CreateMerged begins the merged manifest of a merge attempt. It is durable and
// readable once Commit has returned nil; Close without it leaves nothing.
func (r *Run) CreateMerged(attempt uint32) (*MergedWriter, error) {
	r.mu.Lock()
	err := r.makeDir()
	r.mu.Unlock()
	name := r.mergedName(attempt)
	if err == nil {
		err = os.Mkdir(filepath.Dir(name), 0o700)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, noRoom("write merged manifest of run "+string(r.id), r.dir, err)
	}
	return &MergedWriter{run: r, f: f, buf: bufio.NewWriterSize(f, 256<<10), name: name}, nil
}

// MergedWriter writes a merged manifest.
type MergedWriter struct {
	run  *Run
	f    *os.File
	buf  *bufio.Writer
	name string
}

// Write appends to the manifest.
func (w *MergedWriter) Write(b []byte) (int, error) {
	n, err := w.buf.Write(b)
	if err != nil {
		err = w.wrap(err)
	}
	return n, err
}

// Commit makes the manifest durable and readable.
func (w *MergedWriter) Commit() error {
	err := w.buf.Flush()
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		err = os.Rename(w.f.Name(), w.name)
	}
	for _, d := range []string{filepath.Dir(w.name), w.run.dir, filepath.Dir(w.run.dir)} {
		if err == nil {
			err = syncDir(d)
		}
	}
	if err != nil {
		return w.wrap(err)
	}
	return nil
}

func (w *MergedWriter) wrap(err error) error {
	return noRoom("write merged manifest of run "+string(w.run.id), w.run.dir, err)
}

// Close lets go of it; without Commit before, nothing is left.
func (w *MergedWriter) Close() error {
	err := os.Remove(w.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it was committed
	}
	return errors.Join(w.f.Close(), err)
}

// OpenMerged opens a merged manifest that was committed here.
func (r *Run) OpenMerged(attempt uint32) (io.ReadCloser, error) {
	f, err := os.Open(r.mergedName(attempt))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("the merged manifest of attempt %d of run %s is not here", attempt, r.id)}
	}
	return f, err
}

// TakeMerged makes the merged manifest of another run's attempt, which is here, this run's own too: the same file, so
// that nothing is written. It is durable and readable once it has returned nil. The digest, a sha256, must be that of its bytes.
func (r *Run) TakeMerged(attempt uint32, from *Run, fromAttempt uint32, digest [32]byte) error {
	f, err := from.OpenMerged(fromAttempt)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("read merged manifest of run %s: %w", from.id, err)
	}
	if got := [32]byte(sum.Sum(nil)); got != digest {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the merged manifest of attempt %d of run %s has the digest %x, not %x", fromAttempt, from.id, got, digest)}
	}
	// The directories are made, and a file that an earlier try left is replaced, as for one that is written.
	w, err := r.CreateMerged(attempt)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // after Commit there is nothing left to lose
	if err := os.Remove(w.f.Name()); err != nil {
		return w.wrap(err)
	}
	if err := os.Link(from.mergedName(fromAttempt), w.f.Name()); err != nil {
		return w.wrap(err)
	}
	return w.Commit()
}
