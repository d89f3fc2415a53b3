package merge

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// mostRuns is how many spilled runs are merged at once: each holds a
	// descriptor and a buffer.
	mostRuns = 64
	// runBuffer is the buffer of a spilled run, in bytes.
	runBuffer = 64 << 10
	// itemCost is what an item takes in memory beside its names, in bytes:
	// itself and its digest.
	itemCost = 220
)

// item is one file of one partition on its way through a merge.
type item struct {
	output    uint32 // place in the job's outputs
	partition uint32
	attempt   uint32
	node      uint32
	origin    string // path in the partition's output, where it differs
	file      sheaf.File
}

// order compares items.
type order func(a, b *item) int

// bytewise is the order of a merged manifest.
func bytewise(a, b *item) int {
	return cmp.Or(cmp.Compare(a.output, b.output), strings.Compare(a.file.Path, b.file.Path), cmp.Compare(a.partition, b.partition))
}

// byTree puts what lies below a path right behind it: "a", "a/b", "a.b".
func byTree(a, b *item) int {
	return cmp.Or(cmp.Compare(a.output, b.output), compareTree(a.file.Path, b.file.Path), cmp.Compare(a.partition, b.partition))
}

// compareTree compares bytewise, but for '/', which comes before all others.
func compareTree(a, b string) int {
	n := min(len(a), len(b))
	for i := 0; i < n; i++ {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			}
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a), len(b))
}

// sorter takes items in any order and gives them back sorted. What does not
// fit into its limit lies in files that have no name.
type sorter struct {
	dir     string
	limit   int64 // bytes in memory
	compare order
	items   []*item
	held    int64
	runs    []*spilled
}

func (s *sorter) add(it *item) error {
	own := *it
	s.items = append(s.items, &own)
	s.held += itemCost + int64(len(it.file.Path)+len(it.origin)+len(it.file.Link))
	if s.held < s.limit {
		return nil
	}
	s.sort()
	run, err := s.spill(func(put func(*item) error) error {
		for i := range s.items {
			if err := put(s.items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.runs = append(s.runs, run)
	clear(s.items)
	s.items, s.held = s.items[:0], 0
	if len(s.runs) < mostRuns {
		return nil
	}
	if run, err = s.spill(s.mergeRuns); err != nil {
		return err
	}
	for _, r := range s.runs {
		r.f.Close()
	}
	s.runs = append(s.runs[:0], run)
	return nil
}

func (s *sorter) sort() {
	slices.SortFunc(s.items, s.compare)
}

// each hands out all items in order; what fn is given is its to keep. It is called once.
func (s *sorter) each(fn func(*item) error) error {
	s.sort()
	if len(s.runs) == 0 {
		for i := range s.items {
			if err := fn(s.items[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return s.mergeRuns(fn)
}

func (s *sorter) close() {
	for _, r := range s.runs {
		r.f.Close()
	}
	s.runs, s.items = nil, nil
}

// mergeRuns hands out the items of the runs and those in memory in order.
func (s *sorter) mergeRuns(fn func(*item) error) error {
	var heads []*spilled // a heap; what is in memory is a run without a file
	all := append(slices.Clone(s.runs), &spilled{items: s.items})
	for _, r := range all {
		ok, err := r.next()
		if err != nil {
			return err
		}
		if ok {
			heads = append(heads, r)
		}
	}
	less := func(i, j int) bool { return s.compare(&heads[i].head, &heads[j].head) < 0 }
	down := func(i int) {
		for {
			k := 2*i + 1
			if k >= len(heads) {
				return
			}
			if k+1 < len(heads) && less(k+1, k) {
				k++
			}
			if !less(k, i) {
				return
			}
			heads[i], heads[k] = heads[k], heads[i]
			i = k
		}
	}
	for i := len(heads)/2 - 1; i >= 0; i-- {
		down(i)
	}
	for len(heads) > 0 {
		it := heads[0].head
		if err := fn(&it); err != nil {
			return err
		}
		ok, err := heads[0].next()
		if err != nil {
			return err
		}
		if !ok {
			heads[0] = heads[len(heads)-1]
			heads = heads[:len(heads)-1]
		}
		down(0)
	}
	return nil
}

// spilled is a sorted run.
type spilled struct {
	f     *os.File
	buf   *bufio.Reader
	items []*item // where it lies in memory
	head  item
	line  []byte
}

func (s *sorter) spill(all func(put func(*item) error) error) (*spilled, error) {
	f, err := os.CreateTemp(s.dir, "merge-")
	if err != nil {
		return nil, fmt.Errorf("spill merge: %w", err)
	}
	_ = os.Remove(f.Name())
	w := bufio.NewWriterSize(f, runBuffer)
	var line []byte
	err = all(func(it *item) error {
		line = it.encode(line[:0])
		var n [binary.MaxVarintLen64]byte
		_, _ = w.Write(n[:binary.PutUvarint(n[:], uint64(len(line)))]) // the next write says it
		_, err := w.Write(line)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("spill merge: %w", err)
	}
	return &spilled{f: f, buf: bufio.NewReaderSize(f, runBuffer)}, nil
}

// next moves head on; false at the end.
func (r *spilled) next() (bool, error) {
	if r.f == nil {
		if len(r.items) == 0 {
			return false, nil
		}
		r.head, r.items = *r.items[0], r.items[1:]
		return true, nil
	}
	n, err := binary.ReadUvarint(r.buf)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err == nil {
		r.line = slices.Grow(r.line[:0], int(n))[:n]
		_, err = io.ReadFull(r.buf, r.line)
	}
	if err != nil {
		return false, fmt.Errorf("read spilled merge: %w", err)
	}
	r.head = decodeItem(r.line)
	return true, nil
}

func (it *item) encode(b []byte) []byte {
	for _, v := range [...]uint64{uint64(it.output), uint64(it.partition), uint64(it.attempt), uint64(it.node), uint64(it.file.Size), uint64(it.file.Mode)} {
		b = binary.AppendUvarint(b, v)
	}
	for _, s := range [...]string{it.file.Path, it.origin, it.file.Link, it.file.SHA256} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// decodeItem reads what encode wrote, in this process: anything else is a bug.
func decodeItem(b []byte) (it item) {
	r := bytes.NewReader(b)
	number := func() uint64 {
		v, err := binary.ReadUvarint(r)
		if err != nil {
			panic(fmt.Sprintf("merge: spilled item %q: %v", b, err))
		}
		return v
	}
	it.output, it.partition, it.attempt, it.node = uint32(number()), uint32(number()), uint32(number()), uint32(number())
	it.file.Size, it.file.Mode = int64(number()), uint32(number())
	for _, s := range [...]*string{&it.file.Path, &it.origin, &it.file.Link, &it.file.SHA256} {
		n := int(number())
		at := len(b) - r.Len()
		*s = string(b[at : at+n])
		_, _ = r.Seek(int64(n), io.SeekCurrent)
	}
	return it
}
