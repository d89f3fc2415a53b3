package drivers

import (
	"context"
	"sync"
)

const (
	// MaxLog is the most bytes of one Log event, so that an event stream stays fair
	// between executions.
	MaxLog = 64 << 10
	// MaxUnacknowledged is the most log bytes of one execution that may be on
	// their way to where they are stored.
	MaxUnacknowledged = 1 << 20
)

// Window holds an execution's log bytes to [MaxUnacknowledged]: a driver takes
// room before it sends a Log and gives it back on Flow. The zero value is an
// open window. Its methods may be called concurrently.
type Window struct {
	mu     sync.Mutex
	used   int64
	opened bool
	wake   chan struct{} // closed and dropped when room comes back; nil when nobody waits
}

// Take waits until n bytes fit and takes them. A window that holds nothing
// takes any n. It returns ctx's error when ctx ends first.
func (w *Window) Take(ctx context.Context, n int64) error {
	for {
		w.mu.Lock()
		if w.opened || w.used == 0 || w.used+n <= MaxUnacknowledged {
			w.used += n
			w.mu.Unlock()
			return nil
		}
		if w.wake == nil {
			w.wake = make(chan struct{})
		}
		wake := w.wake
		w.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ack gives n bytes back. Acknowledging more than was taken leaves an empty window.
func (w *Window) Ack(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = max(w.used-n, 0)
	w.rouse()
}

// Open lets everything through from now on: the program has ended, and what
// is left of its output is at most what its pipes hold.
func (w *Window) Open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened = true
	w.rouse()
}

func (w *Window) rouse() {
	if w.wake != nil {
		close(w.wake)
		w.wake = nil
	}
}
