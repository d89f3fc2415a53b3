package leader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/planner"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// tailPause is the least time between two looks at the tail of one run.
	tailPause = 100 * time.Millisecond
	// tailRest is how many times as long as a look took the run is left alone after it.
	tailRest = 9
)

// tails are the runs of which something may have become slow, or may wait where it
// need not.
type tails struct {
	mu    sync.Mutex
	runs  map[sheaf.RunID]*tailTurn
	pairs map[sheaf.RunID]int // second attempts, as last seen
	wake  chan struct{}       // of size 1
}

// tailTurn is when a run is looked at.
type tailTurn struct {
	asked bool      // at once
	at    time.Time // at this time anyway; zero is not
	rest  time.Time // not before
	taken int       // how many had ended when work was last taken back; 0 is never
}

func newTails(snap *state.Snapshot) tails {
	pairs := map[sheaf.RunID]int{}
	for r := range snap.LiveRuns() {
		if r.Backups > 0 {
			pairs[r.ID] = r.Backups
		}
	}
	return tails{runs: map[sheaf.RunID]*tailTurn{}, pairs: pairs, wake: make(chan struct{}, 1)}
}

// add has a run looked at. A lone partition has no like.
func (t *tails) add(r *state.Run) {
	if r == nil || r.Partitions == nil || r.Partitions.Len() < 2 {
		return
	}
	t.mu.Lock()
	x := t.runs[r.ID]
	if x == nil {
		x = &tailTurn{}
		t.runs[r.ID] = x
	}
	was := x.asked
	x.asked = true
	t.mu.Unlock()
	if !was {
		poke(t.wake)
	}
}

func (t *tails) forget(run sheaf.RunID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.runs, run)
	delete(t.pairs, run)
}

// fewer reports whether a run has fewer second attempts than when it was last asked: the other of a pair
// was committed, or both are over.
func (t *tails) fewer(r *state.Run) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.pairs[r.ID]
	if r.Backups == 0 {
		delete(t.pairs, r.ID)
	} else {
		t.pairs[r.ID] = r.Backups
	}
	return r.Backups < was
}

// due are the runs whose turn it is, and when the next is.
func (t *tails) due(now time.Time) (runs []sheaf.RunID, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = time.Hour
	for id, x := range t.runs {
		at := x.at
		if x.asked {
			at = x.rest
		}
		switch {
		case !x.asked && x.at.IsZero():
		case at.After(now):
			next = min(next, at.Sub(now))
		default:
			runs = append(runs, id)
			x.asked, x.at = false, time.Time{}
		}
	}
	return runs, next
}

// mayTake reports whether work may be taken back: once for each that ends, so that what is placed where it
// was does not go round.
func (t *tails) mayTake(run sheaf.RunID, ended int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.runs[run]
	if x == nil || x.taken == ended {
		return false
	}
	x.taken = ended
	return true
}

// rest notes that a run was looked at, and when it is to be again.
func (t *tails) rest(run sheaf.RunID, began time.Time, again time.Duration) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.runs[run]; x != nil {
		x.rest = now.Add(max(tailPause, tailRest*now.Sub(began)))
		if again > 0 {
			x.at = now.Add(max(again, tailPause))
		}
	}
}

// keepTails has what is slow done a second time elsewhere, and what waits at busy nodes given to idle ones.
func (t *Term) keepTails(ctx context.Context) error {
	for {
		runs, next := t.tails.due(time.Now())
		for _, id := range runs {
			began := time.Now()
			again, err := t.mindTail(ctx, id, began)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				t.Logger.Warn("look after the tail of a run", "run", id, "error", err)
				again = retryPause
			}
			t.tails.rest(id, began, again)
		}
		if len(runs) > 0 {
			next = tailPause
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-t.tails.wake:
			if !pause(ctx, tailPause/4) { // what comes at once is looked at together
				timer.Stop()
				return ctx.Err()
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// mindTail looks at one run, and says when to look again at the latest.
func (t *Term) mindTail(ctx context.Context, id sheaf.RunID, now time.Time) (time.Duration, error) {
	if t.live(id) == nil {
		return 0, nil
	}
	snap := t.Store.Snapshot()
	r := snap.Run(id)
	if r == nil || r.Status != sheaf.RunRunning || r.Partitions == nil || r.Masked() || r.Held() || r.Nodes != nil {
		return 0, nil
	}
	req, ok := t.straggling(snap, r, now)
	if !ok {
		return 0, nil
	}
	plan := straggler.Decide(req)
	if len(plan.Backups) > 0 {
		if err := t.backUp(ctx, snap, id, plan.Backups); err != nil {
			return 0, err
		}
	}
	if len(plan.TakeBack) == 0 || !t.tails.mayTake(id, req.Durations.Len()) {
		return plan.Again, nil
	}
	for _, x := range plan.TakeBack {
		if err := t.hub.TakeBack(ctx, x.Node, id, x.Most); err != nil {
			return 0, fmt.Errorf("take work back from node %s: %w", x.Node, err)
		}
	}
	return plan.Again, nil
}

// straggling is how a run stands; not ok where nothing is known of how long its partitions take.
func (t *Term) straggling(snap *state.Snapshot, r *state.Run, now time.Time) (req straggler.Request, ok bool) {
	req = straggler.Request{Backups: r.Job.Backups, Pending: r.Need(t.clock.nowMs()).Ready, Under: r.UnderWay(), Doubles: r.Backups}
	t.track.mu.Lock()
	defer t.track.mu.Unlock()
	track := t.track.runs[r.ID]
	if track == nil || track.tail.took.Len() == 0 {
		return req, false
	}
	took := track.tail.took.Clone()
	req.Durations, req.Extra = &took, track.side(now)
	req.Running = track.longest(r, straggler.MaxLooked, now)
	req.Nodes = func() []straggler.Node { return t.tailNodes(snap, r) }
	return req, true
}

// tailNodes are the nodes, as those that run the tail see them.
func (t *Term) tailNodes(snap *state.Snapshot, r *state.Run) []straggler.Node {
	nodes := t.nodes(snap, r.Job, r, t.clock.nowMs())
	able := scheduler.Able(scheduler.Request{Job: r.Job, Pin: pin(snap, r), Nodes: nodes})
	slowness := t.track.slowness(r.ID)
	list := make([]straggler.Node, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		slots, ok := able[n.ID]
		if !ok {
			slots = n.Slots
		}
		list[i] = straggler.Node{ID: n.ID, Able: ok, Slots: slots, Assigned: n.Assigned, Load: n.Load, Failed: n.Failed, Slowness: slowness[n.ID]}
	}
	return list
}

// giveUp ends the second attempts for which others are made, and leaves out the others where they are over.
func (t *Term) giveUp(ctx context.Context, snap *state.Snapshot, run sheaf.RunID, backups []straggler.Backup) ([]straggler.Backup, error) {
	byNode := map[sheaf.NodeID][]*state.Backup{}
	var made []straggler.Backup
	for _, b := range backups {
		if b.Instead {
			x := snap.Backup(run, b.Partition)
			if x == nil {
				continue
			}
			n := snap.NodeByNumber(x.Node)
			if n == nil || n.ID == b.Node {
				continue
			}
			byNode[n.ID] = append(byNode[n.ID], x)
		}
		made = append(made, b)
	}
	for node, seconds := range byNode {
		if err := t.hub.GiveUp(ctx, run, node, seconds); err != nil {
			return nil, err
		}
		for _, x := range seconds {
			t.track.gaveUp(run, x, time.Now())
		}
	}
	return made, nil
}

// backUp places second attempts.
func (t *Term) backUp(ctx context.Context, snap *state.Snapshot, run sheaf.RunID, backups []straggler.Backup) error {
	backups, err := t.giveUp(ctx, snap, run, backups)
	if err != nil || len(backups) == 0 {
		return err
	}
	byNode := map[sheaf.NodeID]sheaf.Ranges{}
	for _, b := range backups {
		byNode[b.Node] = byNode[b.Node].Union(sheaf.Ranges{{First: b.Partition, Last: b.Partition}})
	}
	plan := planner.Plan{Run: run, Kind: wire.Kind_KIND_PARTITION, Backup: true}
	for id, partitions := range byNode {
		if n := snap.Node(id); n != nil {
			plan.Placements = append(plan.Placements, scheduler.Placement{Node: id, Session: n.Session, Partitions: partitions})
		}
	}
	if _, err := t.planner.Submit(ctx, plan); err != nil {
		return fmt.Errorf("place second attempts: %w", err)
	}
	snap = t.Store.Snapshot()
	for _, b := range backups {
		if x := snap.Backup(run, b.Partition); x != nil {
			t.track.paired(run, x, b.Node, b.Why)
			t.Logger.Info("a slow partition is done a second time", "run", run, "partition", b.Partition, "node", b.Node, "because", b.Why)
		}
	}
	t.hub.Paired(run)
	return nil
}
