package unixfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// ahead is how many blocks a read that goes on asks for at once.
	ahead = 4
	// maxParts bounds how deep the parts of a file nest: links of 2 make 2^64 leaves.
	maxParts = 64
	// maxHeld is how many blocks an open file holds: the way to the place and what is ahead.
	maxHeld = 12
)

// file is an open file.
type file struct {
	s     *Source
	ctx   context.Context // of the opening: a read has none of its own
	entry sheaf.Entry
	cid   cid.Cid
	top   *node

	mu   sync.Mutex
	at   int64
	kept map[cid.Cid]*node // blocks read last: the way to the place, and some behind it
}

// Entry is the file.
func (f *file) Entry() sheaf.Entry { return f.entry }

// Host says that it is no file of this machine.
func (*file) Host() *os.File { return nil }

// Check has nothing to look at: a CID means the same for ever.
func (*file) Check() error { return nil }

// Close gives up the blocks that were read.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = nil
	return nil
}

// Read reads on.
func (f *file) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at >= f.entry.Size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.read(p, f.at, ahead)
	f.at += int64(n)
	return n, err
}

// ReadAt reads from a place.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read at a negative place")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(p) {
		if off+int64(n) >= f.entry.Size {
			return n, io.EOF
		}
		m, err := f.read(p[n:], off+int64(n), 1)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// read reads what the block that holds the byte at off has from there on. Beside it, up to
// window-1 blocks behind it are asked for. The caller holds the lock, and off lies in the file.
func (f *file) read(p []byte, off int64, window int) (int, error) {
	n := f.top
	for range maxParts {
		if err := f.ctx.Err(); err != nil {
			return 0, err
		}
		if off < int64(len(n.data)) {
			return copy(p, n.data[off:]), nil
		}
		off -= int64(len(n.data))
		i := 0
		for ; i < len(n.sizes) && off >= n.sizes[i]; i++ {
			off -= n.sizes[i]
		}
		if i == len(n.sizes) {
			return 0, fmt.Errorf("read %q: the parts end before the file", f.entry.Path)
		}
		part, err := f.part(n, i, window)
		if err != nil {
			return 0, fmt.Errorf("read %q: %w", f.entry.Path, err)
		}
		n = part
	}
	return 0, damaged(f.cid, "is a file whose parts nest deeper than %d", maxParts)
}

// part is what link i of a node leads to.
func (f *file) part(n *node, i, window int) (*node, error) {
	if part := f.kept[n.links[i].cid]; part != nil && part.size == n.sizes[i] {
		return part, nil
	}
	var cids []cid.Cid
	for j := i; j < min(i+window, len(n.links)); j++ {
		cids = append(cids, n.links[j].cid)
	}
	parts, err := f.s.nodes(f.ctx, cids)
	if err != nil {
		return nil, err
	}
	if len(f.kept) >= maxHeld {
		f.kept = nil
	}
	if f.kept == nil {
		f.kept = map[cid.Cid]*node{}
	}
	for j, part := range parts {
		if part.size != n.sizes[i+j] {
			return nil, damaged(cids[j], "has %d bytes, and the file says %d", part.size, n.sizes[i+j])
		}
		f.kept[cids[j]] = part
	}
	return parts[0], nil
}
