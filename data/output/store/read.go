package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/sheaf-run/agent/sheaf"
)

func (r *Run) reader() *reader { return &reader{dir: r.dir, found: r.store.found} }

// chain calls fn with the record that e points to and those before it, latest
// appended first, until fn says not to go on. What fn is given is valid until it returns.
func chain(rd *reader, e entry, partition int, fn func(at loc, d *decoded, h head) (more bool, err error)) error {
	for at := e.at; at != (loc{}); {
		h, payload, err := rd.at(at)
		if err != nil {
			return err
		}
		d, err := decodePayload(payload)
		if err != nil || d.rec.Partition != partition {
			return rd.damage(int64(at.off), fmt.Sprintf("there is no record of partition %d", partition))
		}
		d.rec.Answered = h.mark == answered || at == e.at && e.flags&flagAnswered != 0
		more, err := fn(at, &d, h)
		if err != nil || !more {
			return err
		}
		if h.prev != (loc{}) && !h.prev.before(at) {
			return rd.damage(int64(at.off), "a record points forward")
		}
		at = h.prev
	}
	return nil
}

// entry reads a partition's place in the index.
func (r *Run) entry(partition int) (e entry, err error) {
	if err := r.lock(false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return entry{}, err
	}
	defer r.mu.Unlock()
	err = r.healing(func() (err error) {
		e, err = r.ix.get(partition)
		return err
	})
	return e, err
}

// find calls fn with the record of an attempt, or with that of the highest for 0.
// Where the index leads to damage it is made again, once: it may be the index that is ahead.
func (r *Run) find(rd *reader, e entry, k Key, fn func(d *decoded)) error {
	err := r.findFrom(rd, e, k, fn)
	if err == nil || !r.heal(err) || !r.remake() {
		return err
	}
	if e, err = r.entry(k.Partition); err != nil {
		return err
	}
	if err = r.findFrom(rd, e, k, fn); err != nil {
		r.heal(err)
	}
	return err
}

// remake makes the index again unless that was done since the run was opened.
func (r *Run) remake() bool {
	if r.lock(false) != nil {
		return false
	}
	defer r.mu.Unlock()
	if r.remade {
		return false
	}
	if err := r.rebuild(); err != nil {
		r.store.log.Error("cannot make an index again", "run", r.id, "error", err)
		return false
	}
	return true
}

func (r *Run) findFrom(rd *reader, e entry, k Key, fn func(d *decoded)) error {
	want := k.Attempt
	if want == 0 && !e.empty() {
		want = e.attempt
		if e.flags&flagNotHighest != 0 {
			err := chain(rd, e, k.Partition, func(_ loc, d *decoded, _ head) (bool, error) {
				want = max(want, d.rec.Attempt)
				return true, nil
			})
			if err != nil {
				return err
			}
		}
	}
	hit := false
	err := chain(rd, e, k.Partition, func(_ loc, d *decoded, _ head) (bool, error) {
		if d.rec.Attempt != want {
			return true, nil
		}
		hit = true
		fn(d)
		return false, nil
	})
	if err == nil && !hit {
		return r.notFound(k)
	}
	return err
}

// noted takes note of damage that is about to be returned.
func (r *Run) noted(err error) error {
	r.heal(err)
	return err
}

// Record reads the durable record of an attempt; attempt 0 is the latest kept.
func (r *Run) Record(partition int, attempt uint32) (Record, error) {
	k := Key{partition, attempt}
	e, err := r.entry(partition)
	if err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	rd := r.reader()
	defer rd.close()
	rec := Record{}
	err = r.find(rd, e, k, func(d *decoded) { rec = d.rec.own() })
	return rec, err
}

// own gives a record that shares no memory with what it was read from.
func (r Record) own() Record {
	r.Manifest = bytes.Clone(r.Manifest)
	return r
}

// Records reads durable records in the order of spans and, within one, of
// partitions. What is missing or damaged comes as an error that names it, with a Record
// whose Partition and Attempt say which; the caller may go on.
func (r *Run) Records(spans []Span) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		rd := r.reader()
		defer rd.close()
		for _, span := range spans {
			if !r.span(rd, span, yield) {
				return
			}
		}
	}
}

func (r *Run) span(rd *reader, span Span, yield func(Record, error) bool) bool {
	page := make([]entry, 0, pageEntries)
	for p := max(0, span.First); p < min(span.First+span.Count, sheaf.MaxPartitions); {
		n := min(span.First+span.Count-p, pageEntries)
		var err error
		if page, err = r.entries(page[:0], p, n); err != nil {
			yield(Record{Partition: p, Attempt: span.Attempt}, fmt.Errorf("read records: %w", err))
			return false
		}
		for _, e := range page {
			rec := Record{Partition: p, Attempt: span.Attempt}
			err := r.find(rd, e, Key{p, span.Attempt}, func(d *decoded) { rec = d.rec.own() })
			if !yield(rec, err) {
				return false
			}
			p++
		}
	}
	return true
}

// entries appends the entries of n partitions from first.
func (r *Run) entries(list []entry, first, n int) ([]entry, error) {
	if err := r.lock(false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return append(list, make([]entry, n)...), nil
		}
		return list, err
	}
	defer r.mu.Unlock()
	err := r.healing(func() error {
		list = list[:0]
		return r.pages(n, func(i int) int { return first + i }, func(_ int, e entry) (entry, bool, error) {
			list = append(list, e)
			return e, false, nil
		})
	})
	return list, err
}

// unanswered calls fn for the records that are not marked as answered.
func (r *Run) unanswered(fn func(Record) error) error {
	if err := r.lock(false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	end, err := r.ix.end()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	rd := r.reader()
	defer rd.close()
	page := make([]entry, 0, pageEntries)
	for p := 0; p < end; p += pageEntries {
		if page, err = r.entries(page[:0], p, min(pageEntries, end-p)); err != nil {
			return err
		}
		for i, e := range page {
			if e.empty() || e.flags&flagAnswered != 0 && e.flags&flagOlderOpen == 0 {
				continue
			}
			if err := r.unansweredOf(rd, e, p+i, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Run) unansweredOf(rd *reader, e entry, partition int, fn func(Record) error) error {
	var found []Record
	err := chain(rd, e, partition, func(_ loc, d *decoded, _ head) (bool, error) {
		if !d.rec.Answered {
			found = append(found, d.rec.own())
		}
		return e.flags&flagOlderOpen != 0, nil
	})
	if err != nil && !r.heal(err) {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- {
		if err := fn(found[i]); err != nil {
			return err
		}
	}
	return nil
}
