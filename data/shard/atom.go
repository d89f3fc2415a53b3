package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/sheaf-run/agent/sheaf"
)

// Atom is a [sheaf.Atom] in the form in which millions pass by. Its strings
// may share memory with others of its listing.
type Atom struct {
	Path  string
	Input string // "" for a directory that holds several mounts
	Dir   bool
	Size  int64  // bytes; of a directory, the sum below it
	MTime int64  // ns since 1970, of a file without a Tag
	Tag   string // its identity, where that is not size and time
}

// Identity is the identity of [sheaf.Atom].
func (a *Atom) Identity() string {
	if a.Tag != "" {
		return a.Tag
	}
	if a.Dir {
		return ""
	}
	return sheaf.StatIdentity(a.Size, a.MTime)
}

// View is a shard as it passes by: its slices are used again for the next.
type View struct {
	Index int
	Key   string // of its group
	Bytes int64
	Atoms []Atom
	Ends  []int32 // where each datum ends in Atoms; nil where every atom is a datum

	// Keys is the key of each datum; empty where it is Key for all of them.
	Keys []string

	// Print is the shard's fingerprint, in a manifest that is read and has them.
	Print Fingerprint
}

// commonKey makes the key of all data the shard's, where it is one.
func (v *View) commonKey() {
	v.Key = ""
	for _, k := range v.Keys {
		if k != v.Keys[0] {
			return
		}
	}
	v.Key, v.Keys = v.Keys[0], v.Keys[:0]
}

// reset empties the view of its data. The key stays: groups have several shards.
func (v *View) reset() {
	clear(v.Atoms)
	clear(v.Keys)
	v.Atoms, v.Bytes, v.Keys = v.Atoms[:0], 0, v.Keys[:0]
	if v.Ends != nil {
		v.Ends = v.Ends[:0]
	}
}

// key is the key of datum i.
func (v *View) key(i int) string {
	if len(v.Keys) == 0 {
		return v.Key
	}
	return v.Keys[i]
}

// Shard is a copy in the domain's form.
func (v *View) Shard() sheaf.Shard {
	s := sheaf.Shard{Index: v.Index, Key: v.Key}
	atoms := make([]sheaf.Atom, len(v.Atoms))
	for i := range v.Atoms {
		a := &v.Atoms[i]
		atoms[i] = sheaf.Atom{Path: a.Path, Input: a.Input, Size: a.Size, Dir: a.Dir, Identity: a.Identity()}
	}
	if v.Ends == nil {
		s.Data = make([]sheaf.Datum, len(atoms))
		for i := range atoms {
			s.Data[i] = sheaf.Datum{Key: v.key(i), Atoms: atoms[i : i+1 : i+1]}
		}
		return s
	}
	s.Data = make([]sheaf.Datum, len(v.Ends))
	from := 0
	for i, end := range v.Ends {
		s.Data[i] = sheaf.Datum{Key: v.key(i), Atoms: atoms[from:end:end]}
		from = int(end)
	}
	return s
}

// distinctBytes is the bytes of atoms, each path counted once.
func distinctBytes(atoms []Atom) (bytes int64) {
	for i := range atoms {
		if i > 0 && atoms[i].Path <= atoms[i-1].Path {
			return bytesOnce(atoms)
		}
		bytes += atoms[i].Size
	}
	return bytes
}

func bytesOnce(atoms []Atom) (bytes int64) {
	seen := make(map[string]struct{}, len(atoms))
	for i := range atoms {
		if _, has := seen[atoms[i].Path]; !has {
			seen[atoms[i].Path] = struct{}{}
			bytes += atoms[i].Size
		}
	}
	return bytes
}

// treePrefix begins the identity of a directory.
const treePrefix = "tree:"

// TreeHash makes the identity of a directory atom from everything below it.
type TreeHash struct {
	skip int // bytes of the paths that are not below the directory
	size int64
	sum  hash.Hash
	buf  []byte
}

// NewTreeHash starts the identity of the directory at an absolute path.
func NewTreeHash(dir string) *TreeHash {
	h := &TreeHash{sum: sha256.New()}
	h.reset(dir)
	return h
}

func (h *TreeHash) reset(dir string) {
	h.sum.Reset()
	h.size, h.buf, h.skip = 0, h.buf[:0], len(dir)+1
	if dir == "/" {
		h.skip = 1
	}
}

// Add takes the next entry below the directory, in the order of the listing.
// Only files and directories count.
func (h *TreeHash) Add(e *sheaf.Entry) {
	if e.Kind != sheaf.EntryFile && e.Kind != sheaf.EntryDir {
		return
	}
	rel := e.Path[h.skip:]
	h.buf = binary.AppendUvarint(append(h.buf, byte(e.Kind)), uint64(len(rel)))
	h.buf = append(h.buf, rel...)
	if e.Kind == sheaf.EntryFile {
		h.size += e.Size
		h.buf = binary.AppendUvarint(h.buf, uint64(len(e.Tag)))
		h.buf = append(h.buf, e.Tag...)
		h.buf = binary.AppendVarint(h.buf, e.Size)
		if e.Tag == "" {
			h.buf = binary.AppendVarint(h.buf, e.MTime)
		}
	}
	if len(h.buf) >= hashBuffer {
		h.sum.Write(h.buf)
		h.buf = h.buf[:0]
	}
}

// hashBuffer is how much is hashed at once: enough that the call costs nothing.
const hashBuffer = 4 << 10

// Identity is "tree:" and the digest, in hex, of what was added; size is the
// bytes of all files.
func (h *TreeHash) Identity() (identity string, size int64) {
	h.sum.Write(h.buf)
	h.buf = h.buf[:0]
	var sum [sha256.Size]byte
	var text [len(treePrefix) + 2*sha256.Size]byte
	hex.Encode(text[copy(text[:], treePrefix):], h.sum.Sum(sum[:0]))
	return string(text[:]), h.size
}
