package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Files are the members of an archive, read from its pack. They pass data/source/sourcetest.
type Files struct {
	*source.Index
	pack   *pack
	places map[string]place
}

// pack is the open pack, which Files and the members that are open hold.
type pack struct {
	*os.File
	holders atomic.Int32
	release func()
}

// drop ends one's holding; the last closes.
func (p *pack) drop() error {
	if p.holders.Add(-1) > 0 {
		return nil
	}
	err := p.File.Close()
	if p.release != nil {
		p.release()
	}
	return err
}

var _ source.Source = (*Files)(nil)

type place struct{ offset, size int64 }

// Open opens the pack at path. release, if any, is called when it and all that was opened from it are closed.
func Open(path string, release func()) (*Files, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the pack: %w", err)
	}
	x := &Files{pack: &pack{File: f, release: release}, places: map[string]place{}}
	x.pack.holders.Store(1)
	entries, err := x.list()
	if err == nil {
		x.Index, err = source.NewIndex(entries)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the pack: %w", err), f.Close())
	}
	return x, nil
}

var errDamaged = errors.New("it is damaged")

// list reads the list at the end of the pack.
func (x *Files) list() ([]sheaf.Entry, error) {
	info, err := x.pack.Stat()
	if err != nil {
		return nil, err
	}
	foot := make([]byte, footSize)
	if info.Size() < int64(footSize) {
		return nil, errDamaged
	}
	if _, err := x.pack.ReadAt(foot, info.Size()-int64(footSize)); err != nil {
		return nil, err
	}
	begin := int64(binary.BigEndian.Uint64(foot))
	if string(foot[8+sha256.Size:]) != magic || begin < 0 || begin > info.Size()-int64(footSize) {
		return nil, errDamaged
	}
	list := make([]byte, info.Size()-int64(footSize)-begin)
	if _, err := x.pack.ReadAt(list, begin); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(list); string(sum[:]) != string(foot[8:8+sha256.Size]) {
		return nil, errDamaged
	}
	var entries []sheaf.Entry
	for len(list) > 0 {
		e := sheaf.Entry{Kind: sheaf.EntryKind(list[0])}
		n, k := binary.Uvarint(list[1:])
		list = list[1+k:]
		e.Path, list = string(list[:n]), list[n:]
		if e.Kind == sheaf.EntryFile {
			offset, k := binary.Uvarint(list)
			size, l := binary.Uvarint(list[k:])
			list = list[k+l:]
			e.Size, e.Tag = int64(size), tag(list[:sha256.Size])
			list = list[sha256.Size:]
			x.places[e.Path] = place{int64(offset), int64(size)}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Stat looks at one member.
func (x *Files) Stat(_ context.Context, path string) (sheaf.Entry, error) { return x.Index.Stat(path) }

// Open opens a member that is a file.
func (x *Files) Open(_ context.Context, path, identity string) (source.File, error) {
	e, err := x.Index.Stat(path)
	if err != nil {
		return nil, err
	}
	if e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a %s, not a file", path, e.Kind)}
	}
	if identity != "" && identity != e.Tag {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("open %q: it was %s and is %s", path, identity, e.Tag), Err: source.ErrChanged, Hint: "run the job again, on an archive that stays as it is"}
	}
	at := x.places[path]
	x.pack.holders.Add(1)
	return &file{SectionReader: io.NewSectionReader(x.pack, at.offset, at.size), entry: e, hash: sha256.New(), close: sync.OnceValue(x.pack.drop)}, nil
}

// Local says that members are no files of this machine.
func (*Files) Local(string) (string, bool) { return "", false }

// Shared says that every node unpacks the same.
func (*Files) Shared() bool { return true }

// Close gives the pack back, once.
func (x *Files) Close() error { return x.pack.drop() }

// file is an open member.
type file struct {
	*io.SectionReader
	entry sheaf.Entry
	hash  hash.Hash
	close func() error
}

// Entry is the member.
func (f *file) Entry() sheaf.Entry { return f.entry }

// Host says that it is no file of this machine.
func (*file) Host() *os.File { return nil }

// Close gives up its hold of the pack.
func (f *file) Close() error { return f.close() }

// Check has nothing to look at: a pack does not change.
func (*file) Check() error { return nil }

// Read reads on; at the end the content is what was unpacked.
func (f *file) Read(b []byte) (int, error) {
	n, err := f.SectionReader.Read(b)
	f.hash.Write(b[:n])
	if errors.Is(err, io.EOF) && "sha256:"+hex.EncodeToString(f.hash.Sum(nil)) != f.entry.Tag {
		return n, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("%q was damaged on this machine's disk", f.entry.Path), Hint: "empty the cache in the client's data directory"}
	}
	return n, err
}
