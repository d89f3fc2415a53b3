package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The format of bbolt's file, as far as its structure must be read to notice
// damage that bbolt itself would crash on or pass over in silence: pages of a fixed
// size, two of them meta pages, the others a B+ tree whose leaves hold keys and values.
const (
	metaMagic      = 0xED0CDAED
	metaVersion    = 2
	metaChecksumAt = 56 // the meta's last field; everything before it is summed
	metaSize       = 64
	pageHeader     = 16 // id u64, flags u16, count u16, overflow u32
	elementSize    = 16 // of a branch: pos, ksize, pgid; of a leaf: flags, pos, ksize, vsize
	bucketHeader   = 16 // root u64, sequence u64
	branchPage     = 1
	leafPage       = 2
	metaPage       = 4
	bucketFlag     = 1
	maxPageSize    = 64 << 10
	maxTreeDepth   = 64 // a loop of pages is damage, not a deep tree
)

var native = binary.NativeEndian

// errPages is wrapped by every finding of checkPages.
var errPages = errors.New("its pages contradict each other")

func pageError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errPages, fmt.Sprintf(format, args...))
}

// checkPages reads every page in use of the bbolt file and reports the first that is cut
// off or contradicts its neighbours. It must run before bbolt opens the file, which maps
// it: reading a page that was cut off would be a fault, not an error. The values
// themselves are checked by their own sums.
func checkPages(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	p := &pageReader{f: f, size: st.Size(), pageSize: int64(os.Getpagesize())}
	head := make([]byte, pageHeader+metaSize)
	if err := p.read(head, 0); err != nil {
		return err
	}
	if size := int64(native.Uint32(head[pageHeader+8:])); size >= 512 && size <= maxPageSize && size&(size-1) == 0 {
		p.pageSize = size
	}
	var newest []byte
	for i := range uint64(2) {
		m, err := p.meta(i)
		if err != nil {
			return err
		}
		if newest == nil || native.Uint64(m[48:]) > native.Uint64(newest[48:]) {
			newest = m
		}
	}
	p.end = native.Uint64(newest[40:])
	if int64(p.end)*p.pageSize > p.size {
		return pageError("the file ends at byte %d, its newest page at %d", p.size, int64(p.end)*p.pageSize)
	}
	p.seen = make([]bool, p.end)
	return p.tree(native.Uint64(newest[16:]), true, 0, nil)
}

type pageReader struct {
	f        *os.File
	size     int64
	pageSize int64
	end      uint64 // first page number past the used ones
	seen     []bool // pages of the tree met so far
}

func (p *pageReader) read(b []byte, at int64) error {
	if at < 0 || at+int64(len(b)) > p.size {
		return pageError("the file ends at byte %d, within a page", p.size)
	}
	_, err := p.f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return pageError("the file ends within a page")
	}
	return err
}

// meta reads one of the two meta pages. Both must be sound: bbolt would take the
// older one for a damaged newer one, and forget acknowledged entries.
func (p *pageReader) meta(number uint64) ([]byte, error) {
	b := make([]byte, pageHeader+metaSize)
	if err := p.read(b, int64(number)*p.pageSize); err != nil {
		return nil, err
	}
	m := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:metaChecksumAt])
	switch {
	case native.Uint64(b) != number || native.Uint16(b[8:]) != metaPage:
		return nil, pageError("page %d is no meta page", number)
	case native.Uint32(m) != metaMagic || native.Uint32(m[4:]) != metaVersion || native.Uint64(m[metaChecksumAt:]) != sum.Sum64():
		return nil, pageError("meta page %d does not match its checksum", number)
	}
	return m, nil
}

// tree checks the pages below number. wantFirst is the first key that its parent promises.
func (p *pageReader) tree(number uint64, root bool, depth int, wantFirst []byte) error {
	if number < 2 || number >= p.end || depth > maxTreeDepth {
		return pageError("page %d lies outside of 2 to %d", number, p.end)
	}
	head := make([]byte, pageHeader)
	if err := p.read(head, int64(number)*p.pageSize); err != nil {
		return err
	}
	pages := int64(native.Uint32(head[12:])) + 1
	if native.Uint64(head) != number || number+uint64(pages) > p.end {
		return pageError("page %d says of itself that it is page %d with %d", number, native.Uint64(head), pages)
	}
	for i := range uint64(pages) {
		if p.seen[number+i] {
			return pageError("page %d is used twice", number+i)
		}
		p.seen[number+i] = true
	}
	b := make([]byte, pages*p.pageSize)
	if err := p.read(b, int64(number)*p.pageSize); err != nil {
		return err
	}
	return p.page(b, fmt.Sprintf("page %d", number), root, depth, wantFirst)
}

// page checks one page of a tree. Elements stand in a row behind the header and their
// keys and values in a row behind them, without gaps; a changed count or length shows as a gap.
func (p *pageReader) page(b []byte, name string, root bool, depth int, wantFirst []byte) error {
	flags, count := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != branchPage && flags != leafPage || flags == branchPage && count == 0 {
		return pageError("%s is neither branch nor leaf, or empty", name)
	}
	data := pageHeader + count*elementSize
	if data > len(b) {
		return pageError("%s is too small for its %d elements", name, count)
	}
	if count == 0 && len(b) >= pageHeader+elementSize && !bytes.Equal(b[pageHeader:pageHeader+elementSize], make([]byte, elementSize)) {
		return pageError("%s has elements beyond its count", name)
	}
	var previous []byte
	for i := range count {
		at := pageHeader + i*elementSize
		e := b[at : at+elementSize]
		var pos, ksize, vsize uint32
		if flags == branchPage {
			pos, ksize = native.Uint32(e), native.Uint32(e[4:])
		} else {
			pos, ksize, vsize = native.Uint32(e[4:]), native.Uint32(e[8:]), native.Uint32(e[12:])
		}
		if at+int(pos) != data || ksize == 0 || int64(data)+int64(ksize)+int64(vsize) > int64(len(b)) {
			return pageError("element %d of %s does not lie behind the one before", i, name)
		}
		key, value := b[data:data+int(ksize)], b[data+int(ksize):data+int(ksize)+int(vsize)]
		data += int(ksize) + int(vsize)
		if i > 0 && bytes.Compare(previous, key) >= 0 || i == 0 && wantFirst != nil && !bytes.Equal(key, wantFirst) {
			return pageError("the keys of %s are out of order at element %d", name, i)
		}
		previous = key
		if err := p.element(flags, e, key, value, name, root, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *pageReader) element(flags uint16, e, key, value []byte, name string, root bool, depth int) error {
	switch {
	case flags == branchPage:
		return p.tree(native.Uint64(e[8:]), root, depth+1, key)
	case native.Uint32(e) > bucketFlag || (native.Uint32(e) == bucketFlag) != root:
		return pageError("%s has a bucket where a value belongs, or the other way", name)
	case !root:
		return nil
	case string(key) != "logs" && string(key) != "conf" || len(value) < bucketHeader:
		return pageError("%s names an unknown bucket %q", name, key)
	case native.Uint64(value) != 0:
		return p.tree(native.Uint64(value), false, depth+1, nil)
	case len(value) < bucketHeader+pageHeader:
		return pageError("bucket %q in %s is cut off", key, name)
	}
	return p.page(value[bucketHeader:], fmt.Sprintf("bucket %q in %s", key, name), false, depth+1, nil)
}
