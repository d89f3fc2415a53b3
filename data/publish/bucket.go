package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxHeld is up to which size an object is held in memory while it is sent: a request that fails is
	// then sent again without reading anew. What is larger is read again.
	maxHeld = 1 << 20
	// partSize is that of an upload in parts. Each part is held in memory while it is sent;
	// ten thousand of them are the largest object.
	partSize = 16 << 20
	maxParts = 10_000
	// tries of a whole operation, above those of each of its requests.
	tries = 5
	// firstPause between two tries; each later one is twice as long.
	firstPause = 250 * time.Millisecond
)

// bucketPlace is a prefix in a bucket.
type bucketPlace struct {
	client *minio.Client
	bucket string
	prefix string // ends in a slash, or is empty
}

// again tries an operation until it works, cannot, or has been tried often enough.
func (b *bucketPlace) again(ctx context.Context, step string, do func() error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := b.failed(step, do())
		if err == nil || try == tries || ctx.Err() != nil || sheaf.ClassOf(err) != sheaf.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause *= 2
	}
}

// Put uploads an object; a large one goes in parts. A bucket has no links: what a link leads to is there
// under its own name.
func (b *bucketPlace) Put(ctx context.Context, o Object, open func() (io.ReadCloser, error)) error {
	if o.Link != "" {
		return nil
	}
	return b.again(ctx, "write "+o.Name, func() error {
		body, err := open()
		if err != nil {
			return &reading{err}
		}
		defer body.Close()
		from := &source{Reader: body}
		var r io.Reader = from
		opts := minio.PutObjectOptions{ContentType: "application/octet-stream"}
		if o.Size <= maxHeld {
			data := make([]byte, o.Size)
			if _, err := io.ReadFull(from, data); err != nil {
				return &reading{err}
			}
			if _, err := from.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				return &reading{errors.Join(err, errors.New("it is longer than it is said to be"))}
			}
			opts.DisableMultipart = true
			opts.DisableContentSha256 = o.Size == 0 // a signed stream of nothing has no length, which some services refuse
			r = bytes.NewReader(data)
		} else {
			// Each part is signed by its MD5: not every service takes a stream that signs itself as a part.
			opts.SendContentMd5, opts.DisableContentSha256 = true, true
			opts.PartSize = uint64(max(partSize, (o.Size/maxParts/partSize+1)*partSize))
		}
		_, err = b.client.PutObject(ctx, b.bucket, b.prefix+o.Name, r, o.Size, opts)
		if from.err != nil {
			return &reading{from.err}
		}
		return err
	})
}

// source remembers why reading from it failed, which is not the service's fault.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// reading is an error of what was to be written: it goes up as it is.
type reading struct{ error }

func (r *reading) Unwrap() error { return r.error }

// Get reads an object; its version is its ETag.
func (b *bucketPlace) Get(ctx context.Context, name string) (data []byte, version string, err error) {
	err = b.again(ctx, "read "+name, func() error {
		body, info, _, err := minio.Core{Client: b.client}.GetObject(ctx, b.bucket, b.prefix+name, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = small(body)
		version = info.ETag
		return err
	})
	return data, version, err
}

// Replace puts with a condition. Where a service has no conditions the object is put without: what
// stands there was looked at just before.
func (b *bucketPlace) Replace(ctx context.Context, name string, data []byte, version string) error {
	conditional := true
	return b.again(ctx, "write "+name, func() error {
		opts := minio.PutObjectOptions{ContentType: "application/json", DisableMultipart: true}
		if conditional && version == "" {
			opts.SetMatchETagExcept("*")
		} else if conditional {
			opts.SetMatchETag(version)
		}
		_, err := b.client.PutObject(ctx, b.bucket, b.prefix+name, bytes.NewReader(data), int64(len(data)), opts)
		switch r := minio.ToErrorResponse(err); {
		case err == nil:
			return nil
		case r.StatusCode == http.StatusPreconditionFailed || r.Code == "PreconditionFailed":
			return ErrStands
		case r.StatusCode == http.StatusConflict: // of two that put at once this one has lost
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: "write " + name, Err: err}
		case r.StatusCode == http.StatusNotImplemented || r.Code == "NotImplemented":
			conditional = false
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: "write " + name, Err: err}
		}
		return err
	})
}

// Clear deletes objects a page at a time, and ends uploads.
func (b *bucketPlace) Clear(ctx context.Context, dir string, keep func(string, bool) bool) error {
	return b.again(ctx, "clear "+dir, func() error {
		listing, cancel := context.WithCancel(ctx)
		defer cancel()
		doomed := make(chan minio.ObjectInfo)
		listed := make(chan error, 1)
		go func() {
			defer close(doomed)
			for o := range b.client.ListObjects(listing, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + dir + "/", Recursive: true}) {
				if o.Err != nil {
					listed <- o.Err
					return
				}
				if keep(strings.TrimPrefix(o.Key, b.prefix), true) {
					continue
				}
				select {
				case doomed <- o:
				case <-listing.Done():
					listed <- listing.Err()
					return
				}
			}
			listed <- nil
		}()
		var failed error
		for r := range b.client.RemoveObjects(ctx, b.bucket, doomed, minio.RemoveObjectsOptions{}) {
			if failed == nil && minio.ToErrorResponse(r.Err).Code != minio.NoSuchKey {
				failed = r.Err
			}
		}
		cancel()
		if err := <-listed; failed == nil {
			failed = err
		}
		if failed != nil {
			return failed
		}
		return b.endUploads(ctx, dir, keep)
	})
}

// endUploads ends uploads in parts that were begun and never ended.
func (b *bucketPlace) endUploads(ctx context.Context, dir string, keep func(string, bool) bool) error {
	core := minio.Core{Client: b.client}
	for u := range b.client.ListIncompleteUploads(ctx, b.bucket, b.prefix+dir+"/", true) {
		switch {
		case u.Err != nil && minio.ToErrorResponse(u.Err).Code == minio.NoSuchUpload:
			return nil // some services say so where there is none
		case u.Err != nil:
			return u.Err
		case keep(strings.TrimPrefix(u.Key, b.prefix), false):
			continue
		}
		if err := core.AbortMultipartUpload(ctx, b.bucket, u.Key, u.UploadID); err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
			return err
		}
	}
	return nil
}

// Sync has nothing to do: what a service has taken is durable.
func (*bucketPlace) Sync(context.Context) error { return nil }

// Close has nothing to give up: connections are the process's.
func (*bucketPlace) Close() error { return nil }

// failed gives a service's error its class and the step it came from.
func (b *bucketPlace) failed(step string, err error) error {
	var r *reading
	var own *sheaf.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return r.error
	case errors.Is(err, ErrStands), errors.As(err, &own), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", step, err)
	}
	e := &sheaf.Error{Class: sheaf.Unavailable, Field: "publish.to", Msg: step + " in s3://" + b.bucket + "/" + b.prefix, Err: err, Hint: "check the endpoint, and that the service runs"}
	switch x := minio.ToErrorResponse(err); {
	case x.Code == minio.NoSuchBucket:
		e.Class, e.Hint = sheaf.Invalid, "check the name of the bucket, and region and endpoint in the client's configuration"
	case x.Code == minio.NoSuchKey || x.StatusCode == http.StatusNotFound && x.Code != minio.NoSuchUpload:
		e.Class, e.Hint = sheaf.NotFound, ""
	case s3.Refused(x):
		e.Class, e.Hint = sheaf.Denied, "check the credentials in the client's configuration, whether they have expired, and what they may write"
	case x.StatusCode == http.StatusBadRequest || x.StatusCode == http.StatusMethodNotAllowed:
		e.Class, e.Hint = sheaf.Invalid, "check what the service allows"
	}
	return e
}
