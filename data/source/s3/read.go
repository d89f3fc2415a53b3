package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// maxBreaks is how often in a row a transfer may break without a byte gained before
// it is given up.
const maxBreaks = 5

// Open opens an object. Nothing is transferred before the first read.
func (s *bucketSource) Open(ctx context.Context, rel, identity string) (source.File, error) {
	e, err := s.Stat(ctx, rel)
	if err != nil {
		return nil, err
	}
	if e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a directory, not a file", rel)}
	}
	if identity != "" && identity != e.Tag {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("open %q: it was %s and is %s", rel, identity, e.Tag), Err: source.ErrChanged, Hint: "run the job again, on objects that stay as they are"}
	}
	return &object{s: s, ctx: ctx, entry: e}, nil
}

// object is an open object. Reading goes on behind where a transfer broke.
type object struct {
	s     *bucketSource
	ctx   context.Context // of the opening: a read has none of its own
	entry sheaf.Entry
	at    int64
	body  io.ReadCloser
}

// Entry is the object as it was when it was opened.
func (o *object) Entry() sheaf.Entry { return o.entry }

// Host says that it is not on this machine.
func (*object) Host() *os.File { return nil }

// from opens the bytes from..to-1 of the very object that was listed.
func (o *object) from(from, to int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
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
	body, info, _, err := minio.Core{Client: o.s.client}.GetObject(o.ctx, o.s.bucket, o.s.prefix+o.entry.Path, opts)
	if err != nil {
		return nil, o.s.failed(fmt.Sprintf("read %q", o.entry.Path), err)
	}
	if info.ETag != tag { // a service that knows no If-Match
		_ = body.Close()
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("%q was replaced while it was read", o.entry.Path), Err: source.ErrChanged, Hint: "run the job again, on objects that stay as they are"}
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

// Check asks the service whether the object is still the same.
func (o *object) Check() error {
	now, err := o.s.Stat(o.ctx, o.entry.Path)
	switch {
	case err != nil && sheaf.ClassOf(err) == sheaf.NotFound, err == nil && now.Tag != o.entry.Tag:
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("%q was replaced while it was read", o.entry.Path), Err: source.ErrChanged}
	}
	return err
}

// Close ends the transfer.
func (o *object) Close() error {
	o.drop()
	return nil
}
