package merged

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Open opens a file to be read from where its parts lie.
func (s *Source) Open(ctx context.Context, rel, identity string) (source.File, error) {
	e, err := s.Stat(ctx, rel)
	if err != nil {
		return nil, err
	}
	if e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a %s, not a file", rel, e.Kind)}
	}
	if identity != "" && identity != e.Tag {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("open %q: it was %s and is %s", rel, identity, e.Tag), Err: source.ErrChanged, Hint: "run the job again"}
	}
	f, x, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	v, err := x.find(f, rel)
	if err == nil {
		v, _, err = x.entry(f, v)
	}
	if err != nil {
		return nil, err
	}
	return &file{ctx: ctx, open: s.cfg.Open, of: v, entry: e}, nil
}

// file is an open file of a result.
type file struct {
	ctx   context.Context // of the opening: a read has none of its own
	open  func(ctx context.Context, f *sheaf.File, p sheaf.Part, offset, length int64) (io.ReadCloser, error)
	of    *sheaf.File
	entry sheaf.Entry

	next int           // part to be opened
	body io.ReadCloser // of the part before it; nil between parts
	sum  hash.Hash     // of what was read of it
	left int64         // bytes of it that are yet to come
}

func (f *file) Entry() sheaf.Entry { return f.entry }

// Host says that it is no file of this machine.
func (*file) Host() *os.File { return nil }

// Check has nothing to look at: a result never changes, and Read compares each part with its digest.
func (*file) Check() error { return nil }

func (f *file) Read(b []byte) (int, error) {
	for {
		if f.body == nil {
			if f.next == len(f.of.Parts) {
				return 0, io.EOF
			}
			p := f.of.Parts[f.next]
			body, err := f.open(f.ctx, f.of, p, 0, 0)
			if err != nil {
				return 0, f.failed(p, err)
			}
			f.body, f.sum, f.left = body, sha256.New(), p.Size
			f.next++
		}
		if len(b) == 0 {
			return 0, nil
		}
		p := f.of.Parts[f.next-1]
		n, err := f.body.Read(b)
		f.sum.Write(b[:n])
		if f.left -= int64(n); f.left < 0 {
			return 0, damaged(f.of, p)
		}
		switch {
		case errors.Is(err, io.EOF):
			if got := hex.EncodeToString(f.sum.Sum(nil)); f.left != 0 || got != p.SHA256 {
				return 0, damaged(f.of, p)
			}
			err = f.drop()
		case err != nil:
			err = f.failed(p, err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (f *file) failed(p sheaf.Part, err error) error {
	return fmt.Errorf("read %q, from partition %d: %w", f.entry.Path, p.Partition, err)
}

func damaged(f *sheaf.File, p sheaf.Part) error {
	return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("%q is damaged: what partition %d left is not as it was committed", f.Path, p.Partition), Hint: "`agent job retry -lost` of that run makes it again"}
}

func (f *file) drop() error {
	if f.body == nil {
		return nil
	}
	err := f.body.Close()
	f.body = nil
	return err
}

// ReadAt reads a stretch. Parts that are not read whole are not compared with their digests.
func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= f.of.Size {
		if len(b) == 0 && off >= 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := 0
	for _, p := range f.of.Parts {
		if off >= p.Size {
			off -= p.Size
			continue
		}
		want := min(int64(len(b)-n), p.Size-off)
		if want == 0 {
			break
		}
		m, err := f.stretch(p, b[n:n+int(want)], off)
		n += m
		if err != nil {
			return n, f.failed(p, err)
		}
		off = 0
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) stretch(p sheaf.Part, b []byte, off int64) (int, error) {
	body, err := f.open(f.ctx, f.of, p, off, int64(len(b)))
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }() // only read
	return io.ReadFull(body, b)
}

func (f *file) Close() error { return f.drop() }
