package consensus

import (
	"slices"
	"sort"
)

const (
	// entryOverhead is what an entry takes beside its data: its other fields and
	// its place in the store's pages.
	entryOverhead = 96
	// markEvery is how many entries share one mark of a sizeIndex: it bounds
	// the index to 16 bytes for so many entries, and its answers to that coarseness.
	markEvery = 64
)

// sizeIndex knows roughly how many bytes the entries of a log take from any
// index on, so that snapshots and what stays behind them are bounded by bytes.
type sizeIndex struct {
	marks []sizeMark // ascending by index
	last  uint64     // index of the newest entry
	total int64      // bytes of all entries ever appended
}

// sizeMark says what the total was before the entry at index.
type sizeMark struct {
	index uint64
	total int64
}

func (x *sizeIndex) append(index uint64, size int64) {
	if len(x.marks) == 0 || index >= x.marks[len(x.marks)-1].index+markEvery {
		x.marks = append(x.marks, sizeMark{index, x.total})
	}
	x.last = index
	x.total += size
}

// delete forgets entries at either end of the log.
func (x *sizeIndex) delete(minIndex, maxIndex uint64) {
	if maxIndex >= x.last { // the newest were replaced by another leader's
		i := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].index >= minIndex })
		if i < len(x.marks) {
			x.total = x.marks[i].total
			x.marks = x.marks[:i]
		}
		x.last = min(x.last, minIndex-1)
		return
	}
	i := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].index > maxIndex })
	x.marks = slices.Clone(x.marks[max(i-1, 0):])
}

func (x *sizeIndex) since(index uint64) int64 {
	if index >= x.last || len(x.marks) == 0 {
		return 0
	}
	i := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].index > index })
	return x.total - x.marks[max(i-1, 0)].total
}

func (x *sizeIndex) countWithin(limit int64) uint64 {
	i := sort.Search(len(x.marks), func(i int) bool { return x.total-x.marks[i].total <= limit })
	if i == len(x.marks) {
		return 0
	}
	return x.last - x.marks[i].index + 1
}
