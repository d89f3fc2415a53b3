package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// format is what the file FORMAT holds.
	format = "sheaf client store 1\n"
	// maxDamage is how many places are remembered: one tells that a disk is going.
	maxDamage = 100
	// maxOpenRuns is how many runs hold descriptors (two each); others are
	// opened again when they are used.
	maxOpenRuns = 64
	// mostOpenRuns is how many may, where nobody calls Tidy in between: closing
	// one may take three syncs, which a result that waits should not wait for.
	mostOpenRuns = 2 * maxOpenRuns
	// syncRuns is how many runs are synced at once: a disk takes a few syncs
	// together in hardly more time than one.
	syncRuns = 4
)

// Options are the settings of a store. The zero value is usable.
type Options struct {
	LogLimit int64        // bytes kept of one log, head and tail; 0 is DefaultLogLimit
	Log      *slog.Logger // what was repaired or found damaged; nil discards
}

// Store is the durable store of one client.
type Store struct {
	dir      string
	logLimit int64
	log      *slog.Logger
	lock     *os.File
	syncer   syncer
	fsync    func(*os.File) error // of segments

	syncing sync.Mutex // held by Sync

	mu     sync.Mutex // guards what follows; taken before a run's
	runs   map[sheaf.RunID]*Run
	dirty  map[*Run]struct{} // with records to sync
	open   []*Run            // with descriptors, least recently used first
	broken error
	closed bool

	damaging sync.Mutex // guards damage; nothing else is locked within it
	damage   []Damage
}

// Open opens the store in dir and makes it if it is not there. A store that
// another process holds is an error of class Conflict; one of another format is refused
// untouched.
func Open(dir string, opts Options) (*Store, error) {
	s := &Store{dir: dir, logLimit: opts.LogLimit, log: opts.Log, runs: map[sheaf.RunID]*Run{}, dirty: map[*Run]struct{}{}, fsync: dataSync}
	if s.logLimit == 0 {
		s.logLimit = DefaultLogLimit
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []string{dir, s.path("runs"), s.path("trash")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, noRoom("open store", dir, err)
		}
	}
	var err error
	if s.lock, err = os.OpenFile(s.path("LOCK"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, noRoom("open store", dir, err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.lock.Close()
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: "store " + dir + " is in use by another process", Err: err}
	}
	if err := s.checkFormat(); err != nil {
		s.lock.Close()
		return nil, err
	}
	// What an earlier process was deleting.
	left, err := os.ReadDir(s.path("trash"))
	if err != nil {
		s.lock.Close()
		return nil, err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(s.path("trash"), e.Name())); err != nil {
			s.log.Warn("cannot remove what was deleted", "path", e.Name(), "error", err)
		}
	}
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) checkFormat() error {
	b, err := os.ReadFile(s.path("FORMAT"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := replaceFile(s.path("FORMAT"), []byte(format)); err != nil {
			return noRoom("open store", s.dir, err)
		}
		return nil
	case err != nil:
		return err
	case string(b) != format:
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("store %s has the format %q, which this version does not know", s.dir, b), Hint: "use the version that wrote it, or another data directory"}
	}
	return nil
}

// Close writes what is needed to open quickly and lets go of the directory.
// It does not sync what is pending.
func (s *Store) Close() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	from := markAny
	if s.broken != nil {
		from = markNever
	}
	for _, r := range s.open {
		errs = append(errs, r.closeFiles(from))
	}
	s.open = nil
	errs = append(errs, s.lock.Close())
	return errors.Join(errs...)
}

// Run gives the store of a run and makes it at the first write; nothing is on disk before.
func (s *Store) Run(id sheaf.RunID) (*Run, error) {
	if err := sheaf.CheckName("run", string(id)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	r := s.runs[id]
	if r == nil {
		r = &Run{store: s, id: id, dir: filepath.Join(s.path("runs"), string(id)), live: map[Key]*Logs{}}
		s.runs[id] = r
	}
	return r, nil
}

// used notes that a run holds descriptors, and closes those of one that has
// not been used for longest.
func (s *Store) used(r *Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.open); n > 0 && s.open[n-1] == r {
		return
	}
	if i := slices.Index(s.open, r); i >= 0 {
		s.open = append(slices.Delete(s.open, i, i+1), r)
		return
	}
	s.open = append(s.open, r)
	for len(s.open) > mostOpenRuns {
		old := s.unused()
		if old == nil {
			return
		}
		s.rest(old)
	}
}

// unused takes the run that has not been used for longest from those with
// descriptors, with its flushing held; nil where all are busy. s.mu is held.
func (s *Store) unused() *Run {
	for i, r := range s.open[:len(s.open)-1] {
		if _, busy := s.dirty[r]; !busy && r.flushing.TryLock() {
			s.open = slices.Delete(s.open, i, i+1)
			return r
		}
	}
	return nil
}

// rest closes the files of what unused gave.
func (s *Store) rest(r *Run) {
	if err := r.closeFiles(markWorth); err != nil {
		s.log.Warn("cannot close a run that is not in use", "run", r.id, "error", err)
	}
	r.flushing.Unlock()
}

// Tidy closes the files of runs that were not used for longest, where many are
// open. It syncs, and is for moments when nothing waits; without it, the same
// is done when a further run is used.
func (s *Store) Tidy() {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	for {
		s.mu.Lock()
		var old *Run
		if len(s.open) > maxOpenRuns && !s.closed && s.broken == nil {
			old = s.unused()
		}
		s.mu.Unlock()
		if old == nil {
			return
		}
		s.rest(old)
	}
}

// Runs lists the runs that have anything here.
func (s *Store) Runs() ([]sheaf.RunID, error) {
	entries, err := os.ReadDir(s.path("runs"))
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var ids []sheaf.RunID
	for _, e := range entries {
		if sheaf.CheckName("run", e.Name()) == nil {
			ids = append(ids, sheaf.RunID(e.Name()))
		}
	}
	return ids, nil
}

// Sync makes all that was appended before durable, over all runs. An error of
// class Unavailable says that there is no room and names the directory: the batch stays
// pending and a later Sync tries it again. After any other error see [ErrBroken].
func (s *Store) Sync() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	if err := s.usable(); err != nil {
		s.mu.Unlock()
		return err
	}
	runs := make([]*Run, 0, len(s.dirty))
	for r := range s.dirty {
		runs = append(runs, r)
	}
	clear(s.dirty)
	s.mu.Unlock()

	err := s.syncRuns(runs)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range runs {
		if r.hasPending() {
			s.dirty[r] = struct{}{}
		}
	}
	if sheaf.ClassOf(err) != sheaf.Unavailable {
		s.broken = err
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return err
}

func (s *Store) syncRuns(runs []*Run) error {
	for _, r := range runs {
		r.flushing.Lock()
		defer r.flushing.Unlock()
		r.takePending()
	}
	files := 0
	for _, r := range runs {
		files += r.outputFiles()
	}
	// Files first: a record that is found after a crash vouches for them.
	err := s.syncer.sync(s.lock, files, func() error {
		for _, r := range runs {
			if err := r.syncBatch(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return noRoom("sync output files", s.dir, err)
	}
	return s.flush(runs)
}

// usable reports why nothing can be written; s.mu is held.
func (s *Store) usable() error {
	if s.broken != nil {
		return fmt.Errorf("%w: %w", ErrBroken, s.broken)
	}
	if s.closed {
		return fs.ErrClosed
	}
	return nil
}

// Unanswered calls fn for every durable record that was never marked as
// answered, by run, then partition, then attempt, without logs. A mark that a crash lost makes a record
// appear again. It stops at fn's error. Damage is logged and passed over.
func (s *Store) Unanswered(fn func(run sheaf.RunID, rec Record) error) error {
	ids, err := s.Runs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		r, err := s.Run(id)
		if err != nil {
			return err
		}
		if err := r.unanswered(func(rec Record) error { return fn(id, rec) }); err != nil {
			return fmt.Errorf("list unanswered results of run %s: %w", id, err)
		}
	}
	return nil
}

// DeleteRun removes all that is kept of a run. Executions of it must have ended.
func (s *Store) DeleteRun(id sheaf.RunID) error {
	r, err := s.Run(id)
	if err != nil {
		return err
	}
	r.flushing.Lock()
	defer r.flushing.Unlock()
	s.mu.Lock()
	delete(s.runs, id)
	delete(s.dirty, r)
	s.open = slices.DeleteFunc(s.open, func(o *Run) bool { return o == r })
	err = r.discard()
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("close a run that is deleted", "run", id, "error", err)
	}
	trash := filepath.Join(s.path("trash"), string(id)+"."+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(r.dir, trash); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("delete run %s: %w", id, err)
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("delete run %s: %w", id, err)
	}
	return nil
}

func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
