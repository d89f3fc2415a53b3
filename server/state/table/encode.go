package table

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/zeebo/xxh3"

	"github.com/sheaf-run/agent/sheaf"
)

// Digest is a number that two equal tables share, and hardly two others.
// Pages are hashed once, so that asking again costs what has changed since.
func (t *Table) Digest() uint64 {
	h := xxh3.New()
	var b [16]byte
	for k, p := range t.touched() {
		binary.LittleEndian.PutUint64(b[:], uint64(k))
		binary.LittleEndian.PutUint64(b[8:], p.sum())
		_, _ = h.Write(b[:])
	}
	binary.LittleEndian.PutUint64(b[:], uint64(t.n))
	_, _ = h.Write(b[:8])
	return h.Sum64()
}

// touched yields the pages that are there, with their numbers.
func (t *Table) touched() iter.Seq2[int, *page] {
	return func(yield func(int, *page) bool) {
		for gi, g := range t.groups {
			if g == nil {
				continue
			}
			for i, p := range g.pages {
				if p != nil && !yield(gi*groupSize+i, p) {
					return
				}
			}
		}
	}
}

// Encoded yields the pages that are there in the form that Decode reads. The slice
// is valid until the next.
func (t *Table) Encoded() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for k, p := range t.touched() {
			b := p.data
			if b == nil {
				b = []byte{byte(p.fill)}
			}
			if !yield(k, b) {
				return
			}
		}
	}
}

// Decoder builds a table of what Encoded gave.
type Decoder struct{ e *Edit }

// NewDecoder begins a table of n partitions.
func NewDecoder(n int) *Decoder { return &Decoder{New(n).Edit()} }

// Page adds page k, which is copied.
func (d *Decoder) Page(k int, b []byte) error {
	t := &d.e.t
	if k < 0 || k >= t.pageCount() || t.page(k) != nil {
		return fmt.Errorf("page %d of %d does not belong here", k, t.pageCount())
	}
	n := t.pageLen(k)
	if len(b) == 1 && b[0] < byte(sheaf.PartitionStates) && b[0] != byte(sheaf.PartitionPending) {
		d.e.replace(k, sheaf.PartitionState(b[0]))
		return nil
	}
	if len(b) != n*rowBytes {
		return fmt.Errorf("page %d has %d bytes, not %d", k, len(b), n*rowBytes)
	}
	g := d.e.group(k / groupSize)
	p := &page{n: uint16(n), data: append([]byte(nil), b...)}
	g.counts[sheaf.PartitionPending] -= uint32(n)
	t.counts[sheaf.PartitionPending] -= n
	for i := range n {
		s := p.state(i)
		if int(s) >= sheaf.PartitionStates {
			return fmt.Errorf("page %d has a partition in state %d", k, s)
		}
		p.counts[s]++
		g.counts[s]++
		t.counts[s]++
		if s == sheaf.PartitionPending && p.started(i) != 0 {
			d.e.delay(g, p, 1)
		}
		d.e.hold(s, p.u32(colNode, i), +1)
	}
	g.pages[k%groupSize] = p
	return nil
}

// Table ends the decoding.
func (d *Decoder) Table() *Table { return d.e.Table() }
