package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxPending is how many bytes of records may wait for a sync in one run:
	// what a full disk can make a client hold.
	maxPending = 256 << 20
	// keepBuffer is the largest buffer of records that is kept for the next batch.
	keepBuffer = 1 << 20
)

// Run is the store of one run.
type Run struct {
	store *Store
	id    sheaf.RunID
	dir   string

	flushing  sync.Mutex // held while a batch is written; guards the next four
	batch     []pending  // taken from pending and not yet durable
	batchBuf  []byte
	unindexed []placed // durable, and not in the index for lack of room
	out       []byte   // what the batch is in the segment
	placed    []placed // where its records are
	written   bool     // out is in the segment, and not known to be durable

	mu      sync.Mutex // guards what follows; taken after flushing and the store's
	waiting []pending
	buf     []byte // of waiting
	live    map[Key]*Logs
	oldLogs *bool    // a process before this one left files of logs; nil before it was looked up
	ix      *index   // nil while closed
	seg     *segment // the one that is appended to; nil before the next flush makes one
	nextSeg uint32
	batchNo uint32
	unsaved int  // records since the mark was written
	newDir  bool // the directory or a segment was made and its name not synced
	remade  bool // the index was made again since the files were opened
	deleted bool
}

// pending is a record that is not durable.
type pending struct {
	key      Key
	off, len int   // in the buffer
	files    int64 // of its outputs
	logs     *Logs
	prev     loc
	skip     bool // stands already
}

// placed is a durable record on its way into the index.
type placed struct {
	partition int
	attempt   uint32
	at        loc
	answered  bool
}

func (r *Run) attemptDir(kind string, k Key) string {
	return filepath.Join(r.dir, kind, strconv.Itoa(k.Partition)+"."+strconv.FormatUint(uint64(k.Attempt), 10))
}

func (k Key) check() error {
	if k.Partition < 0 || k.Partition >= sheaf.MaxPartitions || k.Attempt == 0 {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("there is no attempt %d at a partition %d", k.Attempt, k.Partition)}
	}
	return nil
}

// notFound says that nothing is kept of an attempt; attempt 0 is any.
func (r *Run) notFound(k Key) error {
	what := fmt.Sprintf("partition %d", k.Partition)
	if k.Attempt > 0 {
		what = fmt.Sprintf("attempt %d at partition %d", k.Attempt, k.Partition)
	}
	return &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("nothing is kept here of %s of run %s", what, r.id)}
}

// lock locks the run with its files open. Without create, a run that has
// nothing on disk is fs.ErrNotExist.
func (r *Run) lock(create bool) error {
	r.store.used(r)
	r.mu.Lock()
	err := r.ready(create)
	if err != nil {
		r.mu.Unlock()
	}
	return err
}

func (r *Run) ready(create bool) error {
	if r.deleted {
		return fs.ErrNotExist
	}
	if r.ix != nil {
		return nil
	}
	if create {
		if err := r.makeDir(); err != nil {
			return err
		}
	} else if _, err := os.Stat(r.dir); err != nil {
		return err
	}
	return r.open()
}

// makeDir makes the run's directory; r.mu is held.
func (r *Run) makeDir() error {
	if r.deleted {
		return fs.ErrNotExist
	}
	err := os.Mkdir(r.dir, 0o700)
	if err == nil {
		r.newDir = true
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return err
}

// Append adds the record of an attempt that ended, with its logs (nil for
// none), which are closed. It is kept in memory until Store.Sync. A record of the same
// attempt that stands already is left as it is.
func (r *Run) Append(rec Record, logs *Logs) error {
	k := Key{rec.Partition, rec.Attempt}
	if err := k.check(); err != nil {
		return err
	}
	var parts [2]logPart
	if logs != nil {
		if err := logs.finish(&parts); err != nil {
			return fmt.Errorf("close logs of %s: %w", sheaf.NewExecutionID(r.id, k.Partition, k.Attempt), err)
		}
	}
	files := int64(bytes.Count(rec.Manifest, []byte{'\n'}))
	r.mu.Lock()
	if r.deleted {
		r.mu.Unlock()
		return r.notFound(k)
	}
	if len(r.buf) > maxPending {
		r.mu.Unlock()
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: "too many results wait to be written to " + r.dir, Limit: sheaf.Size(maxPending).String()}
	}
	off := len(r.buf)
	r.buf = appendRecord(r.buf, &rec, &parts[0], &parts[1])
	r.waiting = append(r.waiting, pending{key: k, off: off, len: len(r.buf) - off, files: files, logs: logs})
	r.mu.Unlock()

	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.store.dirty[r] = struct{}{}
	return r.store.usable()
}

func (r *Run) hasPending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0 || len(r.batch) > 0 || len(r.unindexed) > 0
}

// takePending moves what waits behind what an earlier flush left; r.flushing is held.
func (r *Run) takePending() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.batch) == 0 {
		r.batch, r.waiting = r.waiting, r.batch[:0]
		r.batchBuf, r.buf = r.buf, r.batchBuf[:0]
		return
	}
	base := len(r.batchBuf)
	for _, p := range r.waiting {
		p.off += base
		r.batch = append(r.batch, p)
	}
	r.batchBuf = append(r.batchBuf, r.buf...)
	r.waiting, r.buf = r.waiting[:0], r.buf[:0]
}

// Ack marks results as answered. It is written when convenient: after a crash
// some may be unanswered again.
func (r *Run) Ack(keys []Key) error {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b Key) int { return a.Partition - b.Partition })
	if err := r.lock(false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("mark answers of run %s: %w", r.id, err)
	}
	defer r.mu.Unlock()
	var late []Key // not the latest of their partition
	err := r.healing(func() error {
		late = late[:0]
		return r.pages(len(keys), func(i int) int { return keys[i].Partition }, func(i int, e entry) (entry, bool, error) {
			if e.attempt == keys[i].Attempt {
				e.flags |= flagAnswered
				return e, true, nil
			}
			if !e.empty() {
				late = append(late, keys[i])
			}
			return e, false, nil
		})
	})
	if err == nil && len(late) > 0 {
		err = r.ackLate(late)
	}
	if err != nil {
		return noRoom("mark answers of run "+string(r.id), r.dir, err)
	}
	return nil
}

// ackLate marks records down the chain in the segments themselves; r.mu is held.
func (r *Run) ackLate(keys []Key) error {
	rd := r.reader()
	defer rd.close()
	for _, k := range keys {
		e, err := r.ix.get(k.Partition)
		if err != nil {
			return err
		}
		err = chain(rd, e, k.Partition, func(at loc, d *decoded, _ head) (bool, error) {
			if d.rec.Attempt != k.Attempt {
				return true, nil
			}
			return false, r.markAnswered(at)
		})
		var damage *Damage
		if errors.As(err, &damage) {
			r.store.found(damage)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// markAnswered writes the one byte of a record that is written again; r.mu is held.
func (r *Run) markAnswered(at loc) error {
	f := (*os.File)(nil)
	if r.seg != nil && r.seg.n == at.seg {
		f = r.seg.f
	} else {
		var err error
		if f, err = os.OpenFile(segmentName(r.dir, at.seg), os.O_RDWR, 0); err != nil {
			return err
		}
		defer f.Close()
	}
	_, err := f.WriteAt([]byte{answered}, int64(at.off)+answerByte)
	return err
}

// closeFiles lets go of the descriptors. A run of which so many records lie behind
// the mark is marked anew before.
func (r *Run) closeFiles(markFrom int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ix == nil {
		return nil
	}
	var err error
	if r.unsaved >= markFrom && len(r.unindexed) == 0 {
		err = r.saveMark()
	}
	if r.seg != nil {
		r.seg.f.Close()
		r.seg = nil
	}
	r.ix.f.Close()
	r.ix = nil
	return err
}

// discard makes the run unusable.
func (r *Run) discard() error {
	err := r.closeFiles(markNever)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted = true
	r.waiting, r.buf, r.batch, r.batchBuf, r.unindexed = nil, nil, nil, nil, nil
	return err
}
