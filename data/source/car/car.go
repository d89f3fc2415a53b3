// Package car reads and writes CAR files: blocks behind each other in one file, each with its CID.
//
// A source is what lies below a root of a CAR file on this machine, read by way of package
// unixfs, which verifies each block: whoever wrote the file, and its index where it has one, is not trusted.
//
// [Write] makes one of files: CIDv1, sha2-256, raw leaves, chunks of 1 MiB, at most 174 links a node, balanced,
// and directories of more than 256 KiB in shards of 256. So does
// ipfs add --cid-version=1 --chunker=size-1048576, which gives the same CID. A [Writer] makes the same of files that come
// one by one and are read once, as those of a run's result do.
package car

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/unixfs"
	"github.com/sheaf-run/agent/sheaf"
)

// maxHeader bounds a file's header in bytes: room for thousands of roots.
const maxHeader = 1 << 20

// Opener opens car:///PATH, the files below the one root of a CAR file in one of the directories. Behind # may
// stand which root, or which part of it: #CID, #/path or #CID/path.
func Opener(roots []source.Root) source.Opener {
	return func(rawURL string) (source.Source, error) {
		invalid := func(msg, hint string) error {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q %s", rawURL, msg), Hint: hint}
		}
		u, err := url.Parse(rawURL)
		if err != nil || u.Scheme != "car" || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, invalid("names no CAR file", "write car:///path/file.car, with three slashes")
		}
		text, below, _ := strings.Cut(u.Fragment, "/")
		c := &file{}
		if text != "" {
			if c.root, err = unixfs.Parse(text); err != nil {
				return nil, err
			}
		}
		if below = strings.Trim(below, "/"); below != "" && source.CheckPath(below) != nil {
			return nil, invalid("has a path behind # that is not clean", "write it without .. and double slashes")
		}
		c.below = below
		c.dir, err = source.Open((&url.URL{Scheme: "file", Path: u.Path}).String(), source.Config{Files: roots})
		if err != nil {
			return nil, err
		}
		c.name = path.Base(path.Clean(u.Path))
		if _, isDir := c.dir.Local(""); isDir {
			return nil, errors.Join(invalid("is a directory", "name a CAR file, or the directory with file://"), c.dir.Close())
		}
		return c, nil
	}
}

// file is a CAR file and the source in it.
type file struct {
	dir   source.Source // that holds the file
	name  string
	root  cid.Cid // undefined where the file has one
	below string

	mu     sync.Mutex
	open   *held // nil before the first look
	source *unixfs.Source
	closed bool
}

// held is the open CAR file, which the source and the files that were opened from it hold.
type held struct {
	source.File
	holders atomic.Int32
}

// drop ends one's holding; the last closes.
func (h *held) drop() error {
	if h.holders.Add(-1) > 0 {
		return nil
	}
	return h.Close()
}

// inside is an open file of the source.
type inside struct {
	source.File
	close func() error
}

// Close ends its hold of the CAR file.
func (f inside) Close() error { return errors.Join(f.File.Close(), f.close()) }

// look opens the file and finds where its blocks stand, the first time.
func (f *file) look(ctx context.Context) (*unixfs.Source, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.source != nil {
		return f.source, nil
	}
	if f.closed {
		return nil, errors.New("the source is closed")
	}
	opened, err := f.dir.Open(ctx, f.name, "")
	if err != nil {
		return nil, err
	}
	f.source, err = f.index(opened)
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	f.open = &held{File: opened}
	f.open.holders.Store(1)
	return f.source, nil
}

func (f *file) index(opened source.File) (*unixfs.Source, error) {
	damaged := func(err error) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%q cannot be read as a CAR file", f.name), Err: err, Hint: "make it again, as with ipfs dag export"}
	}
	blocks, err := indexed(opened)
	if err != nil {
		return nil, damaged(err)
	}
	root := f.root
	if !root.Defined() {
		roots := blocks.car.Roots()
		if len(roots) != 1 {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%q has %d roots", f.name, len(roots)), Hint: "say which: car:///path/file.car#CID"}
		}
		root = roots[0]
	}
	return unixfs.New(blocks, root, f.below)
}

// blocks are those of a CAR file.
type blocks struct{ car storage.ReadableCar }

func indexed(opened source.File) (b *blocks, err error) {
	// The library reads lengths that anybody may have written.
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("its lengths make no sense: %v", r)
		}
	}()
	car, err := storage.OpenReadable(opened, carv2.MaxAllowedHeaderSize(maxHeader), carv2.MaxAllowedSectionSize(unixfs.MaxBlock+(1<<10)), carv2.ZeroLengthSectionAsEOF(true))
	if err != nil {
		return nil, err
	}
	return &blocks{car}, nil
}

// Get reads a block.
func (b *blocks) Get(ctx context.Context, c cid.Cid) (block []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			block, err = nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("block %s of the CAR file cannot be read: its length makes no sense", c)}
		}
	}()
	block, err = b.car.Get(ctx, c.KeyString())
	var missing storage.ErrNotFound
	switch {
	case errors.As(err, &missing):
		return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("the CAR file has no block %s", c), Hint: "make it again, with all blocks below its root"}
	case err != nil:
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("block %s of the CAR file cannot be read", c), Err: err, Hint: "make it again"}
	case len(block) > unixfs.MaxBlock:
		return nil, &sheaf.Error{Class: sheaf.TooLarge, Field: "source", Msg: fmt.Sprintf("block %s has %d bytes", c, len(block)), Limit: fmt.Sprintf("%d bytes", unixfs.MaxBlock)}
	}
	return block, nil
}

// List lists the files below the root.
func (f *file) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	s, err := f.look(ctx)
	if err != nil {
		return err
	}
	return s.List(ctx, scope, yield)
}

// Stat looks at one path.
func (f *file) Stat(ctx context.Context, path string) (sheaf.Entry, error) {
	s, err := f.look(ctx)
	if err != nil {
		return sheaf.Entry{}, err
	}
	return s.Stat(ctx, path)
}

// Open opens a file below the root.
func (f *file) Open(ctx context.Context, path, identity string) (source.File, error) {
	s, err := f.look(ctx)
	if err != nil {
		return nil, err
	}
	opened, err := s.Open(ctx, path, identity)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return nil, errors.Join(errors.New("the source is closed"), opened.Close())
	}
	f.open.holders.Add(1)
	return inside{opened, sync.OnceValue(f.open.drop)}, nil
}

// Local says that what is in the file is no file of this machine.
func (*file) Local(string) (string, bool) { return "", false }

// Shared reports whether other nodes see the same CAR file.
func (f *file) Shared() bool { return f.dir.Shared() }

// Close closes the CAR file.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.dir.Close()
	if f.open != nil {
		err = errors.Join(err, f.open.drop())
	}
	f.open, f.source, f.closed = nil, nil, true
	return err
}
