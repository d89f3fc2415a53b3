package https

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// maxBreaks is how often in a row a transfer may break without a byte gained before
// it is given up.
const maxBreaks = 5

// stat looks at the resource r, that stands at path.
func (w *web) stat(ctx context.Context, r resource, path string) (sheaf.Entry, version, error) {
	v, err := w.look(ctx, r.url)
	if err != nil {
		return sheaf.Entry{}, v, err
	}
	e := sheaf.Entry{Path: path, Kind: sheaf.EntryFile, Size: v.size, Tag: r.digest}
	switch {
	case v.size < 0:
		err = &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: plain(r.url) + " does not say how many bytes it has", Hint: "name a file that lies there, not one that is made for each request"}
	case e.Tag == "" && v.tag == "":
		err = &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: plain(r.url) + " says neither ETag nor Last-Modified, so that a change would go unnoticed", Hint: "say its digest: …#sha256=HEX"}
	case e.Tag == "":
		e.Tag = v.tag
	}
	return e, v, err
}

// open opens the resource r, that stands at path, for reading. Nothing is transferred before the first read.
func (w *web) open(ctx context.Context, r resource, path, identity string) (source.File, error) {
	e, v, err := w.stat(ctx, r, path)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	if identity != "" && identity != e.Tag {
		return nil, fmt.Errorf("open %q: %w", path, replaced(r.url, identity, e.Tag))
	}
	f := &file{web: w, ctx: ctx, url: r.url, version: v, entry: e}
	if r.digest != "" {
		f.hash = sha256.New()
	}
	return f, nil
}

// file is an open file. Reading goes on where a transfer broke.
type file struct {
	web     *web
	ctx     context.Context // of the opening: a read has none of its own
	url     *url.URL
	version version
	entry   sheaf.Entry
	at      int64
	body    io.ReadCloser
	hash    hash.Hash // where the digest was said: of what was read from the beginning on
}

// Entry is the file as it was when it was opened.
func (f *file) Entry() sheaf.Entry { return f.entry }

// Host says that it is not on this machine.
func (*file) Host() *os.File { return nil }

// Read reads on; a transfer that breaks is begun again where it broke.
func (f *file) Read(p []byte) (int, error) {
	for breaks := 0; ; breaks++ {
		if err := f.ctx.Err(); err != nil { // what came already may be much
			return 0, err
		}
		if f.at >= f.entry.Size {
			f.drop()
			return 0, f.ended()
		}
		if f.body == nil {
			var err error
			if f.body, err = f.web.from(f.ctx, f.url, f.version, f.at, f.entry.Size); err != nil {
				return 0, fmt.Errorf("read %q: %w", f.entry.Path, err)
			}
		}
		n, err := f.body.Read(p[:min(int64(len(p)), f.entry.Size-f.at)])
		f.at += int64(n)
		if f.hash != nil {
			f.hash.Write(p[:n])
		}
		switch {
		case n > 0 || err == nil:
			if err != nil {
				f.drop()
			}
			return n, nil
		case breaks == maxBreaks || f.ctx.Err() != nil:
			return 0, f.broken(f.at, err)
		}
		f.drop()
	}
}

// ended says at the end whether the whole was what its digest says.
func (f *file) ended() error {
	if f.hash == nil {
		return io.EOF
	}
	if sum := "sha256:" + hex.EncodeToString(f.hash.Sum(nil)); sum != f.entry.Tag {
		return &sheaf.Error{ // trying again would find the same
			Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%s is %s, and %s is wanted: correct the digest behind #sha256= if this is the file that is meant, or else find out who changed it", plain(f.url), sum, f.entry.Tag),
		}
	}
	return io.EOF
}

func (f *file) broken(at int64, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("at byte %d: %w", at, classed(f.url, err))
}

func (f *file) drop() {
	if f.body != nil {
		_ = f.body.Close() // it broke or is not wanted any more
		f.body = nil
	}
}

// ReadAt reads a range by a request of its own.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), f.entry.Size)
	if off < 0 || off >= end {
		if len(p) == 0 && off >= 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := 0
	for breaks := 0; int64(n) < end-off; breaks++ {
		body, err := f.web.from(f.ctx, f.url, f.version, off+int64(n), end)
		if err != nil {
			return n, fmt.Errorf("read %q: %w", f.entry.Path, err)
		}
		m, err := io.ReadFull(body, p[n:end-off])
		_ = body.Close()
		if n += m; m > 0 {
			breaks = 0
		}
		if int64(n) < end-off && (breaks == maxBreaks || f.ctx.Err() != nil) {
			return n, f.broken(off+int64(n), err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Check asks the server whether the file is still the same.
func (f *file) Check() error {
	now, err := f.web.look(f.ctx, f.url)
	if err != nil && sheaf.ClassOf(err) != sheaf.NotFound {
		return err
	}
	if err != nil || now.tag != f.version.tag || now.size != f.version.size {
		return fmt.Errorf("%q: %w", f.entry.Path, replaced(f.url, f.version.tag, now.tag))
	}
	return nil
}

// Close ends the transfer.
func (f *file) Close() error {
	f.drop()
	return nil
}

// fileSource is one file.
type fileSource struct{ *site }

func (s *fileSource) index(ctx context.Context) (*source.Index, error) {
	e, _, err := s.web.stat(ctx, s.asked, s.asked.name)
	if err != nil {
		return nil, err
	}
	return source.NewIndex([]sheaf.Entry{e})
}

// List lists the one file.
func (s *fileSource) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	x, err := s.index(ctx)
	if err != nil {
		return err
	}
	return x.List(ctx, scope, yield)
}

// Stat looks at the file.
func (s *fileSource) Stat(ctx context.Context, path string) (sheaf.Entry, error) {
	if err := s.holds(path); err != nil {
		return sheaf.Entry{}, err
	}
	e, _, err := s.web.stat(ctx, s.asked, path)
	return e, err
}

// Open opens the file.
func (s *fileSource) Open(ctx context.Context, path, identity string) (source.File, error) {
	if err := s.holds(path); err != nil {
		return nil, err
	}
	return s.web.open(ctx, s.asked, path, identity)
}

func (s *fileSource) holds(path string) error {
	if err := source.CheckPath(path); err != nil {
		return err
	}
	if path != s.asked.name {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("%q is not in the source, which is the one file %q", path, s.asked.name)}
	}
	return nil
}
