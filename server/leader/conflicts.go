package leader

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sheaf-run/agent/server/conflict"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of looking for conflicts while outputs are committed.
const (
	// conflictPaths is how many paths are known of all runs together: some 30 MB. What is beyond is compared by the merge.
	conflictPaths = 1 << 20
	// conflictDelay is the wait before outputs that were committed are looked at. Many come in it, and short runs
	// are over before: their merge says the same as soon.
	conflictDelay = 100 * time.Millisecond
	// conflictsAtOnce is how many outputs of a run are read before it is the next one's turn.
	conflictsAtOnce = 1024
	// conflictRest is how much longer than reading took nothing is read: it is no more than a tenth of what the leader
	// and the nodes do.
	conflictRest = 9
	// conflictTimeout bounds what is asked of a node at once: one that hangs holds the others up.
	conflictTimeout = 10 * time.Second
	// scannedAtOnce is how many ranges of committed partitions are held.
	scannedAtOnce = 4096
)

// conflicts are the runs whose outputs are compared as they are committed. All of it is this term's memory, made again
// from the state and from what the nodes keep: the conflict that was found is in the log.
type conflicts struct {
	wake chan struct{} // of size 1

	mu     sync.Mutex
	runs   map[sheaf.RunID]struct{} // to be looked at
	anew   map[sheaf.RunID]struct{} // gave outputs up: what is known of them may not be so any more
	unseen map[sheaf.RunID]bool     // have outputs that are left to the merge

	// of keepConflicts
	room    conflict.Room
	watched map[sheaf.RunID]*watched
}

// watched is what is known of one run's outputs.
type watched struct {
	index  *conflict.Index
	seen   []uint64 // a bit a partition whose output was looked at
	missed bool     // some could not be read, and never will
}

func newConflicts() *conflicts {
	return &conflicts{
		wake: make(chan struct{}, 1), runs: map[sheaf.RunID]struct{}{}, anew: map[sheaf.RunID]struct{}{}, unseen: map[sheaf.RunID]bool{},
		room: conflict.Room{Left: conflictPaths}, watched: map[sheaf.RunID]*watched{},
	}
}

// changed takes note of a run whose outputs may be others now, or that is over.
func (c *conflicts) changed(r *state.Run) {
	if len(r.Job.Outputs) == 0 || !conflict.Watches(r.Job) {
		return
	}
	if n := r.Counts(); n.Succeeded+n.Reused < 2 && !r.Status.Terminal() {
		return
	}
	c.mu.Lock()
	c.runs[r.ID] = struct{}{}
	c.mu.Unlock()
	poke(c.wake)
}

// begin has a run looked at from the beginning: it has given outputs up.
func (c *conflicts) begin(r *state.Run) {
	c.mu.Lock()
	c.anew[r.ID] = struct{}{}
	c.mu.Unlock()
	c.changed(r)
}

// take is what is to be looked at, in the order of the runs' IDs.
func (c *conflicts) take() []sheaf.RunID {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.anew {
		c.drop(id)
	}
	list := slices.Sorted(maps.Keys(c.runs))
	clear(c.anew)
	clear(c.runs)
	return list
}

// drop forgets a run. The lock is held.
func (c *conflicts) drop(id sheaf.RunID) {
	if w := c.watched[id]; w != nil {
		w.index.Close()
		delete(c.watched, id)
	}
	delete(c.unseen, id)
}

// over forgets a run of which nothing is to be looked at.
func (c *conflicts) over(id sheaf.RunID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
}

// note tells how far a run was looked at.
func (c *conflicts) note(id sheaf.RunID, w *watched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.missed || w.index.Full() {
		c.unseen[id] = true
	}
}

// LeftToMerge reports whether outputs of the run that are committed are compared by its merge alone.
func (t *Term) LeftToMerge(run sheaf.RunID) bool {
	t.conflicts.mu.Lock()
	defer t.conflicts.mu.Unlock()
	return t.conflicts.unseen[run]
}

// keepConflicts compares outputs as they are committed, and has it noted when two cannot be merged.
func (t *Term) keepConflicts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.conflicts.wake:
		}
		if !pause(ctx, conflictDelay) {
			return ctx.Err()
		}
		rest, began := time.Duration(0), time.Now()
		for _, id := range t.conflicts.take() {
			more, err := t.compareOutputs(ctx, id)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				t.Logger.Debug("outputs are not compared now; it is tried again", "run", id, "error", err)
				rest = retryPause
			}
			if r := t.Store.Snapshot().Run(id); r != nil && (more || err != nil) {
				t.conflicts.changed(r)
			}
		}
		if !pause(ctx, max(rest, conflictRest*time.Since(began))) {
			return ctx.Err()
		}
	}
}

// compareOutputs looks at some of a run's outputs that were not looked at. More says that there are further ones. An
// error passes: it is tried again.
func (t *Term) compareOutputs(ctx context.Context, id sheaf.RunID) (more bool, err error) {
	snap := t.Store.Snapshot()
	r := snap.Run(id)
	if r == nil || r.Partitions == nil || r.Status != sheaf.RunRunning && r.Status != sheaf.RunPending || r.Masked() || snap.Conflict(r) != nil {
		t.conflicts.over(id)
		return false, nil
	}
	w := t.conflicts.watched[id]
	if w == nil {
		w = &watched{index: conflict.New(r.Job, &t.conflicts.room), seen: make([]uint64, (r.Partitions.Len()+63)/64)}
		t.conflicts.watched[id] = w
	}
	c := &comparison{term: t, snap: snap, run: r, watched: w, origins: snap.Origins()}
	list := w.next(r)
	err = c.read(ctx, list)
	t.conflicts.note(id, w)
	return len(list) == conflictsAtOnce, err
}

// next are committed partitions whose output was not looked at.
func (w *watched) next(r *state.Run) []int {
	var list []int
	for from := 0; ; {
		committed := r.Committed(from, scannedAtOnce)
		for _, x := range committed {
			for i := x.First; i <= x.Last; i++ {
				word := w.seen[i/64]
				if word == ^uint64(0) {
					i |= 63
					continue
				}
				if word>>(i%64)&1 == 1 {
					continue
				}
				if list = append(list, i); len(list) == conflictsAtOnce {
					return list
				}
			}
		}
		if len(committed) < scannedAtOnce {
			return list
		}
		from = committed[len(committed)-1].Last + 1
	}
}

func (w *watched) done(p int) { w.seen[p/64] |= 1 << (p % 64) }
