package car

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"

	"github.com/sheaf-run/agent/sheaf"
)

// writeBuffer is that of the CAR file, in bytes: a chunk of a file.
const writeBuffer = 1 << 20

// Writer makes a CAR file of version 1 of files that come one by one, in the order of their paths or in any other in which
// what lies in a directory comes in one piece. Everything is read once, and what is in memory does not grow with the number
// of files or their sizes. The same files give the same root, in whatever order; it is the one that [Write] finds. Blocks that are the same
// are written as often as they come. It is not safe for concurrent use.
type Writer struct {
	ctx   context.Context // of the writing: blocks are put without one
	file  *os.File
	buf   *bufio.Writer
	at    int64 // where the next block goes
	links linking.LinkSystem
	head  int64   // length of the header, which is written last
	open  []frame // directories to which more may come, from the root to the last
	names *stack  // what lies in the open directories
}

// frame is an open directory.
type frame struct {
	name  string
	start int64 // of its names in the stack
	size  int   // by which it is decided whether it is put into shards
}

// NewWriter begins a CAR file in an empty file, which stays the caller's to sync and close. What does not fit into
// memory goes to a file without a name in dir.
func NewWriter(ctx context.Context, file *os.File, dir string) (*Writer, error) {
	// Roots are directories, whose CIDs are all of a length.
	root, err := cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: multihash.SHA2_256, MhLength: -1}.Sum(nil)
	if err != nil {
		return nil, err
	}
	head, err := header(root)
	if err != nil {
		return nil, err
	}
	w := &Writer{ctx: ctx, file: file, buf: bufio.NewWriterSize(file, writeBuffer), head: int64(len(head)), links: cidlink.DefaultLinkSystem(), open: []frame{{}}}
	w.links.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var b bytes.Buffer
		return &b, func(l ipld.Link) error { return w.put(l.(cidlink.Link).Cid, b.Bytes()) }, nil
	}
	if err := w.back(w.head); err != nil {
		return nil, err
	}
	w.names, err = newStack(dir)
	return w, err
}

// header is that of a CAR file of version 1.
func header(root cid.Cid) ([]byte, error) {
	var b bytes.Buffer
	if _, err := storage.NewWritable(&b, []cid.Cid{root}, carv2.WriteAsCarV1(true)); err != nil {
		return nil, fmt.Errorf("write a CAR's header: %w", err)
	}
	return b.Bytes(), nil
}

// put appends a block.
func (w *Writer) put(c cid.Cid, block []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	length := binary.AppendUvarint(nil, uint64(c.ByteLen()+len(block)))
	for _, b := range [][]byte{length, c.Bytes(), block} {
		n, err := w.buf.Write(b)
		w.at += int64(n)
		if err != nil {
			return fmt.Errorf("write a CAR: %w", err)
		}
	}
	return nil
}

// back gives up what was written behind a place.
func (w *Writer) back(to int64) error {
	err := w.buf.Flush()
	if err == nil {
		err = w.file.Truncate(to)
	}
	if err == nil {
		_, err = w.file.Seek(to, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("write a CAR: %w", err)
	}
	w.at = to
	return nil
}

// Add adds a file, and gives its CID. After an error of r, which is wrapped, everything is as it was
// before, so that the file may be added again.
func (w *Writer) Add(name string, r io.Reader) (cid.Cid, error) {
	return w.add(name, func() (ipld.Link, uint64, error) { return builder.BuildUnixFSFile(r, chunker, &w.links) })
}

// AddLink adds a symbolic link.
func (w *Writer) AddLink(name, to string) (cid.Cid, error) {
	return w.add(name, func() (ipld.Link, uint64, error) { return builder.BuildUnixFSSymlink(to, &w.links) })
}

func (w *Writer) add(name string, build func() (ipld.Link, uint64, error)) (cid.Cid, error) {
	if err := w.enter(above(name)); err != nil {
		return cid.Undef, err
	}
	before := w.at
	link, size, err := build()
	if err != nil {
		return cid.Undef, errors.Join(fmt.Errorf("add %q to a CAR: %w", name, err), w.back(before))
	}
	return w.note(path.Base(name), link, size)
}

// note puts what was written into the last open directory.
func (w *Writer) note(name string, link ipld.Link, size uint64) (cid.Cid, error) {
	e := entry{name: name, cid: link.(cidlink.Link).Cid, size: size}
	dir := &w.open[len(w.open)-1]
	dir.size += len(e.name) + e.cid.ByteLen()
	return e.cid, w.names.push(e)
}

// enter opens a directory, and closes those that it does not lie in.
func (w *Writer) enter(dir string) error {
	var parts []string
	if dir != "" {
		parts = strings.Split(dir, "/")
	}
	same := 0
	for same < len(parts) && same+1 < len(w.open) && w.open[same+1].name == parts[same] {
		same++
	}
	for len(w.open) > same+1 {
		if err := w.leave(); err != nil {
			return err
		}
	}
	for _, name := range parts[same:] {
		w.open = append(w.open, frame{name: name, start: w.names.end()})
	}
	return nil
}

// leave closes the last open directory, and puts it into the one above.
func (w *Writer) leave() error {
	dir := w.open[len(w.open)-1]
	link, size, err := w.directory(dir)
	if err != nil {
		return fmt.Errorf("directory %q of a CAR: %w", dir.name, err)
	}
	w.open = w.open[:len(w.open)-1]
	if err := w.names.pop(dir.start); err != nil {
		return err
	}
	_, err = w.note(dir.name, link, size)
	return err
}

// directory writes a directory.
func (w *Writer) directory(dir frame) (ipld.Link, uint64, error) {
	if dir.size > shardAbove {
		return w.sharded(dir)
	}
	all, err := w.names.from(dir.start)
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	names := make([]dagpb.PBLink, len(all))
	for i, e := range all {
		if i > 0 && all[i-1].name == e.name {
			return nil, 0, twice(e.name)
		}
		if names[i], err = builder.BuildUnixFSDirectoryEntry(e.name, int64(e.size), cidlink.Link{Cid: e.cid}); err != nil {
			return nil, 0, err
		}
	}
	return builder.BuildUnixFSDirectory(names, &w.links)
}

func twice(name string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("the name %q is there twice", name)}
}

// Finish writes the directories that are still open and the header, and returns the root. Before it, the file is no CAR file.
func (w *Writer) Finish() (cid.Cid, error) {
	for len(w.open) > 1 {
		if err := w.leave(); err != nil {
			return cid.Undef, err
		}
	}
	link, _, err := w.directory(w.open[0])
	if err != nil {
		return cid.Undef, fmt.Errorf("the root of a CAR: %w", err)
	}
	root := link.(cidlink.Link).Cid
	head, err := header(root)
	if err == nil && int64(len(head)) != w.head {
		panic(fmt.Sprintf("car: a header of %d bytes where room is for %d", len(head), w.head))
	}
	if err == nil {
		err = w.buf.Flush()
	}
	if err == nil {
		_, err = w.file.WriteAt(head, 0)
	}
	if err != nil {
		return cid.Undef, fmt.Errorf("write a CAR: %w", err)
	}
	return root, nil
}

// Close gives up what the writer holds beside its file.
func (w *Writer) Close() error { return w.names.close() }
