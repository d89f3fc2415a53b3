package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of logs.
const (
	// InlineLog is how much of one log lies in its record; a longer one gets a
	// file of its own. Most tasks print less than this, and a file costs ten times a record.
	InlineLog = 16 << 10
	// DefaultLogLimit is how much of one log is kept: the first half of it from
	// the start, the rest from the end.
	DefaultLogLimit = 8 << 20
	// pieceLen is the largest piece that is read at once, in bytes.
	pieceLen = 64 << 10
)

// Logs takes the stdout and stderr of one attempt that runs. Its methods may
// be called concurrently.
type Logs struct {
	run *Run
	key Key

	mu      sync.Mutex
	rings   [2]ring // stdout, stderr
	changed chan struct{}
	readers int
	ended   bool // no more is written
	durable bool // the record stands: files that it does not need are gone
}

func which(stderr bool) int {
	if stderr {
		return 1
	}
	return 0
}

func (r *Run) logName(k Key, i int) string {
	return r.attemptDir("log", k) + [2]string{".out", ".err"}[i]
}

// Logs gives the writer of an attempt's logs: the one that is in use, or one
// that goes on behind what a process before this one had synced, or a new one. Nothing is on disk before
// the logs outgrow the memory that a record may take, or are synced.
func (r *Run) Logs(k Key) (*Logs, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deleted {
		return nil, r.notFound(k)
	}
	if l := r.live[k]; l != nil {
		return l, nil
	}
	l := &Logs{run: r, key: k}
	for i := range l.rings {
		l.rings[i] = newRing(r.store.logLimit)
		if !r.mayHaveLogs() {
			continue
		}
		f, err := os.OpenFile(r.logName(k, i), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		g, err := openRing(f)
		if err != nil {
			f.Close()
			if !r.heal(err) {
				return nil, fmt.Errorf("open log: %w", err)
			}
			continue
		}
		l.rings[i] = g
	}
	r.live[k] = l
	return l, nil
}

// mayHaveLogs reports whether a process before this one left files of logs;
// r.mu is held. It is asked before this one makes any.
func (r *Run) mayHaveLogs() bool {
	if r.oldLogs == nil {
		_, err := os.Stat(filepath.Join(r.dir, "log"))
		there := err == nil
		r.oldLogs = &there
	}
	return *r.oldLogs
}

// Write appends to a log. Past the limit the middle is dropped, never the
// head or the tail. On a full disk the log goes on in the room that it has.
func (l *Logs) Write(stderr bool, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return fs.ErrClosed
	}
	i := which(stderr)
	g := &l.rings[i]
	if g.f == nil && g.end+int64(len(data)) > InlineLog {
		if err := l.makeDir(); err != nil && !full(err) {
			return l.wrap(err)
		}
	}
	err := g.write(data, l.run.logName(l.key, i))
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if err != nil {
		return l.wrap(err)
	}
	return nil
}

func (l *Logs) makeDir() error {
	err := os.Mkdir(l.run.dir, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.Mkdir(filepath.Join(l.run.dir, "log"), 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (l *Logs) wrap(err error) error {
	id := sheaf.NewExecutionID(l.run.id, l.key.Partition, l.key.Attempt)
	return noRoom("write log of "+string(id), l.run.dir, err)
}

// Tail is the last whole lines of a log, at most n bytes; of a longer last
// line its end.
func (l *Logs) Tail(stderr bool, n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := &l.rings[which(stderr)]
	off := max(0, g.end-int64(n))
	cut := off > 0
	var tail []byte
	buf := make([]byte, min(int64(n), g.end))
	for off < g.end {
		from, k, err := g.readAt(off, buf)
		if err != nil || k == 0 {
			break
		}
		tail = append(tail, buf[:k]...)
		off = from + int64(k)
	}
	if !cut {
		return tail
	}
	if i := bytes.IndexByte(tail, '\n'); i >= 0 && i < len(tail)-1 {
		return tail[i+1:]
	}
	return tail
}

// Sync makes what was written so far durable, for an attempt that may outlive
// this process.
func (l *Logs) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	spilled := false
	for i := range l.rings {
		g := &l.rings[i]
		if g.end == 0 || g.f == nil && g.slack != ringSlack {
			continue // nothing there, or no room for a file
		}
		if g.f == nil {
			if err := l.makeDir(); err != nil {
				return l.wrap(err)
			}
			if err := g.spill(l.run.logName(l.key, i)); err != nil {
				return l.wrap(err)
			}
			spilled = true
		}
	}
	if err := l.syncLocked(); err != nil {
		return l.wrap(err)
	}
	if spilled {
		for _, d := range []string{filepath.Join(l.run.dir, "log"), l.run.dir, filepath.Dir(l.run.dir)} {
			if err := syncDir(d); err != nil {
				return l.wrap(syncFailed{err})
			}
		}
	}
	return nil
}

func (l *Logs) syncLocked() error {
	for i := range l.rings {
		if f := l.rings[i].f; f != nil {
			if err := dataSync(f); err != nil {
				return syncFailed{&fs.PathError{Op: "sync", Path: f.Name(), Err: err}}
			}
		}
	}
	return nil
}

// syncFiles syncs the files of ended logs.
func (l *Logs) syncFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncLocked()
}

// files counts the files that the record of these ended logs relies on.
func (l *Logs) files() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for i := range l.rings {
		if g := &l.rings[i]; g.f != nil && g.end > InlineLog {
			n++
		}
	}
	return n
}

// finish ends the logs and describes them for the record.
func (l *Logs) finish(parts *[2]logPart) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	for i := range l.rings {
		if parts[i], err = l.rings[i].part(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Logs) end() {
	l.ended = true
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// retire follows the record's becoming durable: what lies in it needs no file.
func (l *Logs) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = true
	for i := range l.rings {
		if g := &l.rings[i]; g.f != nil && g.end <= InlineLog {
			_ = os.Remove(g.f.Name()) // left behind it does no harm
		}
	}
	l.closeIfDone()
}

func (l *Logs) closeIfDone() {
	if !l.durable || l.readers > 0 {
		return
	}
	for i := range l.rings {
		if l.rings[i].f != nil {
			l.rings[i].f.Close()
			l.rings[i].f = nil
		}
	}
}

// Discard ends logs that no record will hold, and removes them.
func (l *Logs) Discard() {
	l.run.mu.Lock()
	if l.run.live[l.key] == l {
		delete(l.run.live, l.key)
	}
	l.run.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	for i := range l.rings {
		if f := l.rings[i].f; f != nil {
			_ = os.Remove(f.Name())
		}
	}
	l.durable = true
	l.closeIfDone()
}
