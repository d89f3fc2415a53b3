// Package broker hands out evaluations: requests to look at a run and decide placements. It
// owns their order, which is fair between namespaces and runs, and their leases; a
// run never has two at once. They are made from the state when a leader starts and live as long
// as its term. Queue is the pure core, Broker its shell with a clock.
package broker

import (
	"context"
	"sync"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Broker is a Queue with a lock, a clock and waiting.
type Broker struct {
	mu    sync.Mutex
	queue *Queue
	wake  chan struct{} // of size 1: there may be something to hand out
}

// New makes an empty broker.
func New() *Broker { return &Broker{queue: NewQueue(), wake: make(chan struct{}, 1)} }

// Enqueue asks for an evaluation of a run, now.
func (b *Broker) Enqueue(run sheaf.RunID, share Share) {
	b.mu.Lock()
	b.queue.Enqueue(run, share)
	b.mu.Unlock()
	b.poke()
}

// EnqueueAfter asks for an evaluation of a run once d has passed.
func (b *Broker) EnqueueAfter(run sheaf.RunID, share Share, d time.Duration) {
	b.mu.Lock()
	b.queue.EnqueueAt(run, share, time.Now().Add(d))
	b.mu.Unlock()
	b.poke()
}

// Forget drops a run that is over.
func (b *Broker) Forget(run sheaf.RunID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue.Forget(run)
}

// Next waits for an evaluation and leases it. Several may wait at once.
func (b *Broker) Next(ctx context.Context) (Lease, error) {
	for {
		b.mu.Lock()
		l, ok, at := b.queue.Next(time.Now())
		b.mu.Unlock()
		if ok {
			b.poke() // there may be one for the next who waits
			return l, nil
		}
		var timer <-chan time.Time
		if !at.IsZero() {
			timer = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		case <-b.wake:
		case <-timer:
		}
	}
}

// Extend gives a busy evaluator more time. It reports whether the lease holds.
func (b *Broker) Extend(l Lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.Extend(l, time.Now())
}

// Ack ends an evaluation that placed so many executions.
func (b *Broker) Ack(l Lease, placed int) {
	b.mu.Lock()
	b.queue.Ack(l, placed)
	b.mu.Unlock()
	b.poke()
}

// Nack ends an evaluation that failed.
func (b *Broker) Nack(l Lease, cause string) {
	b.mu.Lock()
	b.queue.Nack(l, time.Now(), cause)
	b.mu.Unlock()
	b.poke()
}

// Dead are the evaluations that failed too often and are laid aside.
func (b *Broker) Dead() []Failed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.Dead()
}

// Evaluations are all that there are, by run.
func (b *Broker) Evaluations() []sheaf.Evaluation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.Evaluations()
}

// Failing is the cause of the last failure of a run's evaluation, if it fails.
func (b *Broker) Failing(run sheaf.RunID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.Failing(run)
}

func (b *Broker) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
