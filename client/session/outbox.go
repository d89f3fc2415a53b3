package session

import (
	"context"
	"sync"

	"github.com/sheaf-run/agent/internal/wire"
)

// Outbox is the way up of one stream. Messages go out in order; nothing that
// is added blocks. Its length is bounded by what a client can have: results
// that are not answered, within its lookahead.
type Outbox struct {
	mu    sync.Mutex
	queue []*wire.FromClient
	wake  chan struct{} // of size 1
}

func newOutbox() *Outbox { return &Outbox{wake: make(chan struct{}, 1)} }

// Add queues a message. After the stream has ended it is dropped.
func (o *Outbox) Add(m *wire.FromClient) {
	o.mu.Lock()
	o.queue = append(o.queue, m)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// sender is the part of a stream that pump needs.
type sender interface {
	Send(*wire.FromClient) error
}

// pump sends what is queued until ctx ends or a send fails. It is the stream's only sender.
func (o *Outbox) pump(ctx context.Context, to sender) {
	var batch []*wire.FromClient
	for {
		o.mu.Lock()
		batch, o.queue = o.queue, batch[:0]
		o.mu.Unlock()
		for i, m := range batch {
			batch[i] = nil
			if to.Send(m) != nil {
				return // the receiving side sees why
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
	}
}
