package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"

	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

// Object is a file to be written.
type Object struct {
	Name string // relative to the place, "/"-separated, clean
	Size int64
	Mode fs.FileMode // permissions, where the place has such
	Link string      // of a symbolic link, what it leads to; places without links have none to write
}

// Place is a destination. Its methods may be called concurrently; each tries again what may help
// by itself, so that an error is final for the moment.
type Place interface {
	// Put writes an object whole, replacing what is there. open gives its bytes, and is called
	// again for each try. It is durable after Sync.
	Put(ctx context.Context, o Object, open func() (io.ReadCloser, error)) error

	// Get reads a small object, with the version by which Replace knows it. What is not there
	// is NotFound.
	Get(ctx context.Context, name string) (data []byte, version string, err error)

	// Replace writes a small object durably, if what stands there has the given version; "" is
	// nothing. Otherwise the error is ErrStands, and nothing was written.
	Replace(ctx context.Context, name string, data []byte, version string) error

	// Clear deletes the objects below a directory, and what uploads were begun there and never
	// ended, but for what keep wants; whole is false for such uploads.
	Clear(ctx context.Context, dir string, keep func(name string, whole bool) bool) error

	// Sync makes durable all that was put.
	Sync(ctx context.Context) error

	// Close lets go of the place.
	Close() error
}

// ErrStands is returned by Replace when another version stands there.
var ErrStands = errors.New("another version stands there")

// maxSmall bounds an object that is read whole: a manifest.
const maxSmall = 64 << 10

// Config is where this machine may write.
type Config struct {
	Dirs    []string // for file URLs, absolute; "/" allows any
	Buckets []s3.Bucket
}

// Open opens the place at a URL.
func (c Config) Open(rawURL string) (Place, error) {
	scheme, _, _ := strings.Cut(rawURL, "://")
	switch scheme {
	case "s3":
		client, bucket, key, err := s3.Writable(c.Buckets, rawURL)
		if err != nil {
			return nil, err
		}
		prefix := strings.TrimSuffix(key, "/")
		if prefix != "" {
			prefix += "/"
		}
		return &bucketPlace{client: client, bucket: bucket, prefix: prefix}, nil
	case "file", "car":
		u, err := url.Parse(rawURL)
		if err != nil || u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "publish.to", Msg: fmt.Sprintf("%q names no directory", rawURL), Hint: "write " + scheme + ":///DIRECTORY"}
		}
		return c.openDir(path.Clean(u.Path), scheme == "car")
	}
	return nil, &sheaf.Error{Class: sheaf.Unsupported, Field: "publish.to", Msg: fmt.Sprintf("results cannot be published to %q", rawURL), Hint: "write s3://BUCKET/PREFIX, file:///DIRECTORY or car:///DIRECTORY"}
}

// within reports whether a clean absolute path is a root or lies below it.
func within(p, root string) bool {
	root = path.Clean(root)
	return root == "/" || p == root || strings.HasPrefix(p, root+"/")
}
