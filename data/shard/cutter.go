package shard

import (
	"fmt"
	"math"

	"github.com/sheaf-run/agent/sheaf"
)

// cutter makes shards of atoms, or of tuples of them, that come in their final order.
type cutter struct {
	rule  *Rule
	sink  func(*View) error
	stats *Stats
	most  int // partitions

	view  View
	data  int                 // in view
	ended bool                // a stable batch is complete
	paths map[string]struct{} // of view, where one may stand in several tuples
	even  evenly
}

// put adds the next atom to the shard that is being filled, or to a new one.
func (c *cutter) put(a *Atom) error {
	if c.data > 0 && c.full(a.Size, a.Size) {
		if err := c.close(); err != nil {
			return err
		}
	}
	c.view.Atoms = append(c.view.Atoms, *a)
	c.view.Bytes += a.Size
	c.took(a.Size)
	if c.rule.stable {
		c.ended = endsBatch(pathHash(0, a.Path), c.rule.batch)
	}
	return nil
}

// tuple adds the next datum.
func (c *cutter) tuple(key string, atoms []Atom) error {
	size, fresh := int64(0), c.fresh(atoms)
	for i := range atoms {
		size += atoms[i].Size
	}
	if c.data > 0 && c.full(size, fresh) {
		if err := c.close(); err != nil {
			return err
		}
		fresh = c.fresh(atoms)
	}
	hash := uint64(0)
	for i := range atoms {
		c.paths[atoms[i].Path] = struct{}{}
		hash = pathHash(hash, atoms[i].Path)
	}
	v := &c.view
	v.Atoms = append(v.Atoms, atoms...)
	v.Ends = append(v.Ends, int32(len(v.Atoms)))
	v.Keys = append(v.Keys, key)
	v.Bytes += fresh
	c.took(size)
	c.ended = c.rule.stable && endsBatch(hash, c.rule.batch)
	return nil
}

// fresh is the bytes of those atoms that the shard does not have yet.
func (c *cutter) fresh(atoms []Atom) (bytes int64) {
	if c.paths == nil {
		c.paths = map[string]struct{}{}
	}
	for i := range atoms {
		_, has := c.paths[atoms[i].Path]
		for j := 0; j < i && !has; j++ {
			has = atoms[j].Path == atoms[i].Path
		}
		if !has {
			bytes += atoms[i].Size
		}
	}
	return bytes
}

func (c *cutter) took(size int64) {
	c.data++
	c.even.took(size)
}

// full reports whether a partition that has data must be closed before the
// next of size bytes, of which fresh would be added.
func (c *cutter) full(size, fresh int64) bool {
	switch r := c.rule; {
	case r.partitions > 0:
		return c.even.full(size)
	case r.stable && (c.ended || c.data >= stableMost*r.batch):
		return true
	case !r.stable && r.batch > 0 && c.data >= r.batch:
		return true
	case r.maxBytes > 0:
		// Sizes are of files that exist, but a hostile source may claim any.
		return fresh > r.maxBytes-c.view.Bytes
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
	if c.data == 0 {
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
	if c.view.Ends != nil {
		c.view.commonKey()
	}
	err := c.sink(&c.view)
	c.view.reset()
	clear(c.paths)
	c.data, c.ended = 0, false
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
