package shard

import (
	"fmt"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/sheaf-run/agent/sheaf"
)

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxChunk), zstd.WithDecoderMaxWindow(128<<10), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("shard: zstd options: " + err.Error())
	}
	return d
})

// Extent is what an index knows of a chunk.
type Extent struct{ First, Count int }

// Select says which chunks hold the partitions first to first+count-1: those
// from the index from up to, not including, to.
func Select(index []Extent, first, count int) (from, to int) {
	return SelectFunc(len(index), func(i int) Extent { return index[i] }, first, count)
}

// SelectFunc is [Select] over an index of n chunks that is not a slice.
func SelectFunc(n int, at func(i int) Extent, first, count int) (from, to int) {
	if count <= 0 {
		return 0, 0
	}
	// A chunk without a partition that begins in it has for First the partition behind it.
	from = sort.Search(n, func(i int) bool { e := at(i); return e.First+e.Count > first })
	to = from + sort.Search(n-from, func(i int) bool { return at(from+i).First >= first+count })
	for to < n && at(to).Count == 0 {
		to++ // it goes on with the last partition that is wanted
	}
	return from, to
}

// Decode reads the partitions first to first+count-1 from the chunks that
// [Select] named, in order. A chunk that is damaged, or a partition that is not
// there whole, is an error.
func Decode(chunks [][]byte, first, count int) ([]sheaf.Shard, error) {
	shards := make([]sheaf.Shard, 0, min(count, 1024))
	err := Scan(chunks, first, count, func(v *View) error {
		shards = append(shards, v.Shard())
		return nil
	})
	return shards, err
}

// Scan is [Decode] one shard at a time. The view's slices are Scan's again
// when yield returns; its strings stay valid.
func Scan(chunks [][]byte, first, count int, yield func(*View) error) error {
	var v pieces
	next, open := first, false // the partition that is wanted next; whether v is its beginning
	for i, data := range chunks {
		c, err := openChunk(data)
		if err != nil {
			return fmt.Errorf("chunk %d of %d: %w", i, len(chunks), err)
		}
		if open != (c.begun == 0) || open && (c.first != next+1 || c.before != uint64(len(v.Atoms))) || !open && c.before != 0 {
			return fmt.Errorf("chunk %d of %d: %w: it does not follow the one before", i, len(chunks), errDamaged)
		}
		for n := range max(c.begun, 1) {
			index := c.first + n
			if c.begun == 0 {
				index = next
			}
			wanted := index == next && index < first+count
			if err := c.shard(&v, wanted, open); err != nil {
				return fmt.Errorf("chunk %d of %d: %w", i, len(chunks), err)
			}
			if !wanted {
				continue
			}
			if v.Index = index; c.open && n == max(c.begun, 1)-1 {
				open = true
				continue
			}
			open = false
			if err := v.complete(); err != nil {
				return fmt.Errorf("chunk %d of %d: %w", i, len(chunks), err)
			}
			if err := yield(&v.View); err != nil {
				return err
			}
			next++
		}
		if err := c.done(); err != nil {
			return fmt.Errorf("chunk %d of %d: %w", i, len(chunks), err)
		}
	}
	if next < first+count || open {
		return fmt.Errorf("%w: partition %d is not in it whole", errDamaged, next)
	}
	return nil
}

// pieces is a shard that is being read.
type pieces struct {
	View
	ends  []int32
	names []string // of each datum that ended
	named bool     // one of them is not empty
}

// complete checks the data of a shard that was read whole.
func (p *pieces) complete() error {
	switch {
	case len(p.ends) == 0 || int(p.ends[len(p.ends)-1]) != len(p.Atoms):
		return errDamaged
	case len(p.ends) == len(p.Atoms):
		p.Ends = nil
	default:
		p.Ends = p.ends
	}
	p.Keys = p.Keys[:0]
	if p.named {
		p.Keys = p.names
	}
	p.Bytes = distinctBytes(p.Atoms)
	return nil
}

// chunk is an opened chunk, read shard by shard.
type chunk struct {
	first, begun int
	open         bool
	before       uint64 // atoms in chunks before, of the partition that goes on here
	inputs       []string
	col          [columns]cursor

	path     []byte // of the last atom
	spare    []byte // the one before it, to be written over
	mtime    int64
	key      []byte
	name     []byte // the last key of a datum
	expanded int
}

func openChunk(data []byte) (*chunk, error) {
	if len(data) == 0 || len(data) > MaxChunk {
		return nil, fmt.Errorf("%w: a chunk of %d bytes", errDamaged, len(data))
	}
	raw := data[1:]
	switch data[0] {
	case packedRaw:
	case packedZstd:
		var err error
		if raw, err = decoder().DecodeAll(raw, nil); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	default:
		return nil, fmt.Errorf("%w, or written by a later version: a chunk of kind %d", errDamaged, data[0])
	}
	head := cursor{rest: raw}
	c := &chunk{}
	first, begun, open, before, inputs := head.uint(), head.uint(), head.uint(), head.uint(), head.uint()
	if first > sheaf.MaxPartitions || begun > sheaf.MaxPartitions || open > 1 || inputs > uint64(len(raw)) {
		return nil, errDamaged
	}
	c.first, c.begun, c.open, c.before = int(first), int(begun), open == 1, before
	for range inputs {
		c.inputs = append(c.inputs, string(head.bytes(head.uint())))
	}
	for i := range c.col {
		if i != colPrints || len(head.rest) > 0 {
			c.col[i].rest = head.bytes(head.uint())
		}
	}
	if head.bad || len(head.rest) > 0 || begun > uint64(len(c.col[colShards].rest)) {
		return nil, errDamaged
	}
	return c, nil
}

// shard reads the next shard or, where it is a later piece of one, adds to v.
// One that is not wanted is passed over.
func (c *chunk) shard(v *pieces, wanted, more bool) error {
	if !more {
		clear(v.Atoms)
		clear(v.names)
		v.Atoms, v.ends, v.names, v.named, v.Key, v.Print = v.Atoms[:0], v.ends[:0], v.names[:0], false, "", Fingerprint{}
	}
	atoms := c.col[colShards].uint()
	if c.begun > 0 {
		keys := &c.col[colKeys]
		shared := keys.uint()
		if shared > uint64(len(c.key)) {
			return errDamaged
		}
		c.key = append(c.key[:shared], keys.bytes(keys.uint())...)
		if c.expanded += len(c.key); c.expanded > maxExpanded {
			return errDamaged
		}
		if wanted {
			v.Key = string(c.key)
		}
		if prints := &c.col[colPrints]; len(prints.rest) > 0 {
			if print := prints.bytes(uint64(len(v.Print))); wanted && print != nil {
				v.Print = Fingerprint(print)
			}
		}
	}
	if atoms == 0 || atoms > uint64(len(c.col[colKinds].rest)) {
		return errDamaged // each takes a byte there
	}
	for range atoms {
		a, kind, err := c.atom(wanted)
		if err != nil {
			return err
		}
		name := ""
		if kind&kindName != 0 {
			if name, err = c.named(wanted); err != nil {
				return err
			}
		}
		if !wanted {
			continue
		}
		v.Atoms = append(v.Atoms, a)
		if kind&kindEnds != 0 {
			v.ends, v.names = append(v.ends, int32(len(v.Atoms))), append(v.names, name)
			v.named = v.named || name != ""
		} else if name != "" {
			return errDamaged
		}
	}
	return nil
}

// named reads the key of a datum.
func (c *chunk) named(wanted bool) (string, error) {
	names := &c.col[colNames]
	shared := names.uint()
	if shared > uint64(len(c.name)) {
		return "", errDamaged
	}
	c.name = append(c.name[:shared], names.bytes(names.uint())...)
	if c.expanded += len(c.name); len(c.name) > maxPath || c.expanded > maxExpanded {
		return "", errDamaged
	}
	if !wanted {
		return "", nil
	}
	return string(c.name), nil
}

func (c *chunk) atom(wanted bool) (a Atom, kind byte, err error) {
	kind = c.col[colKinds].bytes(1)[0]
	a.Dir = kind&kindDir != 0
	if in := c.col[colInputs].uint(); in < uint64(len(c.inputs)) {
		a.Input = c.inputs[in]
	} else {
		return a, 0, errDamaged
	}
	a.Size = int64(c.col[colSizes].uint())
	tags := &c.col[colTags]
	switch {
	case kind&kindTree != 0:
		if sum := tags.bytes(32); wanted && sum != nil {
			a.Tag = unpackTree(sum)
		}
	case kind&kindTag != 0:
		if text := tags.bytes(tags.uint()); wanted {
			a.Tag = string(text)
		}
	default:
		c.mtime += c.col[colTimes].int()
		a.MTime = c.mtime
	}
	front, back, fresh := c.col[colFront].uint(), c.col[colBack].uint(), c.col[colNew].uint()
	if last := uint64(len(c.path)); front > last || back > last-front {
		return a, 0, errDamaged
	}
	middle := c.col[colBytes].bytes(fresh)
	tail := c.path[len(c.path)-int(back):]
	size := int(front) + len(middle) + len(tail)
	if c.expanded += size; size > maxPath || c.expanded > maxExpanded || a.Size < 0 {
		return a, 0, errDamaged
	}
	c.path, c.spare = append(append(append(c.spare[:0], c.path[:front]...), middle...), tail...), c.path
	if wanted {
		a.Path = string(c.path)
	}
	return a, kind, nil
}

// done reports what is wrong with a chunk that was read to its end.
func (c *chunk) done() error {
	for i := range c.col {
		if c.col[i].bad || len(c.col[i].rest) > 0 {
			return errDamaged
		}
	}
	return nil
}
