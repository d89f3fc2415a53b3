package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// maxBreaks is how often in a row a transfer may break without a byte gained before
// it is given up.
const maxBreaks = 5

// Open opens an object, in the version that has the identity. Nothing is transferred before the first read.
func (s *bucketSource) Open(ctx context.Context, rel, identity string) (source.File, error) {
	e, err := s.Stat(ctx, rel)
	if err != nil && (identity == "" || sheaf.ClassOf(err) != sheaf.NotFound) {
		return nil, err
	}
	if identity == "" && e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a directory, not a file", rel)}
	}
	o := &object{s: s, ctx: ctx, key: s.prefix + rel, entry: e, version: s.version}
	if identity == "" || identity == e.Tag {
		return o, nil
	}
	was, version, verr := s.listed(ctx, rel, o.key, identity)
	switch {
	case verr != nil:
		return nil, verr
	case version != "":
		o.entry, o.version = was, version
		return o, nil
	case err != nil:
		return nil, err
	case e.Kind != sheaf.EntryFile:
		return nil, replaced(fmt.Sprintf("open %q: it was %s and is a directory", rel, identity))
	}
	return nil, replaced(fmt.Sprintf("open %q: it was %s and is %s", rel, identity, e.Tag))
}

// object is an open object. Reading goes on behind where a transfer broke.
type object struct {
	s     *bucketSource
	ctx   context.Context // of the opening: a read has none of its own
	key   string
	entry sheaf.Entry
	at    int64
	body  io.ReadCloser

	mu      sync.Mutex
	version string // that is read; "" is the current one, as long as it is what was opened. Guarded by mu
}

// Entry is the object as it was when it was opened.
func (o *object) Entry() sheaf.Entry { return o.entry }

// Host says that it is not on this machine.
func (*object) Host() *os.File { return nil }

// from opens the bytes from..to-1 of the very object that was opened. When that was replaced or
// deleted, its version is read from then on, where there is one.
func (o *object) from(from, to int64) (io.ReadCloser, error) {
	o.mu.Lock()
	version := o.version
	o.mu.Unlock()
	body, err := o.get(version, from, to)
	if err == nil || version != "" || !errors.Is(err, source.ErrChanged) && sheaf.ClassOf(err) != sheaf.NotFound {
		return body, err
	}
	_, version, verr := o.s.listed(o.ctx, o.entry.Path, o.key, o.entry.Tag)
	if verr != nil {
		return nil, verr
	}
	if version == "" {
		return nil, err
	}
	o.mu.Lock()
	o.version = version
	o.mu.Unlock()
	return o.get(version, from, to)
}

// get asks for the bytes from..to-1 of a version, "" is the current one, if it is what was opened.
func (o *object) get(version string, from, to int64) (io.ReadCloser, error) {
	opts := minio.GetObjectOptions{VersionID: version}
	tag, ok := etag(o.entry.Tag)
	if !ok {
		return nil, fmt.Errorf("%q has the identity %q, which makes no sense", o.entry.Path, o.entry.Tag)
	}
	if err := opts.SetMatchETag(tag); err != nil {
		return nil, err
	}
	if err := opts.SetRange(from, to-1); err != nil {
		return nil, err
	}
	body, info, _, err := minio.Core{Client: o.s.client}.GetObject(o.ctx, o.s.bucket, o.key, opts)
	if err != nil {
		return nil, o.s.failed(fmt.Sprintf("read %q", o.entry.Path), err)
	}
	if info.ETag != tag { // a service that knows no If-Match
		_ = body.Close()
		return nil, replaced(fmt.Sprintf("%q was replaced while it was read", o.entry.Path))
	}
	return body, nil
}

// Read reads on; a transfer that breaks is begun again where it broke.
func (o *object) Read(p []byte) (int, error) {
	for breaks := 0; ; breaks++ {
		if o.at >= o.entry.Size {
			return 0, io.EOF
		}
		if o.body == nil {
			var err error
			if o.body, err = o.from(o.at, o.entry.Size); err != nil {
				return 0, err
			}
		}
		n, err := o.body.Read(p)
		o.at += int64(n)
		switch {
		case n > 0 || err == nil:
			if err != nil {
				o.drop()
			}
			return n, nil
		case breaks == maxBreaks || o.ctx.Err() != nil:
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, o.s.failed(fmt.Sprintf("read %q at byte %d", o.entry.Path, o.at), err)
		}
		o.drop()
	}
}

func (o *object) drop() {
	if o.body != nil {
		_ = o.body.Close() // it broke or is not wanted any more
		o.body = nil
	}
}

// ReadAt reads a range by a request of its own.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), o.entry.Size)
	if off < 0 || off >= end {
		if len(p) == 0 && off >= 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := 0
	for breaks := 0; int64(n) < end-off; breaks++ {
		body, err := o.from(off+int64(n), end)
		if err != nil {
			return n, err
		}
		m, err := io.ReadFull(body, p[n:end-off])
		_ = body.Close()
		if n += m; m > 0 {
			breaks = 0
		}
		if int64(n) < end-off && (breaks == maxBreaks || o.ctx.Err() != nil) {
			return n, o.s.failed(fmt.Sprintf("read %q at byte %d", o.entry.Path, off+int64(n)), err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Check asks the service whether the object is still the same. A version always is.
func (o *object) Check() error {
	o.mu.Lock()
	version := o.version
	o.mu.Unlock()
	if version != "" {
		return nil
	}
	now, err := o.s.Stat(o.ctx, o.entry.Path)
	if err == nil && now.Tag == o.entry.Tag || err != nil && sheaf.ClassOf(err) != sheaf.NotFound {
		return err
	}
	if _, version, err = o.s.listed(o.ctx, o.entry.Path, o.key, o.entry.Tag); err != nil || version != "" {
		return err
	}
	return replaced(fmt.Sprintf("%q was replaced while it was read", o.entry.Path))
}

// Close ends the transfer.
func (o *object) Close() error {
	o.drop()
	return nil
}
