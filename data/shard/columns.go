package shard

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
)

// A chunk is a byte that says how the rest is packed, and the rest: what it
// begins with, then one column after another, each after its length. Numbers are varints.
//
//	first    the first partition that begins in the chunk or, without any, behind it
//	begun    how many partitions begin in the chunk
//	open     1 if the last of its partitions goes on in the next chunk
//	before   atoms of the partition that goes on here which stand in chunks before
//	inputs   their names
//	shards   atoms of each partition that begins here or, without any, of the one that goes on
//	keys     of each partition that begins here: bytes shared with the last, and the rest
//	kinds    of each atom, see below
//	names    keys of data that have one of their own, as those of partitions
//	prints   at the very end, and only where there are any: of each partition that begins
//	         here its fingerprint
//	…        of each atom its input; its path against the last: bytes shared in front, shared
//	         at the end, and new ones between; its size; its time against the last; its tag
//
// Columns of one thing compress far better than rows of all.
const (
	colShards = iota
	colKeys
	colKinds
	colNames
	colInputs
	colFront
	colBack
	colNew
	colBytes
	colSizes
	colTimes
	colTags
	colPrints
	columns
)

// Bits of an atom's kind.
const (
	kindDir  = 1
	kindEnds = 2  // the last atom of its datum
	kindTag  = 4  // the identity is a text
	kindName = 16 // with kindEnds: the datum has a key of its own
	kindTree = 8  // the identity is treePrefix and a sha256, which takes half the bytes
)

const (
	// maxRaw is the largest chunk before it is packed: what does not compress still fits.
	maxRaw = MaxChunk - 64

	// maxPath is the longest path of an atom, or key of a group, in bytes; six
	// times what Linux allows. With both and a tag an atom still fits in a chunk.
	maxPath = 24 << 10

	// maxTag is the longest identity in bytes.
	maxTag = 4 << 10

	// atomSlack is the most that an atom takes beside its path and tag, and a
	// shard beside its key.
	atomSlack = 112

	// maxExpanded bounds the bytes of all paths and keys of a chunk, so that a forged one
	// cannot unfold into gigabytes.
	maxExpanded = 8 << 20
)

// errDamaged is returned for a chunk that no [Writer] made.
var errDamaged = errors.New("the shard manifest is damaged")

// column is the bytes of one column and, when reading, what is left of them.
type column []byte

func (c *column) uint(v uint64) { *c = binary.AppendUvarint(*c, v) }
func (c *column) int(v int64)   { *c = binary.AppendVarint(*c, v) }

// cursor reads numbers and bytes; after the first mistake it gives zeros and
// bad is set.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) uint() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.rest, c.bad = nil, true
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *cursor) int() int64 {
	v, n := binary.Varint(c.rest)
	if n <= 0 {
		c.rest, c.bad = nil, true
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.rest, c.bad = nil, true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

// packTree is the digest of a directory's identity, if it is one.
func packTree(tag string) (sum []byte, ok bool) {
	text, ok := strings.CutPrefix(tag, treePrefix)
	if !ok || len(text) != 64 || strings.ToLower(text) != text {
		return nil, false
	}
	sum, err := hex.DecodeString(text)
	return sum, err == nil
}

func unpackTree(sum []byte) string { return treePrefix + hex.EncodeToString(sum) }
