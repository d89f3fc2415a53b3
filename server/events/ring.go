package events

import (
	"math"
	"slices"
	"unsafe"

	"github.com/sheaf-run/agent/sheaf"
)

// ring is the newest events of a topic, in order of their entries.
type ring struct {
	most    int // bytes
	events  []sheaf.Event
	bytes   int
	dropped uint64 // entry of the newest event that was dropped
}

// sizeOf is about how many bytes an event holds.
func sizeOf(e *sheaf.Event) int {
	return int(unsafe.Sizeof(*e)) + len(e.Type) + len(e.Key) + len(e.Namespace) + len(e.Job) + len(e.Node) + len(e.Was) + len(e.Status) + len(e.Reason) +
		len(e.Partitions)*int(unsafe.Sizeof(sheaf.Range{}))
}

func (r *ring) push(e sheaf.Event) {
	r.events = append(r.events, e)
	r.bytes += sizeOf(&e)
	out := 0
	for r.bytes > r.most && out < len(r.events)-1 {
		r.bytes -= sizeOf(&r.events[out])
		r.dropped = r.events[out].Index
		out++
	}
	if out > 0 {
		clear(r.events[:out]) // what is behind the slice is not collected before it moves
		r.events = r.events[out:]
	}
}

// since gives the events of entries after one, and up to which entry they are
// all there: those of one entry are not torn apart.
func (r *ring) since(after uint64, most int) (events []sheaf.Event, whole uint64) {
	first, _ := slices.BinarySearchFunc(r.events, after, func(e sheaf.Event, after uint64) int {
		if e.Index > after {
			return 1
		}
		return -1
	})
	rest := r.events[first:]
	if len(rest) <= most {
		return rest, math.MaxUint64
	}
	end := most
	for end < len(rest) && rest[end].Index == rest[most-1].Index {
		end++
	}
	return rest[:end], rest[end-1].Index
}
