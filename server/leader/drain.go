package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// moveAtOnce is how many outputs one node is told to copy at a time: the ranges of
	// as many fit the header that a token travels in, and a command.
	moveAtOnce = 512
	// drainPause is the wait before a node is asked again for what it has not begun, and
	// before outputs that could not be copied are tried again.
	drainPause = time.Second
	// fetchPatience is how long a node may copy before another is told to as well:
	// it may have lost its session, or its disk may hang.
	fetchPatience = 10 * time.Minute
)

// drains are the moves of outputs that are under way from nodes that are emptied.
type drains struct {
	mu     sync.Mutex
	wake   chan struct{} // of size 1
	active bool          // some node is being emptied
	next   uint64
	moves  map[uint64]*move
	done   []uint64                // moves that were answered
	asked  map[askedFor]time.Time  // when work was last asked back
	tried  map[askedFor]bool       // runs whose failed attempts were copied, or could not be
	waits  map[sheaf.NodeID]string // why the last copy failed
	pauses map[sheaf.NodeID]time.Time
}

type askedFor struct {
	node sheaf.NodeID
	run  sheaf.RunID
}

// move is outputs of one run on their way from one node to another.
type move struct {
	from, to sheaf.NodeID
	fetch    *wire.Fetch
	begun    time.Time
	answer   *wire.Fetched
}

func newDrains() *drains {
	return &drains{
		wake: make(chan struct{}, 1), moves: map[uint64]*move{}, asked: map[askedFor]time.Time{}, tried: map[askedFor]bool{},
		waits: map[sheaf.NodeID]string{}, pauses: map[sheaf.NodeID]time.Time{},
	}
}

// poke has the nodes that are being emptied looked at, if there are any.
func (d *drains) poke() {
	d.mu.Lock()
	active := d.active
	d.mu.Unlock()
	if active {
		poke(d.wake)
	}
}

// Fetched implements rpc.Observer.
func (t *Term) Fetched(node sheaf.NodeID, f *wire.Fetched) {
	d := t.drains
	d.mu.Lock()
	if m := d.moves[f.Id]; m != nil && m.to == node && m.answer == nil {
		m.answer = f
		d.done = append(d.done, f.Id)
	}
	d.mu.Unlock()
	poke(d.wake)
}

// DrainWaits is what the emptying of a node waits for, in words.
func (t *Term) DrainWaits(node sheaf.NodeID) []string {
	snap := t.Store.Snapshot()
	n := snap.Node(node)
	if n == nil || n.Drain == nil || n.Drain.Done != nil {
		return nil
	}
	if n.Status != sheaf.NodeReady {
		return []string{"the node is down: its outputs cannot be read before it comes back"}
	}
	var waits []string
	running := 0
	for r := range snap.LiveRuns() {
		running += snap.AssignedOn(r, n.Number)
	}
	if running > 0 {
		why := fmt.Sprintf("%d executions end by themselves", running)
		if n.Drain.Deadline != nil {
			why += fmt.Sprintf(", or in %v", t.clock.until(n.Drain.Deadline.UnixMilli()).Round(time.Second))
		}
		waits = append(waits, why)
	}
	d := t.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.moves {
		if m.from == node {
			waits = append(waits, fmt.Sprintf("node %s copies outputs of run %s", m.to, m.fetch.Outputs.Run))
		}
	}
	if why := d.waits[node]; why != "" {
		waits = append(waits, why)
	}
	slices.Sort(waits)
	return slices.Compact(waits)
}

// keepDrains empties the nodes that are to be emptied.
func (t *Term) keepDrains(ctx context.Context) error {
	return t.again(ctx, "empty nodes", t.drains.wake, t.drainAll)
}

func (t *Term) drainAll(ctx context.Context) (next time.Duration, err error) {
	err = t.moved(ctx)
	snap := t.Store.Snapshot()
	active := false
	for n := range snap.Nodes() {
		if n.Drain == nil || n.Drain.Done != nil {
			continue
		}
		active = true
		if n.Status != sheaf.NodeReady || !n.Joined {
			continue // it goes on when the node is back and its session reconciled
		}
		wait, derr := t.drain(ctx, snap, n)
		next, err = sooner(next, wait), errors.Join(err, derr)
	}
	d := t.drains
	d.mu.Lock()
	d.active = active || len(d.moves) > 0
	d.mu.Unlock()
	return next, err
}

// drain does for a node what can be done now, and says when to look again; 0
// is when something happens.
func (t *Term) drain(ctx context.Context, snap *state.Snapshot, n *state.Node) (next time.Duration, err error) {
	running, left := 0, 0
	for r := range snap.LiveRuns() {
		running += snap.AssignedOn(r, n.Number)
	}
	for r := range snap.Runs() {
		left += r.OutputsOn(n.Number)
	}
	if running > 0 {
		wait := time.Duration(0)
		if n.Drain.Deadline != nil {
			wait = t.clock.until(n.Drain.Deadline.UnixMilli())
		}
		if n.Drain.Deadline != nil && wait == 0 {
			if err := t.hub.Free(ctx, n.ID); err != nil {
				return 0, err
			}
			t.Logger.Info("ended what ran on a node past its deadline", "node", n.ID, "executions", running)
			return drainPause, nil
		}
		next = sooner(next, wait)
		if next, err = t.askBack(ctx, snap, n, next); err != nil {
			return 0, err
		}
	}
	wait, underWay := t.moveFrom(snap, n)
	next = sooner(next, wait)
	if running > 0 || left > 0 || underWay {
		return next, nil
	}
	_, err = t.apply(ctx, &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{
		Node: string(n.ID), Change: &fsm.ChangeNode_EndDrain_{EndDrain: &fsm.ChangeNode_EndDrain{}},
	}}})
	if sheaf.ClassOf(err) == sheaf.Conflict && err != nil {
		return drainPause, nil // something was committed there meanwhile
	}
	if err == nil {
		t.Logger.Info("node is empty", "node", n.ID)
		t.drains.forget(n.ID)
	}
	return next, err
}

// askBack gets back what the node has not begun.
func (t *Term) askBack(ctx context.Context, snap *state.Snapshot, n *state.Node, next time.Duration) (time.Duration, error) {
	now := time.Now()
	for r := range snap.LiveRuns() {
		most := snap.AssignedOn(r, n.Number)
		if most == 0 {
			continue
		}
		k := askedFor{n.ID, r.ID}
		t.drains.mu.Lock()
		since := now.Sub(t.drains.asked[k])
		if since >= drainPause {
			t.drains.asked[k] = now
		}
		t.drains.mu.Unlock()
		if since >= drainPause {
			if err := t.hub.TakeBack(ctx, n.ID, r.ID, most); err != nil {
				return 0, err
			}
			since = 0
		}
		next = sooner(next, drainPause-since)
	}
	return next, nil
}

// forget drops what is known of a node that is emptied no more.
func (d *drains) forget(node sheaf.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waits, node)
	for k := range d.asked {
		if k.node == node {
			delete(d.asked, k)
		}
	}
	for k := range d.tried {
		if k.node == node {
			delete(d.tried, k)
		}
	}
}
