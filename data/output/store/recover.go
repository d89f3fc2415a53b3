package store

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// indexBatch is how many records that were read again are put into the index at once.
const indexBatch = 8192

// open opens the run's files, reads again what lies behind the mark, and cuts a
// tail that was left half written. r.mu is held.
func (r *Run) open() error {
	m, err := readMark(r.dir)
	if err != nil {
		if !r.heal(err) {
			return err
		}
		m = mark{}
	}
	segs, err := segments(r.dir)
	if err != nil {
		return err
	}
	name := filepath.Join(r.dir, "index")
	ix, fresh, err := openIndex(name)
	if err != nil {
		if !r.heal(err) {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		if ix, fresh, err = openIndex(name); err != nil {
			return err
		}
	}
	r.ix = ix
	if st, err := ix.f.Stat(); err == nil && !fresh && st.Size() < m.indexLen {
		r.store.found(&Damage{File: name, Offset: st.Size(), What: "the index was cut short"})
		fresh = true
	}
	r.batchNo, r.remade = m.batch, false
	from := m.at
	if fresh {
		from = loc{}
		if err := r.dropMark(); err != nil {
			ix.f.Close()
			r.ix = nil
			return err
		}
	}
	if err := r.healing(func() error { return r.readAgain(segs, from, m.at) }); err != nil {
		ix.f.Close()
		r.ix = nil
		return err
	}
	return nil
}

// heal reports whether err is damage of something that can be made again, and takes note of it.
func (r *Run) heal(err error) bool {
	var damage *Damage
	if !errors.As(err, &damage) {
		return false
	}
	r.store.found(damage)
	return true
}

// healing runs fn, and where it meets a damaged index makes the index again
// and runs it once more. r.mu is held.
func (r *Run) healing(fn func() error) error {
	err := fn()
	if err == nil || !r.heal(err) {
		return err
	}
	if err := r.rebuild(); err != nil {
		return err
	}
	return fn()
}

// rebuild makes the index again from the segments; r.mu is held.
func (r *Run) rebuild() error {
	r.remade = true
	if err := r.dropMark(); err != nil {
		return err
	}
	if err := r.ix.f.Truncate(entryLen); err != nil {
		return err
	}
	r.ix.reserved = nil
	segs, err := segments(r.dir)
	if err != nil {
		return err
	}
	return r.readAgain(segs, loc{}, loc{})
}

// dropMark removes the mark before the index that it vouches for is made again.
func (r *Run) dropMark() error {
	err := os.Remove(filepath.Join(r.dir, "mark"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(r.dir)
	}
	return err
}

// readAgain puts the records from a place on into the index, and opens the last
// segment for appending unless one is open: of that only what is durable is
// read. What the mark vouches for must be there. r.mu is held.
func (r *Run) readAgain(segs []uint32, from, vouched loc) error {
	r.nextSeg = max(1, vouched.seg+1)
	if len(segs) > 0 {
		r.nextSeg = max(r.nextSeg, segs[len(segs)-1]+1)
	}
	if vouched.seg > 0 && !slices.Contains(segs, vouched.seg) {
		r.store.found(&Damage{File: segmentName(r.dir, vouched.seg), What: "the segment is gone"})
	}
	s := scan{run: r, ended: true}
	if from != (loc{}) {
		s.batch = r.batchNo
	}
	var list []placed
	put := func() error {
		slices.SortStableFunc(list, func(a, b placed) int { return cmp.Compare(a.partition, b.partition) })
		err := r.index(list)
		list = list[:0]
		return err
	}
	for i, n := range segs {
		if n < from.seg {
			continue
		}
		start := int64(segmentHead)
		if n == from.seg && from.off > 0 {
			start = int64(from.off)
		}
		s.last, s.at, s.vouched = i == len(segs)-1, start, 0
		if n == vouched.seg {
			s.vouched = int64(vouched.off)
		}
		err := s.segment(n, func(p placed) error {
			list = append(list, p)
			r.unsaved++
			if len(list) >= indexBatch {
				return put()
			}
			return nil
		})
		if err == nil {
			err = put()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scan reads one segment forward.
type scan struct {
	run     *Run
	last    bool  // it is the last segment
	at      int64 // where the next record begins
	vouched int64 // up to here the mark says that all was whole
	batch   uint32
	ended   bool // the last record that was read ended its batch
}

func (s *scan) segment(n uint32, fn func(placed) error) error {
	r := s.run
	seg, err := openSegment(r.dir, n, true)
	if err != nil {
		var damage *Damage
		if !errors.As(err, &damage) {
			return err
		}
		if st, err := os.Stat(damage.File); !s.last || s.vouched > 0 || err != nil || st.Size() > segmentHead {
			r.store.found(damage)
		}
		return nil
	}
	current := r.seg != nil && r.seg.n == n
	if current {
		seg.size = r.seg.size
	}
	keep := false
	defer func() {
		if !keep {
			seg.f.Close()
		}
	}()
	if seg.size < s.vouched {
		r.store.found(&Damage{File: seg.f.Name(), Offset: seg.size, What: "the segment was cut short"})
		return nil
	}
	rd := reader{dir: r.dir, seg: seg, found: r.store.found}
	clean, read := true, false
	for s.at < seg.size {
		h, payload, err := rd.read(s.at)
		var d decoded
		if err == nil {
			if d, err = decodePayload(payload); err != nil {
				err = rd.damage(s.at, err.Error())
			}
		}
		if err != nil {
			next, err := s.skip(&rd, err)
			if err != nil {
				return err
			}
			clean = next > 0
			if !clean {
				break
			}
			s.at = next
			continue
		}
		s.batch, s.ended, read = h.batch, h.last, true
		r.batchNo = max(r.batchNo, h.batch)
		p := placed{partition: d.rec.Partition, attempt: d.rec.Attempt, at: loc{n, uint32(s.at)}, answered: h.mark == answered}
		if err := fn(p); err != nil {
			return err
		}
		s.at += headLen + int64(h.length)
	}
	if current {
		return nil
	}
	if !clean {
		r.store.log.Warn("the end of a segment was half written and is cut", "file", seg.f.Name(), "offset", s.at, "bytes", seg.size-s.at)
		if err := seg.f.Truncate(s.at); err != nil {
			return err
		}
	}
	// What is found is reported as durable, and may so far be in memory only.
	if read || !clean {
		if err := r.store.fsync(seg.f); err != nil {
			return syncFailed{err}
		}
	}
	if s.last && clean && seg.size < segmentSize && r.seg == nil {
		r.seg, keep = seg, true
	}
	return nil
}

// skip looks for the next whole record behind one that is not; 0 means that
// there is none, and the tail is cut. A batch is written only after the one before
// it was synced, so that what comes before a later batch cannot be half written: it is damaged.
func (s *scan) skip(rd *reader, cause error) (int64, error) {
	var damage *Damage
	if !errors.As(cause, &damage) {
		return 0, cause
	}
	bad := s.batch
	if s.ended {
		bad++
	}
	end := rd.seg.size
	for at := s.at + 1; at+headLen <= end; at++ {
		b, err := rd.bytes(at, headLen)
		if err != nil || len(b) < headLen {
			return 0, err
		}
		h := readHead(b)
		if h.mark != answered && h.mark != unanswered || int64(h.length) > end-at-headLen || h.prev.seg > rd.seg.n {
			continue
		}
		h, payload, err := rd.read(at)
		if err != nil {
			continue
		}
		if _, err := decodePayload(payload); err != nil {
			continue
		}
		if h.batch > bad || !s.last {
			s.run.store.found(damage)
		} else {
			s.run.store.log.Warn("a batch was half written", "file", damage.File, "offset", damage.Offset)
		}
		return at, nil
	}
	if !s.last || s.at < s.vouched {
		s.run.store.found(damage)
	}
	if !s.last {
		return end, nil
	}
	return 0, nil
}
