// Package liveness decides when the leader declares a node lost. It owns the leases that
// this leader granted, on a monotonic clock; a lease runs out only here, never by gossip or by a
// broken connection. Declaring a node lost is an entry of the log: whatever the node committed
// before it counts.
package liveness

import (
	"context"
	"sync"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// What is granted unless the configuration says otherwise.
const (
	// Lease is how long a node may work on after it was last heard of.
	Lease = 9 * time.Second
	// Grace is what is added before a node is declared lost: the time for which
	// its own clock may run behind, and for a last message to arrive. With the lease it
	// stays below the 15 s within which lost work runs again.
	Grace = 3 * time.Second
)

// Table is the pure core: until when each node is taken for alive.
type Table struct {
	period time.Duration // lease and grace together
	until  map[sheaf.NodeID]time.Time
}

// NewTable makes the table of a term: every node known gets one full period,
// since the leader before may have heard of it just now.
func NewTable(nodes []sheaf.NodeID, period time.Duration, now time.Time) *Table {
	t := &Table{period: period, until: map[sheaf.NodeID]time.Time{}}
	for _, n := range nodes {
		t.Renew(n, now)
	}
	return t
}

// Renew grants a node a full lease.
func (t *Table) Renew(node sheaf.NodeID, now time.Time) { t.until[node] = now.Add(t.period) }

// Remove forgets a node that is down or gone.
func (t *Table) Remove(node sheaf.NodeID) { delete(t.until, node) }

// Expired are the nodes whose time is up at now, and when to look again; zero
// is never. Those given stay in the table until they are removed or renewed.
func (t *Table) Expired(now time.Time) (lost []sheaf.NodeID, next time.Time) {
	for n, at := range t.until {
		if !at.After(now) {
			lost = append(lost, n)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return lost, next
}

// retry is the pause after a loss that could not be logged.
const retry = time.Second

// Watch is a Table with a lock and a clock. It lives for one term.
type Watch struct {
	mu    sync.Mutex
	table *Table
	added chan struct{} // of size 1: there is a node again where there was none
}

// NewWatch grants each of the nodes one full period, lease and grace, from now on.
func NewWatch(nodes []sheaf.NodeID, period time.Duration) *Watch {
	return &Watch{table: NewTable(nodes, period, time.Now()), added: make(chan struct{}, 1)}
}

// Renew grants a node a full lease from the moment at, which must lie before the
// leader's leadership was last confirmed.
func (w *Watch) Renew(node sheaf.NodeID, at time.Time) {
	w.mu.Lock()
	first := len(w.table.until) == 0
	w.table.Renew(node, at)
	w.mu.Unlock()
	if first {
		select {
		case w.added <- struct{}{}:
		default:
		}
	}
}

// Remaining is how long until the node is declared lost.
func (w *Watch) Remaining(node sheaf.NodeID) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.table.until[node]
	return time.Until(at), ok
}

// Run calls lost for each node whose time is up, until ctx ends. An error of
// lost is tried again, unless the node was heard of meanwhile.
func (w *Watch) Run(ctx context.Context, lost func(context.Context, sheaf.NodeID) error) error {
	for {
		w.mu.Lock()
		expired, next := w.table.Expired(time.Now())
		w.mu.Unlock()
		for _, n := range expired {
			if err := lost(ctx, n); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				next = time.Now().Add(retry)
				continue
			}
			w.mu.Lock()
			if at, ok := w.table.until[n]; ok && !at.After(time.Now()) {
				w.table.Remove(n)
			}
			w.mu.Unlock()
		}
		if len(expired) > 0 && next.IsZero() {
			continue
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer:
		case <-w.added:
		}
	}
}
