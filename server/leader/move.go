package leader

import (
	"context"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// moveFrom tells other nodes to copy what lies on n, a batch each. It reports
// whether any is under way, and when to look again.
func (t *Term) moveFrom(snap *state.Snapshot, n *state.Node) (next time.Duration, underWay bool) {
	d := t.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	busy := map[sheaf.NodeID]bool{}
	taken := map[sheaf.RunID]map[uint32]bool{}
	results := map[sheaf.RunID]bool{}
	now := time.Now()
	for id, m := range d.moves {
		if now.Sub(m.begun) > fetchPatience {
			delete(d.moves, id)
			continue
		}
		if m.answer == nil {
			next = sooner(next, fetchPatience-now.Sub(m.begun))
		}
		busy[m.to] = true
		if m.from != n.ID {
			continue
		}
		underWay = true
		run := sheaf.RunID(m.fetch.Outputs.Run)
		results[run] = results[run] || m.fetch.MergeAttempt > 0
		if taken[run] == nil {
			taken[run] = map[uint32]bool{}
		}
		for i, first := range m.fetch.Outputs.First {
			for p := range m.fetch.Outputs.Count[i] {
				taken[run][first+p] = true
			}
		}
	}
	targets := 0
	for to := range snap.Nodes() {
		if !to.Placeable() || to.ID == n.ID || t.suspects.has(to.ID) || !t.hub.Connected(to.ID) {
			continue
		}
		targets++
		if left := d.pauses[to.ID].Sub(now); left > 0 {
			next = sooner(next, left)
			continue
		}
		if busy[to.ID] {
			continue
		}
		f := t.batch(snap, n, taken, results)
		if f == nil {
			return next, underWay
		}
		d.next++
		f.Id = d.next
		if !t.hub.Fetch(&to.Node, &n.Node, f) {
			continue
		}
		d.moves[f.Id] = &move{from: n.ID, to: to.ID, fetch: f, begun: now}
		underWay = true
		next = sooner(next, fetchPatience)
	}
	if targets == 0 {
		d.waits[n.ID] = "no other node can take outputs: all are down, ineligible or not connected"
	}
	return next, underWay
}

// batch is the next outputs to be copied from a node, or nil. d.mu is held.
func (t *Term) batch(snap *state.Snapshot, n *state.Node, taken map[sheaf.RunID]map[uint32]bool, results map[sheaf.RunID]bool) *wire.Fetch {
	for r := range snap.Runs() {
		f := &wire.Fetch{Outputs: &wire.Executions{Run: string(r.ID), Generation: r.Generation}}
		if taken[r.ID] == nil {
			taken[r.ID] = map[uint32]bool{}
		}
		if r.Result.Sealed && r.Result.Node == n.Number && !results[r.ID] {
			f.MergeAttempt, f.MergedDigest = r.Result.Attempt, r.Result.Digest[:]
			results[r.ID] = true
		}
		add := func(p int, row table.Row) bool {
			if !taken[r.ID][uint32(p)] && !r.Lost.Contains(p) {
				taken[r.ID][uint32(p)] = true
				state.AppendExecution(f.Outputs, p, row.Attempt)
				f.Digest = append(f.Digest, row.Output[:]...)
			}
			return len(f.Digest) < 32*moveAtOnce
		}
		if e := r.Reduce; e.Done && e.Node == n.Number && !e.Lost {
			add(r.Partitions.Len(), table.Row{Attempt: e.Attempt, Output: e.Output})
		}
		if r.Partitions != nil {
			for p, row := range r.Partitions.Held(sheaf.PartitionSucceeded, n.Number) {
				if !add(p, row) {
					break
				}
			}
			// What failed has logs that a person may want. They are tried once:
			// nothing is lost that the run needs.
			if k := (askedFor{n.ID, r.ID}); len(f.Digest) == 0 && r.Status.Terminal() && !t.drains.tried[k] && r.Counts().Failed > 0 {
				t.drains.tried[k] = true
				for p, row := range r.Partitions.In(sheaf.PartitionFailed) {
					if row.Node == n.Number && row.Attempt > 0 && !add(p, row) {
						break
					}
				}
			}
		}
		if len(f.Digest) > 0 || f.MergeAttempt > 0 {
			return f
		}
	}
	return nil
}

// moved logs what was copied: from then on it lies there.
func (t *Term) moved(ctx context.Context) error {
	d := t.drains
	for {
		d.mu.Lock()
		if len(d.done) == 0 {
			d.mu.Unlock()
			return nil
		}
		id := d.done[0]
		m := d.moves[id]
		d.mu.Unlock()
		if m != nil {
			if err := t.logMove(ctx, m); err != nil {
				return err
			}
		}
		d.mu.Lock()
		d.done = d.done[1:]
		delete(d.moves, id)
		d.mu.Unlock()
	}
}

func (t *Term) logMove(ctx context.Context, m *move) error {
	d := t.drains
	a := m.answer
	d.mu.Lock()
	delete(d.waits, m.from)
	delete(d.pauses, m.to)
	if a.Error != "" {
		d.waits[m.from] = "node " + string(m.to) + " could not copy all: " + a.Error
		d.pauses[m.to] = time.Now().Add(drainPause)
		t.Logger.Warn("outputs not copied", "from", m.from, "to", m.to, "run", m.fetch.Outputs.Run, "error", a.Error)
	}
	d.mu.Unlock()
	c := &fsm.MoveOutputs{Outputs: &wire.Executions{Run: m.fetch.Outputs.Run}, From: string(m.from), To: string(m.to)}
	if k := a.Kept; k != nil && len(k.First) == len(k.Count) && len(k.First) == len(k.Attempt) && len(k.First) <= moveAtOnce {
		c.Outputs.First, c.Outputs.Count, c.Outputs.Attempt = k.First, k.Count, k.Attempt
	}
	if a.Result {
		c.MergeAttempt = m.fetch.MergeAttempt
	}
	if len(c.Outputs.First) == 0 && c.MergeAttempt == 0 {
		return nil
	}
	reply, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_MoveOutputs{MoveOutputs: c}})
	if class := sheaf.ClassOf(err); err != nil && (class == sheaf.NotFound || class == sheaf.Conflict) {
		return nil // the run is deleted, or the node that copied is down: it is found again as it stands
	}
	if err == nil {
		t.Logger.Debug("outputs moved", "from", m.from, "to", m.to, "run", c.Outputs.Run, "outputs", reply.Moved)
	}
	return err
}
