package dispatch

import (
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Reconciliation is what a Hello leads to.
type Reconciliation struct {
	Stream uint64             // names the stream that begins, for Closed
	Kill   []*wire.Executions // for Welcome: listed by the client, not valid any more
	Start  []*wire.Executions // for Welcome: queued at the client and valid
	// Release are commands to be applied in order; the last opens the session
	// for placements. None if there is nothing to release and the session is open.
	Release []*fsm.Release
}

// Hello begins a stream: it compares what the client lists with snap, which
// must hold all that was committed when the Hello came. The stream that the node had before is
// over: nothing that comes up it may be handled after this. An error (Conflict) says that the
// client must register again.
//
// Of what the log holds valid on the node and the client does not list:
// what waits here was never sent and goes on waiting; what an earlier start of the
// client was given counts as lost; what the same start does not know never reached it, and is free.
func (c *Core) Hello(h *wire.Hello, snap *state.Snapshot) (Reconciliation, error) {
	n := snap.Node(sheaf.NodeID(h.Node))
	if n == nil || n.Session != h.Session || n.BootID != h.BootId || n.Status != sheaf.NodeReady {
		is := uint64(0)
		if n != nil {
			is = n.Session
		}
		return Reconciliation{}, wrongSession(h, is)
	}
	b := c.book(n.ID)
	c.streams++
	b.open, b.session, b.stream = true, h.Session, c.streams
	b.sent = map[string]*sentRun{}
	clear(b.asked)

	listed := map[string]map[item]struct{}{}
	for _, list := range [][]*wire.Executions{h.Queued, h.Executing, h.Finished} {
		for _, e := range list {
			if listed[e.Run] == nil {
				listed[e.Run] = map[item]struct{}{}
			}
			r := snap.Run(sheaf.RunID(e.Run))
			each(e, func(x item) {
				if x.kind == wire.Kind_KIND_PARTITION && r != nil && r.IsReduce(int(x.partition)) {
					x.kind = wire.Kind_KIND_REDUCE // a result that was found on the disk
				}
				listed[e.Run][x] = struct{}{}
			})
		}
	}
	rec := Reconciliation{Stream: b.stream}
	for _, e := range h.Queued {
		b.sort(e, n, snap, &rec.Start, &rec.Kill)
	}
	for _, e := range h.Executing {
		b.sort(e, n, snap, nil, &rec.Kill)
	}
	waiting := b.sift(listed)

	var missing []*wire.Executions
	for r := range snap.LiveRuns() {
		for _, e := range snap.ValidOn(r, n.Number) {
			m := like(e)
			each(e, func(x item) {
				if _, ok := listed[e.Run][x]; ok {
					return
				}
				if _, ok := waiting[e.Run][x]; ok {
					return
				}
				state.AppendExecution(m, int(x.partition), x.attempt)
			})
			if len(m.First) > 0 {
				missing = append(missing, m)
			}
		}
	}
	free, lost := missing, missing
	if n.NewBoot {
		free = nil
	} else {
		lost = nil
	}
	if len(missing) > 0 || !n.Joined {
		rec.Release = releases(n.ID, h.Session, free, lost, true)
	}
	return rec, nil
}

// sort divides what the client lists into valid and not. The valid counts as delivered.
func (b *book) sort(e *wire.Executions, n *state.Node, snap *state.Snapshot, valid, not *[]*wire.Executions) {
	r := snap.Run(sheaf.RunID(e.Run))
	good, bad := like(e), like(e)
	each(e, func(x item) {
		if r != nil && snap.Valid(r, x.kind, int(x.partition), x.attempt, n.Number) {
			b.note(e.Run, x)
			state.AppendExecution(good, int(x.partition), x.attempt)
		} else {
			state.AppendExecution(bad, int(x.partition), x.attempt)
		}
	})
	if valid != nil && len(good.First) > 0 {
		*valid = append(*valid, good)
	}
	if len(bad.First) > 0 {
		*not = append(*not, bad)
	}
}

// sift takes what the client lists out of the queue, and says what is left.
func (b *book) sift(listed map[string]map[item]struct{}) map[string]map[item]struct{} {
	left := map[string]map[item]struct{}{}
	queue := b.queue
	b.queue, b.waiting = nil, 0
	for _, e := range queue {
		keep := like(e)
		each(e, func(x item) {
			if _, ok := listed[e.Run][x]; ok {
				return
			}
			if left[e.Run] == nil {
				left[e.Run] = map[item]struct{}{}
			}
			left[e.Run][x] = struct{}{}
			state.AppendExecution(keep, int(x.partition), x.attempt)
		})
		if len(keep.First) > 0 {
			b.queue = append(b.queue, keep)
			b.waiting += count(keep)
		}
	}
	return left
}

// Paired says that partitions of a run have, or have had, two valid attempts: the next Kills looks at all of it.
func (c *Core) Paired(run sheaf.RunID) {
	for _, b := range c.nodes {
		if s := b.sent[string(run)]; s != nil {
			s.backups = true
		}
	}
}

// Kills are the executions delivered to the node that are not valid in snap
// any more and have not been named by Kills before: those of cancelled runs, losers of backups.
func (c *Core) Kills(node sheaf.NodeID, snap *state.Snapshot) []*wire.Executions {
	b := c.nodes[node]
	n := snap.Node(node)
	if b == nil || !b.open || n == nil {
		return nil
	}
	var kills []*wire.Executions
	for _, run := range b.runs() {
		r := snap.Run(sheaf.RunID(run))
		s := b.sent[run]
		whole := r == nil || r.Masked() || r.Status.Terminal() || r.Generation != s.generation || s.backups || r.Backups > 0
		if r != nil {
			s.generation, s.backups = r.Generation, r.Backups > 0
		}
		var dead []item
		for x := range s.items {
			if !whole && x.kind == wire.Kind_KIND_PARTITION {
				continue
			}
			if r == nil || !snap.Valid(r, x.kind, int(x.partition), x.attempt, n.Number) {
				dead = append(dead, x)
			}
		}
		kills = append(kills, b.take(run, dead)...)
	}
	return kills
}

// Ended takes out what a command ended otherwise (Reply.Ended), and gives of it
// what the client has, to be killed. Executions that the client itself gave up need no kill.
func (c *Core) Ended(node sheaf.NodeID, ended []*wire.Executions) []*wire.Executions {
	b := c.nodes[node]
	if b == nil {
		return nil
	}
	gone := map[string]map[item]struct{}{}
	var kills []*wire.Executions
	for _, e := range ended {
		gone[e.Run] = map[item]struct{}{}
		var had []item
		each(e, func(x item) {
			gone[e.Run][x] = struct{}{}
			if s := b.sent[e.Run]; s != nil {
				if _, ok := s.items[x]; ok {
					had = append(had, x)
				}
			}
		})
		kills = append(kills, b.take(e.Run, had)...)
	}
	b.sift(gone)
	if !b.open {
		return nil
	}
	return kills
}

// runs are the runs with something at the node, in order.
func (b *book) runs() []string {
	runs := make([]string, 0, len(b.sent))
	for run := range b.sent {
		runs = append(runs, run)
	}
	slices.Sort(runs)
	return runs
}

// take drops items of a run and names them, a message for each kind.
func (b *book) take(run string, items []item) []*wire.Executions {
	slices.SortFunc(items, func(x, y item) int {
		if x.kind != y.kind {
			return int(x.kind) - int(y.kind)
		}
		if x.partition != y.partition {
			return int(int64(x.partition) - int64(y.partition))
		}
		return int(int64(x.attempt) - int64(y.attempt))
	})
	var out []*wire.Executions
	for i, x := range items {
		if i == 0 || items[i-1].kind != x.kind {
			out = append(out, &wire.Executions{Run: run, Kind: x.kind})
		}
		state.AppendExecution(out[len(out)-1], int(x.partition), x.attempt)
		b.drop(run, x)
	}
	return out
}
