package shard

import (
	"fmt"
	"math"

	"github.com/sheaf-run/agent/sheaf"
)

// cutter makes shards of atoms that come in their final order.
type cutter struct {
	rule  *Rule
	sink  func(*View) error
	stats *Stats
	most  int // partitions

	view View
	even evenly
}

// put adds the next atom to the shard that is being filled, or to a new one.
func (c *cutter) put(a *Atom) error {
	if len(c.view.Atoms) > 0 && c.full(a) {
		if err := c.close(); err != nil {
			return err
		}
	}
	c.view.Atoms = append(c.view.Atoms, *a)
	c.view.Bytes += a.Size
	c.even.took(a.Size)
	return nil
}

// full reports whether a partition that has atoms must be closed before the next.
func (c *cutter) full(next *Atom) bool {
	switch r := c.rule; {
	case r.partitions > 0:
		return c.even.full(next.Size)
	case r.batch > 0 && len(c.view.Atoms) >= r.batch:
		return true
	case r.maxBytes > 0:
		// Sizes are of files that exist, but a hostile source may claim any.
		return next.Size > r.maxBytes-c.view.Bytes
	}
	return false
}

// group ends the group that is being filled and begins the next.
func (c *cutter) group(key string) error {
	if err := c.close(); err != nil {
		return err
	}
	c.view.Key = key
	return nil
}

// close hands out the shard that is being filled, if it has atoms.
func (c *cutter) close() error {
	if len(c.view.Atoms) == 0 {
		return nil
	}
	s := c.stats
	if s.Partitions == c.most {
		return tooManyPartitions("split", fmt.Sprintf("the split makes more than %d partitions", c.most))
	}
	c.view.Index = s.Partitions
	if s.Partitions == 0 || c.view.Bytes < s.Smallest {
		s.Smallest = c.view.Bytes
	}
	s.Largest = max(s.Largest, c.view.Bytes)
	s.Partitions++
	s.Atoms += int64(len(c.view.Atoms))
	if s.Bytes > math.MaxInt64-c.view.Bytes {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "split", Msg: "the sizes of all files together are too large", Limit: "8 EiB", Hint: "narrow the glob"}
	}
	s.Bytes += c.view.Bytes
	err := c.sink(&c.view)
	clear(c.view.Atoms)
	c.view.Atoms, c.view.Bytes = c.view.Atoms[:0], 0
	c.even.closed()
	return err
}

// evenly cuts a known number of atoms of a known size into a known number of
// partitions of nearly equal bytes: each cut falls where the partition comes
// nearest to its share of what is left.
type evenly struct {
	parts int   // partitions left, the one being filled included
	atoms int64 // atoms left
	bytes int64 // bytes left, those of the partition being filled included
	count int64 // atoms of the partition being filled
	mine  int64 // bytes of it
}

// full reports whether the partition, which has an atom, ends before one of size bytes.
func (e *evenly) full(size int64) bool {
	switch {
	case e.parts <= 1:
		return false
	case e.atoms <= int64(e.parts-1):
		return true // one is left for each of the others
	case e.bytes == e.mine:
		return e.count >= (e.count+e.atoms)/int64(e.parts) // all that is left is empty
	}
	missing := e.bytes/int64(e.parts) - e.mine
	return missing <= 0 || size-missing > missing
}

func (e *evenly) took(size int64) {
	e.atoms--
	e.count++
	e.mine += size
}

func (e *evenly) closed() {
	e.parts--
	e.bytes -= e.mine
	e.count, e.mine = 0, 0
}
