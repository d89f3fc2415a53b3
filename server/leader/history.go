package leader

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// history are the runs that are over, and the tombstones of those that were
// deleted, in the order of time, so that retention looks at the oldest only however many there are.
type history struct {
	mu     sync.Mutex
	order  []finished            // the oldest first; some are there no more
	ended  map[sheaf.RunID]int64 // cluster time at which each ended
	held   []finished            // runs whose outputs others have or read: due again when one of these is deleted or over
	graves []*grave              // the oldest first
	of     map[sheaf.RunID]*grave
}

type finished struct {
	run     sheaf.RunID
	endedMs int64
}

// grave is a tombstone, with the nodes that have not confirmed the deletion.
type grave struct {
	run         sheaf.RunID
	unpublished string // of state.Tombstone
	deletedMs   int64
	waits       map[sheaf.NodeID]bool
}

func newHistory(snap *state.Snapshot) *history {
	h := &history{ended: map[sheaf.RunID]int64{}, of: map[sheaf.RunID]*grave{}}
	for r := range snap.Runs() {
		if r.Status.Terminal() {
			h.ended[r.ID] = r.EndedMs
			h.order = append(h.order, finished{r.ID, r.EndedMs})
		}
	}
	slices.SortStableFunc(h.order, func(a, b finished) int { return cmp.Compare(a.endedMs, b.endedMs) })
	for stone := range snap.Tombstones() {
		h.bury(stone)
	}
	slices.SortStableFunc(h.graves, func(a, b *grave) int { return cmp.Compare(a.deletedMs, b.deletedMs) })
	return h
}

// add notes that a run is over. One that is held stays so.
func (h *history) add(r *state.Run) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := finished{r.ID, r.EndedMs}
	if at, ok := h.ended[r.ID]; ok && at == r.EndedMs || slices.Contains(h.held, f) {
		return
	}
	if len(r.Reads) > 0 {
		h.letGo()
	}
	h.put(f)
}

// put puts a run in its place, which mostly is the last. h.mu is held.
func (h *history) put(f finished) {
	h.ended[f.run] = f.endedMs
	at := len(h.order)
	for at > 0 && h.order[at-1].endedMs > f.endedMs {
		at--
	}
	h.order = slices.Insert(h.order, at, f)
}

// again notes that a run is not over any more.
func (h *history) again(run sheaf.RunID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ended, run)
	h.held = slices.DeleteFunc(h.held, func(f finished) bool { return f.run == run })
}

// due takes at most `most` runs that are to be deleted at cluster time nowMs: those
// beyond the newest keep, and those older than age, but none younger than least. next
// is when to ask again; 0 is when a run ends.
func (h *history) due(nowMs int64, keep int, age, least time.Duration, most int) (runs []sheaf.RunID, next time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.order) > 0 && len(runs) < most {
		o := h.order[0]
		if at, ok := h.ended[o.run]; !ok || at != o.endedMs {
			h.order = h.order[1:]
			continue
		}
		limit := age
		if len(h.ended) > keep {
			limit = min(age, least)
		}
		if left := limit - time.Duration(nowMs-o.endedMs)*time.Millisecond; left > 0 {
			return runs, left
		}
		h.order = h.order[1:]
		delete(h.ended, o.run)
		runs = append(runs, o.run)
	}
	return runs, 0
}

// hold keeps runs aside that are due and that others hold. They do not count among those that are kept.
func (h *history) hold(runs []sheaf.RunID, endedMs func(sheaf.RunID) int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range runs {
		if f := (finished{id, endedMs(id)}); !slices.Contains(h.held, f) {
			h.held = append(h.held, f)
		}
	}
}

// letGo has runs that were held looked at again. h.mu is held.
func (h *history) letGo() {
	for _, f := range h.held {
		h.put(f)
	}
	h.held = nil
}

// bury notes a tombstone; those that are there already stay as they are.
func (h *history) bury(stone *state.Tombstone) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo()
	delete(h.ended, stone.Run)
	if h.of[stone.Run] == nil {
		g := &grave{run: stone.Run, unpublished: stone.Unpublished, deletedMs: stone.DeletedMs}
		h.of[stone.Run] = g
		h.graves = append(h.graves, g)
	}
}

// untold are deletions of which no node was told.
func (h *history) untold() []*grave {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*grave
	for i := len(h.graves) - 1; i >= 0 && h.graves[i].waits == nil; i-- {
		list = append(list, h.graves[i])
	}
	slices.Reverse(list)
	return list
}

// told notes who is to confirm a deletion.
func (h *history) told(g *grave, nodes map[sheaf.NodeID]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g.waits = nodes
}

// tell notes that a node is about to be told.
func (h *history) tell(g *grave, node sheaf.NodeID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g.waits[node] = true
	return true
}

// confirmed notes that a node keeps nothing more of runs.
func (h *history) confirmed(node sheaf.NodeID, runs []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, run := range runs {
		if g := h.of[sheaf.RunID(run)]; g != nil {
			delete(g.waits, node)
		}
	}
}

// gone notes that a node's session is over: when it comes back it says what it
// keeps, and is told again what of it is deleted.
func (h *history) gone(node sheaf.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.graves {
		delete(g.waits, node)
	}
}

// forgotten takes at most `most` tombstones that are older than age and that no node waits for.
func (h *history) forgotten(nowMs int64, age time.Duration, most int) (runs []string, next time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var kept []*grave
	for i, g := range h.graves {
		left := age - time.Duration(nowMs-g.deletedMs)*time.Millisecond
		if left > 0 || len(runs) == most {
			next = max(left, 0)
			kept = append(kept, h.graves[i:]...)
			break
		}
		if g.waits == nil || len(g.waits) > 0 {
			kept = append(kept, g)
			continue
		}
		runs = append(runs, string(g.run))
		delete(h.of, g.run)
	}
	h.graves = kept
	return runs, next
}
