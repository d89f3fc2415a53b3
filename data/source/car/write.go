package car

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// chunker cuts files; 174 links a node are the library's.
const chunker = "size-1048576"

// Files are what a CAR file is made of: a data/source Source, or what lists and opens like one.
type Files interface {
	List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error
	Open(ctx context.Context, path, identity string) (source.File, error)
}

// Write writes the files below a directory of this machine to w as a CAR file of version 1 and
// returns its one root. See [WriteFiles].
func Write(ctx context.Context, dir string, w io.Writer) (cid.Cid, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return cid.Undef, err
	}
	files, err := source.Open(dir, source.Config{Files: []source.Root{{Path: "/"}}})
	if err != nil {
		return cid.Undef, err
	}
	defer func() { _ = files.Close() }() // only read
	return WriteFiles(ctx, files, w)
}

// WriteFiles writes files to w as a CAR file of version 1 and returns its one root, a directory. The root stands first in such a
// file, so that everything is read twice: first for its CID, with nothing written. Files that
// changed in between are an error (wrapped [source.ErrChanged]), as is what is neither a file nor a directory.
func WriteFiles(ctx context.Context, files Files, w io.Writer) (cid.Cid, error) {
	t := &tree{ctx: ctx, files: files, dirs: map[string][]sheaf.Entry{"": nil}}
	if err := files.List(ctx, source.Scope{}, t.add); err != nil {
		return cid.Undef, fmt.Errorf("list files for a CAR: %w", err)
	}
	root, err := t.write(func(cid.Cid, []byte) error { return nil })
	if err != nil {
		return cid.Undef, fmt.Errorf("compute the CID: %w", err)
	}
	car, err := storage.NewWritable(w, []cid.Cid{root}, carv2.WriteAsCarV1(true))
	if err != nil {
		return cid.Undef, fmt.Errorf("write a CAR: %w", err)
	}
	again, err := t.write(func(c cid.Cid, block []byte) error { return car.Put(ctx, c.KeyString(), block) })
	if err == nil && again != root {
		err = &sheaf.Error{Class: sheaf.Conflict, Msg: "the files changed while they were read", Err: source.ErrChanged, Hint: "try again when nobody writes to them"}
	}
	if err := errors.Join(err, car.Finalize()); err != nil {
		return cid.Undef, fmt.Errorf("write a CAR: %w", err)
	}
	return root, nil
}

// tree is the files to write.
type tree struct {
	ctx   context.Context
	files Files
	dirs  map[string][]sheaf.Entry // what lies in each, by its path
}

// add takes over a batch of the listing.
func (t *tree) add(entries []sheaf.Entry) error {
	for _, e := range entries {
		switch e.Kind {
		case sheaf.EntryDir:
			t.dirs[e.Path] = nil
		case sheaf.EntryFile:
		default:
			return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q is a %s", e.Path, e.Kind), Hint: "leave it out: a CAR file holds files and directories"}
		}
		dir := above(e.Path)
		t.dirs[dir] = append(t.dirs[dir], e)
	}
	return nil
}

func above(p string) string { return p[:max(0, strings.LastIndexByte(p, '/'))] }

// write makes the blocks of the whole tree, those below before those above, and gives the root.
func (t *tree) write(put func(cid.Cid, []byte) error) (cid.Cid, error) {
	links := cidlink.DefaultLinkSystem()
	links.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var b bytes.Buffer
		return &b, func(l ipld.Link) error {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			return put(l.(cidlink.Link).Cid, b.Bytes())
		}, nil
	}
	link, _, err := t.dir(&links, "")
	if err != nil {
		return cid.Undef, err
	}
	return link.(cidlink.Link).Cid, nil
}

func (t *tree) dir(links *ipld.LinkSystem, dir string) (ipld.Link, uint64, error) {
	names := make([]dagpb.PBLink, 0, len(t.dirs[dir]))
	for _, e := range t.dirs[dir] {
		make := t.file
		if e.Kind == sheaf.EntryDir {
			make = t.below
		}
		l, size, err := make(links, e)
		if err != nil {
			return nil, 0, err
		}
		name, err := builder.BuildUnixFSDirectoryEntry(path.Base(e.Path), int64(size), l)
		if err != nil {
			return nil, 0, fmt.Errorf("%q: %w", e.Path, err)
		}
		names = append(names, name)
	}
	l, size, err := builder.BuildUnixFSDirectory(names, links)
	if err != nil {
		return nil, 0, fmt.Errorf("directory %q: %w", dir, err)
	}
	return l, size, nil
}

func (t *tree) below(links *ipld.LinkSystem, e sheaf.Entry) (ipld.Link, uint64, error) {
	return t.dir(links, e.Path)
}

func (t *tree) file(links *ipld.LinkSystem, e sheaf.Entry) (ipld.Link, uint64, error) {
	f, err := t.files.Open(t.ctx, e.Path, e.Identity())
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // only read
	l, size, err := builder.BuildUnixFSFile(f, chunker, links)
	if err != nil {
		return nil, 0, fmt.Errorf("read %q: %w", e.Path, err)
	}
	return l, size, f.Check()
}
