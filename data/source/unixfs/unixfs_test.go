package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// store is blocks in memory.
type store map[cid.Cid][]byte

func (s store) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	b, ok := s[c]
	if !ok {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: "no block " + c.String()}
	}
	return b, nil
}

// links is a link system that stores here.
func (s store) links() *ipld.LinkSystem {
	l := cidlink.DefaultLinkSystem()
	l.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var b bytes.Buffer
		return &b, func(l ipld.Link) error { s[l.(cidlink.Link).Cid] = b.Bytes(); return nil }, nil
	}
	return &l
}

// put stores a block and gives its CID.
func (s store) put(t *testing.T, codec uint64, block []byte) cid.Cid {
	t.Helper()
	c, err := cid.Prefix{Version: 1, Codec: codec, MhType: multihash.SHA2_256, MhLength: 32}.Sum(block)
	if err != nil {
		t.Fatal(err)
	}
	s[c] = block
	return c
}

// pb is a dag-pb node: links in the order given, then the data.
func pb(data []byte, links ...[]byte) []byte {
	var b []byte
	for _, l := range links {
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), l)
	}
	return protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), data)
}

func pbLink(c cid.Cid, name string, size uint64) []byte {
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), c.Bytes())
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), name)
	return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), size)
}

// fs is the UnixFS part of a node.
func fs(kind int64, content string, size uint64, sizes ...uint64) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(kind))
	if content != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), content)
	}
	if kind == data.Data_File {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), size)
	}
	for _, s := range sizes {
		b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), s)
	}
	return b
}

func read(t *testing.T, s *Source, path string) (string, error) {
	t.Helper()
	f, err := s.Open(t.Context(), path, "")
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// TestKnownCIDs: what ipfs add prints for these.
func TestKnownCIDs(t *testing.T) {
	blocks := store{}
	v0 := pb(fs(data.Data_File, "hello world\n", 12))
	for text, block := range map[string][]byte{
		"bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4": []byte("hello world\n"),
		"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o":              v0,
	} {
		c, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		blocks[c] = block
		s, err := New(blocks, c, "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, s, text); err != nil || got != "hello world\n" {
			t.Errorf("%s holds %q, %v", text, got, err)
		}
		if all := sourcetest.List(t, s, source.Scope{}); len(all) != 1 || all[0].Path != text || all[0].Tag != "cid:"+text || all[0].Size != 12 {
			t.Errorf("%s lists %+v", text, all)
		}
	}
	empty, err := Parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
	if err != nil {
		t.Fatal(err)
	}
	blocks[empty] = pb(fs(data.Data_Directory, "", 0))
	s, err := New(blocks, empty, "")
	if err != nil {
		t.Fatal(err)
	}
	if all := sourcetest.List(t, s, source.Scope{}); len(all) != 0 {
		t.Errorf("the empty directory lists %+v", all)
	}
}

// TestShards: a directory in shards is one like others.
func TestShards(t *testing.T) {
	blocks := store{}
	links := blocks.links()
	want := map[string]string{}
	var names []entry
	for i := range 9000 {
		name := fmt.Sprintf("name-%d", i)
		want[name] = name
		names = append(names, entry{name, blocks.put(t, cid.Raw, []byte(name))})
	}
	root := directory(t, links, names)
	if n, err := decode(root, blocks[root]); err != nil || n.kind != data.Data_HAMTShard {
		t.Fatalf("%+v, %v", n, err)
	}
	s, err := New(blocks, root, "")
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, e := range sourcetest.List(t, s, source.Scope{}) {
		if e.Path <= last || e.Size != int64(len(want[e.Path])) {
			t.Fatalf("%+v stands behind %q", e, last)
		}
		last = e.Path
		delete(want, e.Path)
	}
	if len(want) > 0 {
		t.Errorf("%d names are missing", len(want))
	}
	if got, err := read(t, s, "name-4711"); err != nil || got != "name-4711" {
		t.Errorf("%q, %v", got, err)
	}
}

type entry struct {
	name string
	cid  cid.Cid
}

func directory(t *testing.T, links *ipld.LinkSystem, entries []entry) cid.Cid {
	t.Helper()
	all := make([]dagpb.PBLink, 0, len(entries))
	for _, e := range entries {
		l, err := builder.BuildUnixFSDirectoryEntry(e.name, int64(len(e.name)), cidlink.Link{Cid: e.cid})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	l, _, err := builder.BuildUnixFSDirectory(all, links)
	if err != nil {
		t.Fatal(err)
	}
	return l.(cidlink.Link).Cid
}

func TestRanges(t *testing.T) {
	blocks := store{}
	var text strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&text, "%07d\n", i)
	}
	content := text.String()
	link, _, err := builder.BuildUnixFSFile(strings.NewReader(content), "size-1000", blocks.links()) // 320 leaves: two levels
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(blocks, link.(cidlink.Link).Cid, "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), link.String(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != content {
		t.Errorf("read %d bytes of %d, %v", len(b), len(content), err)
	}
	for _, r := range [][2]int{{0, 1}, {999, 2}, {173_999, 2}, {174_000, 1000}, {5, 200_000}, {len(content) - 1, 1}} {
		p := make([]byte, r[1])
		if n, err := f.ReadAt(p, int64(r[0])); err != nil || string(p[:n]) != content[r[0]:r[0]+r[1]] {
			t.Errorf("at %d: %d bytes, %v", r[0], n, err)
		}
	}
	if n, err := f.ReadAt(make([]byte, 10), int64(len(content)-3)); n != 3 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	// Any block that was flipped is refused by its CID, and nothing of it is read.
	for c, block := range blocks {
		bad := bytes.Clone(block)
		bad[len(bad)/2] ^= 1
		blocks[c] = bad
		s, err := New(blocks, link.(cidlink.Link).Cid, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, s, link.String())
		if sheaf.ClassOf(err) != sheaf.Unavailable || !strings.Contains(err.Error(), c.String()) || !strings.HasPrefix(content, got) {
			t.Fatalf("block %s was flipped: %d bytes, %v", c, len(got), err)
		}
		blocks[c] = block
	}
}

func TestLinks(t *testing.T) {
	blocks := store{}
	leaf := blocks.put(t, cid.Raw, []byte("content"))
	symlink := func(to string) cid.Cid { return blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_Symlink, to, 0))) }
	inner := blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_Directory, "", 0), pbLink(leaf, "file", 7), pbLink(symlink("../top"), "up", 9)))
	root := blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_Directory, "", 0),
		pbLink(symlink("/etc/shadow"), "abs", 9), pbLink(inner, "d", 50), pbLink(symlink("d"), "dir", 9), pbLink(symlink("nothing"), "gone", 9), pbLink(symlink("loop"), "loop", 9),
		pbLink(symlink("../../x"), "out", 9), pbLink(symlink("d/file"), "top", 9)))
	s, err := New(blocks, root, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]sheaf.EntryKind{
		"abs": sheaf.EntryEscape, "d": sheaf.EntryDir, "d/file": sheaf.EntryFile, "d/up": sheaf.EntryFile, "dir": sheaf.EntryDirLink, "gone": sheaf.EntryDangling,
		"loop": sheaf.EntryDangling, "out": sheaf.EntryEscape, "top": sheaf.EntryFile,
	}
	for _, e := range sourcetest.List(t, s, source.Scope{}) {
		if e.Kind != want[e.Path] {
			t.Errorf("%s is a %s, want a %s", e.Path, e.Kind, want[e.Path])
		}
		delete(want, e.Path)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
	if got, err := read(t, s, "d/up"); err != nil || got != "content" {
		t.Errorf("d/up holds %q, %v", got, err)
	}
	// A part of it, and one file of it.
	for below, path := range map[string]string{"d": "file", "d/file": "file", "top": "top"} {
		s, err := New(blocks, root, below)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, s, path); err != nil || got != "content" {
			t.Errorf("%s: %s holds %q, %v", below, path, got, err)
		}
	}
	for _, below := range []string{"nothing", "d/file/x", "out", "dir"} {
		s, err := New(blocks, root, below)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.NotFound {
			t.Errorf("%s: %v", below, err)
		}
	}
}

// TestHostileBlocks: what a block claims is held against what its parts have.
func TestHostileBlocks(t *testing.T) {
	blocks := store{}
	leaf := blocks.put(t, cid.Raw, []byte("content"))
	dir := func(links ...[]byte) cid.Cid {
		return blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_Directory, "", 0), links...))
	}
	for name, root := range map[string]cid.Cid{
		"no node":               blocks.put(t, cid.DagProtobuf, []byte("\xff\xff\xff\xff")),
		"no data":               blocks.put(t, cid.DagProtobuf, nil),
		"no UnixFS":             blocks.put(t, cid.DagProtobuf, pb([]byte("\xff\xff\xff"))),
		"unknown kind":          blocks.put(t, cid.DagProtobuf, pb(fs(77, "", 0))),
		"metadata":              blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_Metadata, "", 0))),
		"size of its own":       blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_File, "abc", 1<<40))),
		"size of parts":         blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_File, "", 8, 8), pbLink(leaf, "", 7))),
		"sizes without parts":   blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_File, "", 7, 7))),
		"parts without sizes":   blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_File, "", 0), pbLink(leaf, "", 7))),
		"sizes past the end":    blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_File, "", 6, 1<<63, 1<<63), pbLink(leaf, "", 7), pbLink(leaf, "", 7))),
		"size in the directory": dir(pbLink(leaf, "a", 1<<50)),
		"climbing name":         dir(pbLink(leaf, "..", 7)),
		"name with a slash":     dir(pbLink(leaf, "../../etc/passwd", 7)),
		"no name":               dir(pbLink(leaf, "", 7)),
		"name twice":            dir(pbLink(leaf, "a", 7), pbLink(leaf, "a", 7)),
		"shards without number": blocks.put(t, cid.DagProtobuf, pb(fs(data.Data_HAMTShard, "", 0), pbLink(leaf, "00a", 7))),
		"a shard that is none":  blocks.put(t, cid.DagProtobuf, pb(append(fs(data.Data_HAMTShard, "", 0), 0x30, 0x80, 0x02), pbLink(leaf, "00", 7))),
	} {
		s, err := New(blocks, root, "")
		if err == nil {
			err = s.List(t.Context(), source.Scope{}, func(entries []sheaf.Entry) error {
				for _, e := range entries {
					if _, err := read(t, s, e.Path); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "x", "bafy", "Qm", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5", "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy" /* dag-cbor */, weak(t)} {
		if _, err := Parse(text); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("CID %q: %v", text, err)
		}
	}
	// A CID that holds its content.
	inline, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.IDENTITY, MhLength: -1}.Sum([]byte("inline"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(store{}, inline, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, s, inline.String()); err != nil || got != "inline" {
		t.Errorf("an inline CID holds %q, %v", got, err)
	}
}

// weak is a CID by a hash that proves nothing.
func weak(t *testing.T) string {
	t.Helper()
	c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA1, MhLength: 20}.Sum([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return c.String()
}

func FuzzDecode(f *testing.F) {
	f.Add(pb(fs(data.Data_File, "hello", 5)))
	f.Add(pb(fs(data.Data_Directory, "", 0)))
	f.Fuzz(func(t *testing.T, block []byte) {
		blocks := store{}
		c := blocks.put(t, cid.DagProtobuf, block)
		if n, err := decode(c, block); err == nil && n.size < 0 {
			t.Errorf("a size of %d", n.size)
		}
	})
}
