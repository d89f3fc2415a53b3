// Package result writes the folder that a person gets of a run:
//
//	outputs/<name>/…                             the merged output
//	stdout  stderr                               of all partitions, in partition order
//	partitions/<index>/{stdout,stderr,exit_code}
//	manifest.json                                every file: size, sha256, partition, attempt
//
// Every output file is checked against its digest before it gets its name, and
// manifest.json is written last: where it stands, all else is whole. Writing again into
// the folder goes on where an earlier try stopped, in the midst of a file: what is there with the right digest is not fetched
// again, and what an earlier result had and this one has not is removed. Names come from tasks and are hostile:
// nothing is ever written outside the folder, and links are made last, each checked to stay within its output.
package result

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// Partition is what the folder shows of one partition beside its outputs.
type Partition struct {
	Index    int
	Attempt  uint32
	ExitCode int       // -1 where there is none
	Stdout   io.Reader // nil is empty; read to its end before Stderr is read and the next partition is asked for
	Stderr   io.Reader
}

// Source is where a result comes from.
type Source struct {
	Run sheaf.RunID
	// Manifest is the merged manifest, JSON lines of sheaf.File in any order;
	// SHA256 is its digest in hex, "" when it is not to be checked (a partial result).
	Manifest io.Reader
	SHA256   string
	// Fetch opens the bytes of one part of a file, from an offset on; f is without its parts. It is called
	// concurrently, at most Workers at once, and for a transfer that broke once more.
	Fetch func(ctx context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error)
	// Partitions come in ascending order of index; nil is none.
	Partitions iter.Seq2[Partition, error]
	// Progress, if set, is told of every file that is done; calls do not overlap.
	Progress func(Summary)
}

// Summary is what a write did.
type Summary struct {
	Files   int64 // of the outputs
	Bytes   int64
	Kept    int64 // of Files, those that were there already
	Fetched int64 // bytes that were fetched
}

// Workers is how many files are fetched at once: enough to hide a round trip.
const Workers = 8

const (
	// partial holds what is not whole yet.
	partial = ".partial"
	// spoolName is the merged manifest while it is read: it may be larger than what memory should hold.
	spoolName = partial + "/result"
)

// Write writes the result folder dir, which is made if it is not there. An
// error of class Conflict says that bytes are not those of their digest; one of class Unavailable that
// there is no room. What is whole stays for the next try.
func Write(ctx context.Context, dir string, src Source) (Summary, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Summary{}, noRoom(dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Summary{}, err
	}
	defer func() { _ = root.Close() }()
	w := &writer{src: src, root: root, dirs: map[string]bool{}}
	if err := w.write(ctx); err != nil {
		return w.sum, noRoom(dir, err)
	}
	return w.sum, nil
}

// writer writes one folder.
type writer struct {
	src  Source
	root *os.Root
	list *list
	sum  Summary

	partial *os.File // the directory of that name
	spool   *os.File // the merged manifest, checked
	spooled int64    // bytes of it

	mu   sync.Mutex
	dirs map[string]bool // that are there
}

func (w *writer) write(ctx context.Context) error {
	if err := w.root.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	var err error
	if w.partial, err = w.root.Open(partial); err != nil {
		return err
	}
	defer w.partial.Close()
	old, err := openPrevious(w.root)
	if err != nil {
		return err
	}
	defer old.close()
	if err := w.takeManifest(); err != nil {
		return err
	}
	defer w.spool.Close()
	if w.list, err = newList(w.root, w.src.Run); err != nil {
		return err
	}
	defer w.list.f.Close()
	if err := w.outputs(ctx); err != nil {
		return err
	}
	if err := w.partitions(ctx); err != nil {
		return err
	}
	if err := w.list.finish(); err != nil {
		return err
	}
	if err := old.removeStale(w.list); err != nil {
		return err
	}
	if err := w.root.Rename(listTemp, listName); err != nil {
		return err
	}
	return w.root.RemoveAll(partial)
}

// takeManifest has the merged manifest in a file, and checks it as a whole.
func (w *writer) takeManifest() error {
	if err := w.root.Remove(spoolName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := w.root.OpenFile(spoolName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.spool = f
	if err := w.root.Remove(spoolName); err != nil {
		return errors.Join(err, f.Close())
	}
	sum := sha256.New()
	w.spooled, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, struct{ io.Reader }{w.src.Manifest}, make([]byte, 256<<10))
	if err != nil {
		return errors.Join(fmt.Errorf("read merged manifest: %w", err), f.Close())
	}
	if got := hex.EncodeToString(sum.Sum(nil)); w.src.SHA256 != "" && got != w.src.SHA256 {
		err := &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the merged manifest has the digest %s, the run's result %s", got, w.src.SHA256)}
		return errors.Join(err, f.Close())
	}
	return nil
}

// makeDir makes a directory of the folder. What stands in its way, a link or
// a file of an earlier result, is removed: nothing is written through a link.
func (w *writer) makeDir(dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[dir] {
		return nil
	}
	for i := 0; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' || w.dirs[dir[:i]] {
			continue
		}
		at := dir[:i]
		st, err := w.root.Lstat(at)
		if err == nil && !st.IsDir() {
			err = w.root.Remove(at)
		}
		if err == nil && !st.IsDir() || errors.Is(err, fs.ErrNotExist) {
			err = w.root.Mkdir(at, 0o755)
		}
		if err != nil {
			return err
		}
		w.dirs[at] = true
	}
	return nil
}

func noRoom(dir string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: "no room in " + dir, Err: err, Hint: "free space there and write the result again: what is whole is kept"}
	}
	return err
}
