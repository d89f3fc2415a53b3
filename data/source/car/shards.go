package car

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"
	"github.com/spaolacci/murmur3"

	"github.com/sheaf-run/agent/sheaf"
)

// A directory that is too large for a block is spread over shards by the hash of each name: a byte of it says the
// place in the shard of each level, and names that share a place are in a shard of their own.

const (
	// shardAbove is up to which size a directory is one block: the bytes of names and CIDs, as kubo counts them.
	shardAbove = 256 << 10
	// fanout is how many places a shard has: one for each value of a byte.
	fanout = 256
	// shardBuffer is that of a place of the root shard while names are sorted into these, in bytes.
	shardBuffer = 4 << 10
)

// placed is an entry with the hash of its name, of which each byte is a place.
type placed struct {
	hash uint64
	entry
}

func (p placed) at(level int) int { return int(byte(p.hash >> (56 - 8*level))) }

// sharded writes a directory in shards. It holds what lies in one place of the root shard at a time.
func (w *Writer) sharded(dir frame) (ipld.Link, uint64, error) {
	f, err := nameless(w.names.dir)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // nobody reads it again
	ends, err := w.sort(dir, f)
	if err != nil {
		return nil, 0, err
	}
	var children []entry
	var begin int64
	for at, end := range ends {
		group, err := readPlaced(io.NewSectionReader(f, begin, end-begin))
		if err != nil {
			return nil, 0, err
		}
		begin = end
		if len(group) > 0 {
			child, err := w.child(at, group, 0)
			if err != nil {
				return nil, 0, err
			}
			children = append(children, child)
		}
	}
	return w.shard(children)
}

// sort writes a directory's names to a file by their places in the root shard, and says where each place ends.
func (w *Writer) sort(dir frame, into io.WriterAt) (ends [fanout]int64, err error) {
	var sizes [fanout]int64
	if err := w.names.each(dir.start, func(e entry) error {
		p := placed{murmur3.Sum64([]byte(e.name)), e}
		sizes[p.at(0)] += int64(len(p.append(nil)))
		return nil
	}); err != nil {
		return ends, err
	}
	var next [fanout]int64
	for at := range sizes {
		if at > 0 {
			next[at] = ends[at-1]
		}
		ends[at] = next[at] + sizes[at]
	}
	var held [fanout][]byte
	flush := func(at int) error {
		n, err := into.WriteAt(held[at], next[at])
		next[at] += int64(n)
		held[at] = held[at][:0]
		if err != nil {
			return fmt.Errorf("sort names for a CAR: %w", err)
		}
		return nil
	}
	if err := w.names.each(dir.start, func(e entry) error {
		p := placed{murmur3.Sum64([]byte(e.name)), e}
		at := p.at(0)
		if held[at] = p.append(held[at]); len(held[at]) < shardBuffer {
			return nil
		}
		return flush(at)
	}); err != nil {
		return ends, err
	}
	for at := range held {
		if err := flush(at); err != nil {
			return ends, err
		}
	}
	return ends, nil
}

func (p placed) append(b []byte) []byte {
	return p.entry.append(binary.BigEndian.AppendUint64(b, p.hash))
}

// readPlaced reads what lies in a place, and sorts it.
func readPlaced(r io.Reader) (all []placed, err error) {
	for b := bufio.NewReader(r); ; {
		var hash [8]byte
		if _, err := io.ReadFull(b, hash[:]); errors.Is(err, io.EOF) {
			slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.hash, b.hash) })
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the names for a CAR: %w", err)
		}
		e, err := readEntry(b)
		if err != nil {
			return nil, fmt.Errorf("read the names for a CAR: %w", err)
		}
		all = append(all, placed{binary.BigEndian.Uint64(hash[:]), e})
	}
}

// child is what stands at a place of a shard: the one name that goes there, or a shard of those that do.
func (w *Writer) child(at int, group []placed, level int) (entry, error) {
	name := fmt.Sprintf("%02X", at)
	if len(group) == 1 {
		e := group[0].entry
		e.name = name + e.name
		return e, nil
	}
	if level++; level == 8 {
		if group[0].name == group[1].name {
			return entry{}, twice(group[0].name)
		}
		return entry{}, &sheaf.Error{
			Class: sheaf.Invalid, Msg: fmt.Sprintf("the names %q and %q have the same hash, and cannot be in one directory of a CAR", group[0].name, group[1].name),
			Hint: "give one of the files another name",
		}
	}
	var children []entry
	for len(group) > 0 {
		at := group[0].at(level)
		n := slices.IndexFunc(group, func(p placed) bool { return p.at(level) != at })
		if n < 0 {
			n = len(group)
		}
		child, err := w.child(at, group[:n], level)
		if err != nil {
			return entry{}, err
		}
		children = append(children, child)
		group = group[n:]
	}
	link, size, err := w.shard(children)
	if err != nil {
		return entry{}, err
	}
	return entry{name: name, cid: link.(cidlink.Link).Cid, size: size}, nil
}

// shard writes a shard with what stands at its places, in order.
func (w *Writer) shard(children []entry) (ipld.Link, uint64, error) {
	var taken [fanout / 8]byte // a bit for each place, the first one last
	size := uint64(0)
	links := make([]dagpb.PBLink, len(children))
	for i, c := range children {
		var at int
		if _, err := fmt.Sscanf(c.name[:2], "%02X", &at); err != nil {
			return nil, 0, err
		}
		taken[len(taken)-1-at/8] |= 1 << (at % 8)
		size += c.size
		var err error
		if links[i], err = builder.BuildUnixFSDirectoryEntry(c.name, int64(c.size), cidlink.Link{Cid: c.cid}); err != nil {
			return nil, 0, err
		}
	}
	node, err := builder.BuildUnixFS(func(b *builder.Builder) {
		builder.DataType(b, data.Data_HAMTShard)
		builder.HashType(b, multihash.MURMUR3X64_64)
		builder.Data(b, bytes.TrimLeft(taken[:], "\x00"))
		builder.Fanout(b, fanout)
	})
	if err != nil {
		return nil, 0, err
	}
	block, err := encode(data.EncodeUnixFSData(node), links)
	if err != nil {
		return nil, 0, err
	}
	c, err := cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: multihash.SHA2_256, MhLength: -1}.Sum(block)
	if err != nil {
		return nil, 0, err
	}
	return cidlink.Link{Cid: c}, size + uint64(len(block)), w.put(c, block)
}

// encode is a block with data and links.
func encode(data []byte, links []dagpb.PBLink) ([]byte, error) {
	b := dagpb.Type.PBNode.NewBuilder()
	m, err := b.BeginMap(2)
	if err != nil {
		return nil, err
	}
	list, err := m.AssembleEntry("Data")
	if err == nil {
		err = list.AssignBytes(data)
	}
	if err != nil {
		return nil, err
	}
	if list, err = m.AssembleEntry("Links"); err != nil {
		return nil, err
	}
	in, err := list.BeginList(int64(len(links)))
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if err := in.AssembleValue().AssignNode(l); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(in.Finish(), m.Finish()); err != nil {
		return nil, err
	}
	return dagpb.AppendEncode(nil, b.Build())
}
