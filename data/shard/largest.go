package shard

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// farLarger is how many times the mean a shard's bytes are for it to be named as large. What is less than that ends a
// run late by less than a few of its partitions take.
const farLarger = 4

// Largest finds the shards of a run that have far more bytes than the others. It holds sheaf.MaxLargest of them at most.
type Largest struct {
	heap  weighed
	bytes float64 // of all shards
	n     int
}

// weight is a shard's bytes.
type weight struct {
	partition int
	bytes     int64
}

// weighed is a heap with the least on top; of equals the last.
type weighed []weight

func (w weighed) Len() int { return len(w) }
func (w weighed) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(w[i].bytes, w[j].bytes), cmp.Compare(w[j].partition, w[i].partition)) < 0
}
func (w weighed) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *weighed) Push(x any)   { *w = append(*w, x.(weight)) }
func (w *weighed) Pop() any     { panic("shard: a heap that is only replaced from") }

// Add takes the next shard and its bytes.
func (l *Largest) Add(partition int, bytes int64) {
	l.n++
	l.bytes += float64(bytes)
	switch {
	case len(l.heap) < sheaf.MaxLargest:
		heap.Push(&l.heap, weight{partition, bytes})
	case bytes > l.heap[0].bytes:
		l.heap[0] = weight{partition, bytes}
		heap.Fix(&l.heap, 0)
	}
}

// Partitions are the shards that have far more bytes than the mean, ascending.
func (l *Largest) Partitions() []uint32 {
	var list []uint32
	for _, w := range l.heap {
		if float64(w.bytes)*float64(l.n) > farLarger*l.bytes {
			list = append(list, uint32(w.partition))
		}
	}
	slices.Sort(list)
	return list
}
