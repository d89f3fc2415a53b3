package shard

import "encoding/binary"

// holdBlock is how many bytes of held atoms lie in one piece: large enough to
// be few, small enough that growing one copies little.
const holdBlock = 256 << 10

// held keeps atoms until they may go out, front-coded in the order they came:
// some 15 bytes for a file among its like.
type held struct {
	blocks [][]byte
	n      int64
	bytes  int64 // sizes of the atoms

	path  []byte // of the last atom, once there are two: most groups of one never need it
	mtime int64
}

// inputNames numbers the names of inputs in the order they come.
type inputNames struct {
	names []string
	last  int
}

func (t *inputNames) id(name string) uint64 {
	if t.last < len(t.names) && t.names[t.last] == name {
		return uint64(t.last)
	}
	for i, n := range t.names {
		if n == name {
			t.last = i
			return uint64(i)
		}
	}
	t.last = len(t.names)
	t.names = append(t.names, name)
	return uint64(t.last)
}

func (h *held) put(a *Atom, inputs *inputNames) {
	if h.n == 1 {
		_ = h.replay(inputs, func(first *Atom) error { // gives yield's errors alone
			h.path, h.mtime = append(h.path, first.Path...), first.MTime
			return nil
		})
	}
	if len(h.blocks) == 0 || len(h.blocks[len(h.blocks)-1]) >= holdBlock {
		h.blocks = append(h.blocks, nil)
	}
	b := h.blocks[len(h.blocks)-1]
	shared := 0
	if h.n > 0 {
		shared = commonPrefix(h.path, a.Path)
	}
	flags := inputs.id(a.Input) << 2
	if a.Dir {
		flags |= 1
	}
	if a.Tag != "" {
		flags |= 2
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, uint64(shared))
	b = appendBytes(b, a.Path[shared:])
	b = binary.AppendVarint(b, a.Size)
	if a.Tag != "" {
		b = appendBytes(b, a.Tag)
	} else {
		b = binary.AppendVarint(b, a.MTime-h.mtime)
	}
	h.blocks[len(h.blocks)-1] = b
	if h.n > 0 {
		h.path = append(h.path[:shared], a.Path[shared:]...)
		if h.mtime = a.MTime; a.Tag != "" {
			h.mtime = 0
		}
	}
	h.n++
	h.bytes += a.Size
}

// replay gives the atoms back in order. The atom is replay's again when yield returns.
func (h *held) replay(inputs *inputNames, yield func(*Atom) error) error {
	var path []byte
	var mtime int64
	for _, b := range h.blocks {
		next := func() uint64 {
			v, n := binary.Uvarint(b)
			b = b[n:]
			return v
		}
		signed := func() int64 {
			v, n := binary.Varint(b)
			b = b[n:]
			return v
		}
		bytes := func() []byte {
			n := next()
			s := b[:n]
			b = b[n:]
			return s
		}
		for len(b) > 0 {
			flags := next()
			path = append(path[:next()], bytes()...)
			a := Atom{Path: string(path), Input: inputs.names[flags>>2], Dir: flags&1 != 0, Size: signed()}
			if flags&2 != 0 {
				a.Tag, mtime = string(bytes()), 0
			} else {
				mtime += signed()
				a.MTime = mtime
			}
			if err := yield(&a); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// commonPrefix is how many bytes two paths begin with in common.
func commonPrefix[A, B string | []byte](a A, b B) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
