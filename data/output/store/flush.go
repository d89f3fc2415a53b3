package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"
)

// flush writes the batches of runs to their segments, makes these durable together, and enters what is
// durable in the indexes. The runs' flushing is held. After an error that is not of a sync, the batches
// that were not written are still there.
func (s *Store) flush(runs []*Run) error {
	failed := each(runs, (*Run).write)
	var written []*Run
	syncs := 0
	for _, r := range runs {
		if r.written {
			written = append(written, r)
			syncs += r.syncs()
		}
	}
	err := s.syncer.sync(s.lock, syncs, func() error { return each(written, (*Run).sync) })
	if err != nil {
		return noRoom("sync results", s.dir, err)
	}
	for _, r := range written {
		r.newDir = false
	}
	return cmp.Or(failed, each(written, (*Run).settle))
}

// each does a step with each run, a few at once, and gives one of its errors.
func each(runs []*Run, step func(*Run) error) error {
	if len(runs) == 1 {
		return step(runs[0])
	}
	var g errgroup.Group
	g.SetLimit(syncRuns)
	for _, r := range runs {
		g.Go(func() error { return step(r) })
	}
	return g.Wait()
}

// write puts the batch into the segment.
func (r *Run) write() error {
	r.written = false
	if len(r.batch) == 0 && len(r.unindexed) == 0 {
		return nil
	}
	step := "write results of run " + string(r.id)
	if err := r.lock(true); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // the run was deleted meanwhile
		}
		return noRoom(step, r.dir, err)
	}
	err := r.prepare()
	r.mu.Unlock()
	if err != nil {
		return noRoom(step, r.dir, err)
	}
	if err := r.put(); err != nil {
		return noRoom(step, r.dir, err)
	}
	r.written = true
	return nil
}

// settle enters in the index what was written and is durable.
func (r *Run) settle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seg.size += int64(len(r.out))
	r.unsaved += len(r.placed)
	r.unindexed = append(r.unindexed, r.placed...)
	for _, p := range r.batch {
		if p.logs != nil {
			delete(r.live, p.key)
			p.logs.retire()
		}
	}
	clear(r.batch)
	r.batch, r.batchBuf, r.out, r.placed = r.batch[:0], r.batchBuf[:0], r.out[:0], r.placed[:0]
	if cap(r.batchBuf) > keepBuffer {
		r.batchBuf = nil
	}
	if cap(r.out) > keepBuffer {
		r.out = nil
	}
	if err := r.enter(); err != nil {
		return noRoom("write results of run "+string(r.id), r.dir, err)
	}
	return nil
}

// prepare makes ready what the write needs: the segment, room in the index, and the place of each
// record's predecessor. r.mu is held.
func (r *Run) prepare() error {
	if err := r.enter(); err != nil {
		return err
	}
	if r.seg != nil && r.seg.size >= segmentSize {
		if err := r.roll(); err != nil {
			return err
		}
	}
	if r.seg == nil {
		seg, err := createSegment(r.dir, r.nextSeg)
		if err != nil {
			return err
		}
		r.seg, r.newDir = seg, true
		r.nextSeg++
	}
	slices.SortStableFunc(r.batch, func(a, b pending) int { return a.key.Partition - b.key.Partition })
	rd := r.reader()
	defer rd.close()
	return r.healing(func() error {
		return r.pages(len(r.batch), func(i int) int { return r.batch[i].key.Partition }, func(i int, e entry) (entry, bool, error) {
			p := &r.batch[i]
			if err := r.ix.reserve(p.key.Partition); err != nil {
				return e, false, err
			}
			p.prev, p.skip = e.at, false
			switch {
			case e.empty():
			case e.attempt == p.key.Attempt:
				p.skip = true
			case e.attempt > p.key.Attempt || e.flags&flagNotHighest != 0:
				err := chain(rd, e, p.key.Partition, func(_ loc, d *decoded, _ head) (bool, error) {
					p.skip = d.rec.Attempt == p.key.Attempt
					return !p.skip, nil
				})
				var damage *Damage
				if errors.As(err, &damage) {
					r.store.found(damage)
					err = nil
				}
				return e, false, err
			}
			return e, false, nil
		})
	})
}

// roll ends the segment. What it holds is durable; the mark spares reading it again.
func (r *Run) roll() error {
	if err := r.saveMark(); err != nil {
		return err
	}
	r.seg.f.Close()
	r.seg = nil
	return nil
}

// saveMark syncs the index and marks up to where it is whole; r.mu is held.
func (r *Run) saveMark() error {
	if err := r.ix.f.Sync(); err != nil {
		return syncFailed{err}
	}
	st, err := r.ix.f.Stat()
	if err != nil {
		return err
	}
	m := mark{at: loc{r.nextSeg - 1, 0}, batch: r.batchNo, indexLen: st.Size()}
	if r.seg != nil {
		m.at = loc{r.seg.n, uint32(r.seg.size)}
	}
	if err := m.write(r.dir); err != nil {
		return err
	}
	r.unsaved = 0
	return nil
}

// put puts the batch into the segment, behind what counts of it.
func (r *Run) put() error {
	r.batchNo++
	r.placed, r.out = r.placed[:0], r.out[:0]
	last := -1
	for i := range r.batch {
		if i > 0 && r.batch[i].key.Partition == r.batch[i-1].key.Partition {
			r.chainBack(i, r.placed)
		}
		if !r.batch[i].skip {
			last = i
			at := loc{r.seg.n, uint32(r.seg.size) + uint32(len(r.out))}
			p := r.batch[i]
			r.out = append(r.out, r.batchBuf[p.off:p.off+p.len]...)
			r.placed = append(r.placed, placed{partition: p.key.Partition, attempt: p.key.Attempt, at: at})
		}
	}
	if last < 0 {
		return nil
	}
	at := 0
	for i, p := range r.batch {
		if !p.skip {
			sealHead(r.out[at:at+p.len], r.seg.salt, r.batchNo, i == last, p.prev)
			at += p.len
		}
	}
	if _, err := r.seg.f.WriteAt(r.out, r.seg.size); err != nil {
		r.out = r.out[:0]
		if err2 := r.seg.f.Truncate(r.seg.size); err2 != nil {
			return fmt.Errorf("%w, and cannot cut what was written of it: %w", err, err2)
		}
		return err
	}
	return nil
}

// syncs is how many files and directories sync syncs.
func (r *Run) syncs() int {
	switch {
	case len(r.out) == 0:
		return 0
	case r.newDir:
		return 3
	}
	return 1
}

// sync syncs the segment, and the names that lead to it where they are new. At
// once: they share a commit of the file system's journal.
func (r *Run) sync() error {
	if r.syncs() == 0 {
		return nil
	}
	var g errgroup.Group
	if r.newDir {
		for _, d := range []string{r.dir, r.store.path("runs")} {
			g.Go(func() error { return syncDir(d) })
		}
	}
	err := r.store.fsync(r.seg.f)
	if err = errors.Join(err, g.Wait()); err != nil {
		return syncFailed{err}
	}
	return nil
}

// chainBack chains item i of the batch to what the batch has of the same partition before it.
func (r *Run) chainBack(i int, list []placed) {
	p := &r.batch[i]
	for j := i - 1; j >= 0 && r.batch[j].key.Partition == p.key.Partition; j-- {
		p.skip = p.skip || r.batch[j].key.Attempt == p.key.Attempt
	}
	if n := len(list); n > 0 && list[n-1].partition == p.key.Partition {
		p.prev = list[n-1].at
	}
}

// enter puts durable records into the index; r.mu is held.
func (r *Run) enter() error {
	if len(r.unindexed) == 0 {
		return nil
	}
	if err := r.healing(func() error { return r.index(r.unindexed) }); err != nil {
		return err
	}
	r.unindexed = r.unindexed[:0]
	return nil
}

// index enters records that are ordered by partition, those of one partition as they were appended. What is in it
// already stays as it is. r.mu is held.
func (r *Run) index(list []placed) error {
	return r.pages(len(list), func(i int) int { return list[i].partition }, func(i int, old entry) (entry, bool, error) {
		p := list[i]
		if !old.empty() && !old.at.before(p.at) {
			return old, false, nil
		}
		e := entry{at: p.at, attempt: p.attempt}
		if p.answered {
			e.flags |= flagAnswered
		}
		if old.empty() {
			return e, true, nil
		}
		if old.attempt > p.attempt || old.flags&flagNotHighest != 0 {
			e.flags |= flagNotHighest
		}
		if old.flags&flagAnswered == 0 || old.flags&flagOlderOpen != 0 {
			e.flags |= flagOlderOpen
		}
		// The entry no longer says that it is answered, so its record must.
		if old.flags&flagAnswered != 0 {
			if err := r.markAnswered(old.at); err != nil {
				return old, false, err
			}
		}
		return e, true, nil
	})
}

// pages goes through n items ordered by partition, a page of the index at a
// time, and writes back the entries that fn changed. r.mu is held.
func (r *Run) pages(n int, partition func(int) int, fn func(i int, e entry) (entry, bool, error)) error {
	for i := 0; i < n; {
		err := r.ix.page(partition(i)/pageEntries*pageEntries, func(slots []byte, first int) (dirty bool, err error) {
			for ; i < n && partition(i) < first+pageEntries; i++ {
				p := partition(i)
				slot := slots[(p-first)*entryLen:][:entryLen]
				e, ok := getEntry(slot, p)
				if !ok {
					return dirty, r.ix.damage(p)
				}
				e, change, err := fn(i, e)
				if err != nil {
					return dirty, err
				}
				if change {
					e.put(slot, p)
					dirty = true
				}
			}
			return dirty, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
