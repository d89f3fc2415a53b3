package unixfs

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	dagpb "github.com/ipld/go-codec-dagpb"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"

	"github.com/sheaf-run/agent/sheaf"
)

// MaxBlock bounds a block in bytes: twice what the network lets pass.
const MaxBlock = 4 << 20

// Blocks gives blocks, as whoever holds them has them: this package verifies each by its
// CID. What is not there is an error of class NotFound. Its methods may be called concurrently.
type Blocks interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error)
}

// hashes are those that a CID may name its block by.
var hashes = map[uint64]bool{
	multihash.SHA2_256: true, multihash.SHA2_512: true, multihash.SHA3_256: true, multihash.SHA3_384: true, multihash.SHA3_512: true,
	multihash.BLAKE3: true, multihash.BLAKE2B_MIN + 31: true, multihash.BLAKE2B_MAX: true,
}

// maxInline bounds the content that stands in a CID itself, in bytes.
const maxInline = 128

// Parse reads a CID and refuses those that name no files, or not for certain, with an error of class Invalid.
func Parse(text string) (cid.Cid, error) {
	c, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%q is no CID", text), Err: err, Hint: "write it as ipfs prints it, as in bafybei… or Qm…"}
	}
	return c, check(c)
}

// check refuses CIDs that name no files, or not for certain.
func check(c cid.Cid) error {
	p := c.Prefix()
	switch {
	case p.Codec != cid.DagProtobuf && p.Codec != cid.Raw:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%s names no file or directory", c), Hint: "the CID of a file or directory is of the codec dag-pb or raw"}
	case p.MhType == multihash.IDENTITY && p.MhLength <= maxInline:
		return nil
	case !hashes[p.MhType] || p.MhLength < 32:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%s names its block by %s of %d bytes, which proves nothing", c, multihash.Codes[p.MhType], p.MhLength), Hint: "add the files again with sha2-256"}
	}
	return nil
}

// verify says whether a block is the one that its CID names.
func verify(c cid.Cid, block []byte) error {
	got, err := c.Prefix().Sum(block)
	if err != nil {
		return fmt.Errorf("verify block %s: %w", c, err)
	}
	if !got.Equals(c) {
		return &sheaf.Error{Class: sheaf.Unavailable, Field: "source", Msg: fmt.Sprintf("block %s was changed: what came has the CID %s", c, got), Hint: "get it from somewhere else"}
	}
	return nil
}

// Verify says whether a block is the one that its CID names; one that is not is an error of class Unavailable.
func Verify(c cid.Cid, block []byte) error { return verify(c, block) }

// link is a link of a node.
type link struct {
	name string
	cid  cid.Cid
	size int64 // bytes below it, as whoever made the node says
}

// node is a block that was read.
type node struct {
	kind   int64 // as in go-unixfsnode's data
	data   []byte
	links  []link
	size   int64   // bytes, of a file
	sizes  []int64 // bytes of what each link of a file holds
	fanout int64   // of a directory in shards
}

func damaged(c cid.Cid, format string, args ...any) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("block %s %s", c, fmt.Sprintf(format, args...)), Hint: "make it again: who made it made a mistake"}
}

// decode reads a verified block.
func decode(c cid.Cid, block []byte) (*node, error) {
	if c.Prefix().Codec == cid.Raw {
		return &node{kind: data.Data_Raw, data: block, size: int64(len(block))}, nil
	}
	b := dagpb.Type.PBNode.NewBuilder()
	if err := dagpb.DecodeBytes(b, block); err != nil {
		return nil, damaged(c, "is no node: %v", err)
	}
	pb, ok := b.Build().(dagpb.PBNode)
	if !ok || !pb.Data.Exists() {
		return nil, damaged(c, "is no file or directory")
	}
	fs, err := data.DecodeUnixFSData(pb.Data.Must().Bytes())
	if err != nil {
		return nil, damaged(c, "is no file or directory: %v", err)
	}
	n := &node{kind: fs.DataType.Int()}
	if fs.Data.Exists() {
		n.data = bytes.Clone(fs.Data.Must().Bytes())
	}
	if fs.Fanout.Exists() {
		n.fanout = fs.Fanout.Must().Int()
	}
	for it := pb.Links.Iterator(); !it.Done(); {
		_, l := it.Next()
		to, ok := l.Hash.Link().(cidlink.Link)
		if !ok {
			return nil, damaged(c, "has a link to nothing")
		}
		one := link{cid: to.Cid, size: -1}
		if l.Name.Exists() {
			one.name = l.Name.Must().String()
		}
		if l.Tsize.Exists() {
			one.size = l.Tsize.Must().Int()
		}
		n.links = append(n.links, one)
	}
	if n.kind == data.Data_File || n.kind == data.Data_Raw {
		return n, n.fill(c, fs)
	}
	return n, nil
}

// fill takes over the sizes of a file's parts, which make up its own.
func (n *node) fill(c cid.Cid, fs data.UnixFSData) error {
	n.size = int64(len(n.data))
	for it := fs.BlockSizes.Iterator(); !it.Done(); {
		_, s := it.Next()
		size := s.Int()
		if n.size += size; size < 0 || n.size < 0 {
			return damaged(c, "has parts of no size")
		}
		n.sizes = append(n.sizes, size)
	}
	if len(n.sizes) != len(n.links) {
		return damaged(c, "has %d parts and %d sizes of parts", len(n.links), len(n.sizes))
	}
	if fs.FileSize.Exists() && fs.FileSize.Must().Int() != n.size {
		return damaged(c, "says it has %d bytes, and its parts have %d", fs.FileSize.Must().Int(), n.size)
	}
	return nil
}
