package broker

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// entry is a task's place in a heap, by time and then by pass. It is void once its
// stamp is not the task's any more.
type entry struct {
	at    time.Time
	pass  float64
	run   sheaf.RunID
	stamp uint64
}

// entries is a heap; the first is the least.
type entries []entry

func (h *entries) push(e entry) { heap.Push(h, e) }
func (h *entries) pop() entry   { return heap.Pop(h).(entry) }

// Len implements heap.Interface.
func (h entries) Len() int { return len(h) }

// Less implements heap.Interface. Equal ones go in the order they came.
func (h entries) Less(i, j int) bool {
	return cmp.Or(h[i].at.Compare(h[j].at), cmp.Compare(h[i].pass, h[j].pass), cmp.Compare(h[i].stamp, h[j].stamp)) < 0
}

// Swap implements heap.Interface.
func (h entries) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *entries) Push(e any) { *h = append(*h, e.(entry)) }

// Pop implements heap.Interface.
func (h *entries) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
