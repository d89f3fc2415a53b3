package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/sheaf-run/agent/sheaf"
)

// MaxChunk is the largest chunk in bytes. A chunk travels in one command of at
// most 64 KiB; the rest is left to what the command says around it.
const MaxChunk = 63 << 10

// Chunk is a piece of a shard manifest.
type Chunk struct {
	Seq   int
	First int // the first partition that begins in it
	Count int // how many partitions begin in it; 0: it goes on with the last of the chunk before
	Data  []byte
}

// Ways to pack a chunk: its first byte.
const (
	packedRaw  = 1
	packedZstd = 2
)

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("shard: zstd options: " + err.Error())
	}
	return e
})

// Writer makes chunks of shards. A chunk holds whole shards, or a piece of one
// that is larger than a chunk; such a shard begins in a chunk of its own.
type Writer struct {
	// Prints, unless nil, makes the fingerprint that is written with each shard. It is set before the first.
	Prints *Fingerprinter

	emit func(Chunk) error
	root hash.Hash
	seq  int
	next int // partition

	col      [columns]column
	begun    int // partitions that begin in this chunk; 0 where one goes on
	atoms    int // of the partition that is being written, in this chunk
	before   int // of it in chunks before
	inputs   inputNames
	path     []byte // of the last atom
	mtime    int64
	key      string
	name     string // the last key of a datum
	expanded int    // bytes of all paths and keys
	mark     mark
	print    Fingerprint // of the shard that is being written
}

// mark is how much of a chunk whole shards take.
type mark struct {
	ends   [columns]int
	inputs int
}

// NewWriter makes a writer whose chunks go to emit, in order. Chunk.Data is
// emit's to keep.
func NewWriter(emit func(Chunk) error) *Writer {
	return &Writer{emit: emit, root: sha256.New()}
}

// Add writes the next shard, which has atoms; its index is that of the last plus one.
func (w *Writer) Add(v *View) error {
	if v.Index != w.next || len(v.Atoms) == 0 {
		panic(fmt.Sprintf("shard: partition %d with %d atoms written where %d was expected", v.Index, len(v.Atoms), w.next))
	}
	if w.Prints != nil {
		w.print = w.Prints.Of(v)
	}
	if err := w.begin(v); err != nil {
		return err
	}
	end := 0
	for i := 0; i < len(v.Atoms); i++ {
		a := &v.Atoms[i]
		if err := checkLength("path", a.Path, maxPath); err != nil {
			return err
		}
		if err := checkLength("identity", a.Tag, maxTag); err != nil {
			return err
		}
		ends := v.Ends == nil || end < len(v.Ends) && int(v.Ends[end]) == i+1
		name := ""
		if ends && len(v.Keys) > 0 {
			if name = v.Keys[end]; len(name) > maxPath {
				return checkLength("key", name, maxPath)
			}
		}
		if !w.fits(len(a.Path) + len(a.Tag) + len(name)) {
			whole := w.begun > 1
			if whole { // the chunk goes without this shard, which begins in the next
				w.rewind()
			} else {
				w.col[colShards].uint(uint64(w.atoms))
			}
			if err := w.flush(!whole); err != nil {
				return err
			}
			if whole {
				if err := w.begin(v); err != nil {
					return err
				}
				i, end = -1, 0
				continue
			}
		}
		w.atom(a, ends)
		if ends {
			w.named(name)
			end++
		}
	}
	w.col[colShards].uint(uint64(w.atoms))
	w.next++
	if w.begun == 0 {
		return w.flush(false)
	}
	for c := range w.col {
		w.mark.ends[c] = len(w.col[c])
	}
	w.mark.inputs = len(w.inputs.names)
	return nil
}

func checkLength(what, s string, limit int) error {
	if len(s) <= limit {
		return nil
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: "split", Msg: fmt.Sprintf("the %s that begins %q is %d bytes long", what, s[:64], len(s)), Limit: strconv.Itoa(limit) + " bytes", Hint: "rename it, or leave it out by the glob"}
}

// begin writes what stands once for a shard.
func (w *Writer) begin(v *View) error {
	if err := checkLength("group key", v.Key, maxPath); err != nil {
		return err
	}
	if !w.fits(len(v.Key)) {
		if err := w.flush(false); err != nil {
			return err
		}
	}
	w.begun++
	w.atoms, w.before = 0, 0
	shared := commonPrefix(w.key, v.Key)
	w.col[colKeys].uint(uint64(shared))
	w.col[colKeys] = appendBytes(w.col[colKeys], v.Key[shared:])
	w.key = v.Key
	w.expanded += len(v.Key)
	if w.Prints != nil {
		w.col[colPrints] = append(w.col[colPrints], w.print[:]...)
	}
	return nil
}

// fits reports whether n more bytes of names fit into the chunk.
func (w *Writer) fits(n int) bool {
	size := n + atomSlack
	for c := range w.col {
		size += len(w.col[c])
	}
	for _, name := range w.inputs.names {
		size += len(name) + binary.MaxVarintLen16
	}
	return size+columns*binary.MaxVarintLen32 <= maxRaw && w.expanded+n <= maxExpanded
}

// named gives the datum that ended a key of its own, if it has one.
func (w *Writer) named(key string) {
	if key == "" {
		return
	}
	kinds := w.col[colKinds]
	kinds[len(kinds)-1] |= kindName
	shared := commonPrefix(w.name, key)
	w.col[colNames].uint(uint64(shared))
	w.col[colNames] = appendBytes(w.col[colNames], key[shared:])
	w.name = key
	w.expanded += len(key)
}

func (w *Writer) atom(a *Atom, ends bool) {
	w.atoms++
	kind := byte(0)
	if a.Dir {
		kind |= kindDir
	}
	if ends {
		kind |= kindEnds
	}
	if sum, ok := packTree(a.Tag); ok {
		kind |= kindTree
		w.col[colTags] = append(w.col[colTags], sum...)
	} else if a.Tag != "" {
		kind |= kindTag
		w.col[colTags] = appendBytes(w.col[colTags], a.Tag)
	} else {
		w.col[colTimes].int(a.MTime - w.mtime)
		w.mtime = a.MTime
	}
	w.col[colKinds] = append(w.col[colKinds], kind)
	w.col[colInputs].uint(w.inputs.id(a.Input))
	w.col[colSizes].uint(uint64(a.Size))

	front := commonPrefix(w.path, a.Path)
	back, most := 0, min(len(w.path), len(a.Path))-front
	for back < most && w.path[len(w.path)-1-back] == a.Path[len(a.Path)-1-back] {
		back++
	}
	w.col[colFront].uint(uint64(front))
	w.col[colBack].uint(uint64(back))
	w.col[colNew].uint(uint64(len(a.Path) - front - back))
	w.col[colBytes] = append(w.col[colBytes], a.Path[front:len(a.Path)-back]...)
	w.path = append(w.path[:front], a.Path[front:]...)
	w.expanded += len(a.Path)
}

// rewind takes back the shard that is being written.
func (w *Writer) rewind() {
	w.begun--
	for c := range w.col {
		w.col[c] = w.col[c][:w.mark.ends[c]]
	}
	w.inputs.names, w.inputs.last = w.inputs.names[:w.mark.inputs], 0
}

// flush emits the chunk and begins the next, in which, with open, the shard
// that is being written goes on.
func (w *Writer) flush(open bool) error {
	if w.begun == 0 && w.atoms == 0 {
		return nil
	}
	first := w.next
	if open {
		first++ // the one behind that which is being written
	}
	first -= w.begun
	head := column(nil)
	head.uint(uint64(first))
	head.uint(uint64(w.begun))
	goesOn := uint64(0)
	if open {
		goesOn = 1
	}
	head.uint(goesOn)
	head.uint(uint64(w.before))
	head.uint(uint64(len(w.inputs.names)))
	for _, n := range w.inputs.names {
		head = appendBytes(head, n)
	}
	for c := range w.col {
		if c != colPrints || len(w.col[c]) > 0 {
			head = appendBytes(head, w.col[c])
		}
		w.col[c] = w.col[c][:0]
	}
	c := Chunk{Seq: w.seq, First: first, Count: w.begun, Data: pack(head)}
	w.seq++
	if w.before += w.atoms; !open {
		w.before = 0
	}
	w.begun, w.atoms, w.expanded = 0, 0, 0
	w.path, w.mtime, w.key, w.name = w.path[:0], 0, "", ""
	w.inputs, w.mark = inputNames{}, mark{}
	sum := sha256.Sum256(c.Data)
	w.root.Write(sum[:])
	return w.emit(c)
}

// pack compresses a chunk if that makes it smaller.
func pack(raw []byte) []byte {
	packed := encoder().EncodeAll(raw, append(make([]byte, 0, len(raw)/2), packedZstd))
	if len(packed) <= len(raw) {
		return packed
	}
	return append([]byte{packedRaw}, raw...)
}

// Close writes out what is left and gives the number of chunks and the root
// digest: sha256 over the sha256 of each chunk's Data, in order.
func (w *Writer) Close() (chunks int, root [32]byte, err error) {
	if err := w.flush(false); err != nil {
		return 0, root, err
	}
	w.root.Sum(root[:0])
	return w.seq, root, nil
}
