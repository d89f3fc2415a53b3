package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment begins with a head: magic, its number, its salt, and a checksum of these.
const (
	segmentMagic = "SHEAFRC1"
	segmentHead  = 24
	segmentSize  = 64 << 20 // bytes after which a new one is begun: what is scanned at most after a crash
	blockLen     = 16 << 10 // bytes read at once: about a hundred records without logs
)

func segmentName(dir string, n uint32) string {
	return filepath.Join(dir, fmt.Sprintf("seg-%08d", n))
}

// segments lists the numbers of a run's segments, ascending.
func segments(dir string) ([]uint32, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, e := range names {
		if s, ok := strings.CutPrefix(e.Name(), "seg-"); ok {
			if n, err := strconv.ParseUint(s, 10, 32); err == nil && n > 0 {
				list = append(list, uint32(n))
			}
		}
	}
	return list, nil // ReadDir sorts, and the names have one length
}

// segment is an open segment.
type segment struct {
	f    *os.File
	n    uint32
	salt uint64
	size int64 // of what counts
}

func createSegment(dir string, n uint32) (*segment, error) {
	f, err := os.OpenFile(segmentName(dir, n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	var b [segmentHead]byte
	copy(b[:], segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], n)
	rand.Read(b[12:20])
	binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	if _, err := f.WriteAt(b[:], 0); err != nil {
		f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return &segment{f: f, n: n, salt: binary.LittleEndian.Uint64(b[12:]), size: segmentHead}, nil
}

// openSegment opens a segment that is there; its size is the file's.
func openSegment(dir string, n uint32, write bool) (*segment, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(segmentName(dir, n), mode, 0)
	if err != nil {
		return nil, err
	}
	var b [segmentHead]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, err
	}
	sum := binary.LittleEndian.Uint32(b[20:])
	if string(b[:8]) != segmentMagic || binary.LittleEndian.Uint32(b[8:]) != n || sum != crc32.Checksum(b[:20], castagnoli) {
		f.Close()
		return nil, &Damage{File: f.Name(), What: "the segment has no head"}
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &segment{f: f, n: n, salt: binary.LittleEndian.Uint64(b[12:]), size: st.Size()}, nil
}

// reader reads records, mostly forward, with a block read ahead. It has
// descriptors of its own and is used by one goroutine.
type reader struct {
	dir   string
	seg   *segment
	block []byte // of seg, from start
	start int64
	buf   []byte
	found func(*Damage) // told of damage that does not keep a record from being read
}

func (r *reader) close() {
	if r.seg != nil {
		r.seg.f.Close()
		r.seg = nil
	}
}

// at reads the record at l. The bytes are valid until the next call.
func (r *reader) at(l loc) (head, []byte, error) {
	if r.seg == nil || r.seg.n != l.seg {
		r.close()
		seg, err := openSegment(r.dir, l.seg, false)
		if errors.Is(err, os.ErrNotExist) {
			return head{}, nil, &Damage{File: segmentName(r.dir, l.seg), What: "the segment is gone"}
		}
		if err != nil {
			return head{}, nil, err
		}
		r.seg, r.block = seg, nil
	}
	h, payload, err := r.read(int64(l.off))
	var damage *Damage
	if errors.As(err, &damage) {
		// The block may be older than the record: what a flush that found no
		// room wrote was cut off and written over.
		r.block = nil
		h, payload, err = r.read(int64(l.off))
	}
	return h, payload, err
}

func (r *reader) read(off int64) (head, []byte, error) {
	b, err := r.bytes(off, headLen)
	if err != nil {
		return head{}, nil, err
	}
	if len(b) < headLen {
		return head{}, nil, r.damage(off, "the file ends within a record")
	}
	h := readHead(b)
	if h.length > maxPayload {
		return head{}, nil, r.damage(off, "a record has an impossible length")
	}
	if b, err = r.bytes(off, headLen+int(h.length)); err != nil {
		return head{}, nil, err
	}
	if len(b) < headLen+int(h.length) {
		return head{}, nil, r.damage(off, "the file ends within a record")
	}
	if checksum(b, r.seg.salt) != h.crc {
		return head{}, nil, r.damage(off, "a record fails its checksum")
	}
	if h.mark != answered && h.mark != unanswered {
		r.found(r.damage(off+answerByte, "a record's mark is neither answered nor unanswered"))
		h.mark = unanswered
	}
	return h, b[headLen:], nil
}

// bytes gives n bytes from off, fewer at the end of the file.
func (r *reader) bytes(off int64, n int) ([]byte, error) {
	if d := off - r.start; d >= 0 && d+int64(n) <= int64(len(r.block)) {
		return r.block[d : d+int64(n)], nil
	}
	if n > blockLen {
		// The length may be damaged: no more is allocated than the file has.
		st, err := r.seg.f.Stat()
		if err != nil {
			return nil, err
		}
		n = int(min(int64(n), max(0, st.Size()-off)))
	}
	if want := max(n, blockLen); cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	k, err := r.seg.f.ReadAt(r.buf[:max(n, blockLen)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r.block, r.start = r.buf[:k], off
	return r.block[:min(n, k)], nil
}

func (r *reader) damage(off int64, what string) *Damage {
	return &Damage{File: r.seg.f.Name(), Offset: off, What: what}
}
