package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"
)

// The form of a snapshot: a header, then sections, each with its kind, its
// length, its bytes and an xxh3 of all three; the last is kindEnd with the number of
// sections before it. Versions only add: a reader refuses versions and kinds above its own.
const (
	magic           = "SHEAFSTA"
	snapshotVersion = 1
)

// The kinds of sections. Pages and chunks belong to the run before them.
const (
	kindMeta      = 1
	kindNode      = 2
	kindRun       = 3
	kindPage      = 4
	kindChunk     = 5
	kindBackup    = 6
	kindTombstone = 7
	kindSecret    = 20
	kindPolicy    = 30
	kindToken     = 31
	kindNamespace = 32
	kindEnd       = 255
)

// maxSection bounds what a reader allocates for one section: the largest is a
// run's row, with a job of 1 MiB in base64 and the index of its manifest.
const maxSection = 16 << 20

// ErrDamaged is wrapped by Restore where the bytes are not those that were written.
var ErrDamaged = errors.New("the snapshot is damaged")

// ErrNewer is wrapped by Restore where a newer version wrote the snapshot; nothing was touched.
var ErrNewer = errors.New("the snapshot is of a newer version")

type frameWriter struct {
	w     io.Writer
	head  []byte
	count uint64
}

func (f *frameWriter) header() error {
	b := binary.LittleEndian.AppendUint32([]byte(magic), snapshotVersion)
	_, err := f.w.Write(b)
	return err
}

// section writes one section of the given parts joined.
func (f *frameWriter) section(kind byte, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > maxSection {
		return fmt.Errorf("a section of kind %d has %d bytes, more than %d", kind, n, maxSection)
	}
	f.head = binary.LittleEndian.AppendUint32(append(f.head[:0], kind), uint32(n))
	h := xxh3.New()
	for _, p := range append([][]byte{f.head}, parts...) {
		_, _ = h.Write(p)
		if _, err := f.w.Write(p); err != nil {
			return err
		}
	}
	f.count++
	_, err := f.w.Write(binary.LittleEndian.AppendUint64(nil, h.Sum64()))
	return err
}

type frameReader struct {
	r     io.Reader
	buf   []byte
	count uint64
}

func (f *frameReader) header() error {
	b := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(f.r, b); err != nil {
		return fmt.Errorf("%w: its header: %w", ErrDamaged, err)
	}
	if string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	switch v := binary.LittleEndian.Uint32(b[len(magic):]); {
	case v == 0:
		return fmt.Errorf("%w: there is no version 0", ErrDamaged)
	case v > snapshotVersion:
		return fmt.Errorf("%w: %d, and this agent knows %d", ErrNewer, v, snapshotVersion)
	}
	return nil
}

// section reads the next section; its bytes are valid until the next.
func (f *frameReader) section() (kind byte, data []byte, err error) {
	damaged := func(what string) (byte, []byte, error) {
		return 0, nil, fmt.Errorf("%w: section %d %s", ErrDamaged, f.count, what)
	}
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return damaged("is cut off")
	}
	n := int(binary.LittleEndian.Uint32(head[1:]))
	if n > maxSection {
		return damaged("is too long")
	}
	if cap(f.buf) < n+8 {
		f.buf = make([]byte, n+8)
	}
	b := f.buf[:n+8]
	if _, err := io.ReadFull(f.r, b); err != nil {
		return damaged("is cut off")
	}
	h := xxh3.New()
	_, _ = h.Write(head[:])
	_, _ = h.Write(b[:n])
	if h.Sum64() != binary.LittleEndian.Uint64(b[n:]) {
		return damaged("does not match its checksum")
	}
	f.count++
	return head[0], b[:n], nil
}
