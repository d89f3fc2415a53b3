// Package leader is what a server does while it leads, and only then: evaluations, plans,
// leases, deadlines, retention. A Term is made anew each time and thrown away as a
// whole; all it knows comes from the state or from clients, so that no leader depends on the
// memory of the one before. Its loops wait for events; none polls.
package leader

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/broker"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/liveness"
	"github.com/sheaf-run/agent/server/planner"
	"github.com/sheaf-run/agent/server/rpc"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// evaluators is how many evaluations run at once. They are short; what they wait for is the log, milliseconds
// each, and it folds the plans of all that wait: so many small runs are placed with each write.
const evaluators = 64

// Config is what a term is made of.
type Config struct {
	Number uint64 // raft's term
	Region string
	Log    Consensus
	Store  *state.Store
	Gossip *gossip.Pool
	Logger *slog.Logger

	// NewCluster makes the ID of a cluster that has none.
	NewCluster func() string
	// Node is the service of a node, which says what its outputs hold.
	Node func(id sheaf.NodeID) (wire.NodesClient, error)
	// KeepRuns and KeepFor bound how many runs that are over are kept, and how long.
	KeepRuns int
	KeepFor  time.Duration
	// KeepLeast is how long each is kept at least, so that who submitted it learns how it ended.
	KeepLeast time.Duration
	// Lease is how long a node may work on after it was last heard of, Grace what is
	// added before it is declared lost.
	Lease, Grace time.Duration
	// OutputsGrace is how long a node may be gone before outputs that lie only
	// there and that something needs are made again.
	OutputsGrace time.Duration
}

// Term is one leadership.
type Term struct {
	Config
	clock     clock
	broker    *broker.Broker
	planner   *planner.Planner
	hub       *rpc.Hub
	watch     *liveness.Watch
	track     *tracker
	suspects  suspects
	history   *history
	drains    *drains
	lacking   lacking
	crowded   crowded
	back      takeBacks
	tails     tails
	conflicts *conflicts
	loads     loads

	deadlines    chan struct{} // each of size 1
	outputs      chan struct{}
	reap         chan struct{}
	compares     chan struct{}
	blames       chan struct{}
	nextDeadline atomic.Int64 // cluster time, 0 is none known
	over         atomic.Bool  // Run is returning: what is applied from then on nobody would follow
}

// New makes the term of a leadership that has just begun, with everything
// that was committed before applied to the store. Nothing runs yet.
func New(c Config) *Term {
	snap := c.Store.Snapshot()
	t := &Term{
		Config: c, clock: newClock(snap.TimeMs()), broker: broker.New(), track: newTracker(),
		back: newTakeBacks(), conflicts: newConflicts(),
		tails:   newTails(snap),
		history: newHistory(snap), drains: newDrains(), lacking: lacking{wake: make(chan struct{}, 1)},
		deadlines: make(chan struct{}, 1), outputs: make(chan struct{}, 1), reap: make(chan struct{}, 1), compares: make(chan struct{}, 1), blames: make(chan struct{}, 1),
	}
	for r := range snap.LiveRuns() {
		for b := range snap.Backups(r.ID) {
			if n := snap.NodeByNumber(b.Node); n != nil {
				t.track.paired(r.ID, b, n.ID, "")
			}
		}
	}
	var alive []sheaf.NodeID
	for n := range snap.Nodes() {
		if n.Status == sheaf.NodeReady {
			alive = append(alive, n.ID)
		}
	}
	t.watch = liveness.NewWatch(alive, c.Lease+c.Grace)
	t.hub = rpc.NewHub(rpc.HubConfig{
		Term: c.Number, Lease: c.Lease, Log: t, Snapshot: c.Store.Snapshot, Verify: c.Log.VerifyLeader, Barrier: c.Log.Barrier,
		Renew: t.watch.Renew, NowMs: t.clock.nowMs, Observer: t, Logger: c.Logger,
	})
	t.planner = planner.New(t, c.Store.Snapshot, t.placed)
	return t
}

// Hub is the term's sessions with clients.
func (t *Term) Hub() *rpc.Hub { return t.hub }

// Run leads until ctx ends, and returns once everything it began is over.
// begun is called when the term takes work.
func (t *Term) Run(ctx context.Context, begun func()) error {
	if t.Store.Snapshot().Cluster().ID == "" {
		if _, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_Bootstrap{Bootstrap: &fsm.Bootstrap{ClusterId: t.NewCluster(), Region: t.Region}}}); err != nil {
			return fmt.Errorf("name the cluster: %w", err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.hub.Run(ctx) })
	g.Go(func() error { return t.planner.Run(ctx) })
	g.Go(func() error { return t.watch.Run(ctx, t.lost) })
	g.Go(func() error { return t.keepTime(ctx) })
	g.Go(func() error { return t.keepOutputs(ctx) })
	g.Go(func() error { return t.keepRetention(ctx) })
	g.Go(func() error { return t.keepDrains(ctx) })
	g.Go(func() error { return t.keepLacking(ctx) })
	g.Go(func() error { return t.keepSuspects(ctx) })
	g.Go(func() error { return t.keepTokens(ctx) })
	g.Go(func() error { return t.keepBack(ctx) })
	g.Go(func() error { return t.keepReuse(ctx) })
	g.Go(func() error { return t.keepTails(ctx) })
	g.Go(func() error { return t.keepConflicts(ctx) })
	g.Go(func() error { return t.keepBlame(ctx) })
	for range evaluators {
		g.Go(func() error { return t.evaluate(ctx) })
	}
	t.nodesChanged()
	t.holdBack()
	poke(t.reap)
	begun()
	defer t.over.Store(true)
	return g.Wait()
}

// lost declares a node lost: everything it had goes elsewhere.
func (t *Term) lost(ctx context.Context, id sheaf.NodeID) error {
	n := t.Store.Snapshot().Node(id)
	if n == nil || n.Status == sheaf.NodeDown {
		return nil
	}
	t.Logger.Warn("node is lost: nothing was heard of it", "node", id, "for", t.Lease+t.Grace)
	_, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_NodeLost{NodeLost: &fsm.NodeLost{
		Node: string(id), Session: n.Session, Reason: fmt.Sprintf("not heard of for %v", t.Lease+t.Grace),
	}}})
	if err != nil {
		t.Logger.Error("declare a node lost", "node", id, "error", err)
		return err
	}
	if now := t.Store.Snapshot().Node(id); now != nil && now.Status == sheaf.NodeDown {
		t.hub.Lost(id)
		t.track.lost(id)
		t.track.gone(id, time.Now())
		poke(t.blames)
	}
	return nil
}

// keepTime moves cluster time when a run's deadline has come, and only then.
func (t *Term) keepTime(ctx context.Context) error {
	for {
		next := t.Store.Snapshot().NextDeadlineMs()
		t.nextDeadline.Store(next)
		var due <-chan time.Time
		if next > 0 {
			due = time.After(t.clock.until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.deadlines:
		case <-due:
			if t.clock.nowMs() < next {
				continue // a millisecond was rounded away
			}
			if _, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_AdvanceTime{AdvanceTime: &fsm.AdvanceTime{}}}); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				t.Logger.Error("advance cluster time", "error", err)
				if !pause(ctx, retryPause) {
					return ctx.Err()
				}
			}
		}
	}
}

// Started implements rpc.Observer.
func (t *Term) Started(node sheaf.NodeID, e *wire.Executions) {
	t.track.started(node, e, time.Now())
	if r := t.live(sheaf.RunID(e.Run)); r != nil && e.Kind == wire.Kind_KIND_PARTITION {
		t.tails.add(r) // when it may be slow is to be known
	}
}

// Ended implements rpc.Observer.
func (t *Term) Ended(r *wire.Results, a *wire.Answers) {
	if t.track.ended(r, a, time.Now()) {
		poke(t.blames)
	}
	t.live(sheaf.RunID(r.Run))
}

// live gives a run of which something was just noted, or nil where it is over: reports may come after the end,
// when it was forgotten, and are forgotten again.
func (t *Term) live(id sheaf.RunID) *state.Run {
	r := t.Store.Snapshot().Run(id)
	if r == nil || r.Status.Terminal() {
		t.tails.forget(id)
		t.track.forget(id)
		return nil
	}
	return r
}

// Pulse implements rpc.Observer. News of a node's capacity calls for evaluations.
func (t *Term) Pulse(node sheaf.NodeID, p *wire.Pulse) {
	anew, runs := t.track.pulse(node, p)
	for _, x := range p.Runs {
		t.live(sheaf.RunID(x.Run))
	}
	if t.suspects.clear(node) || anew {
		t.nodesChanged()
		return
	}
	snap := t.Store.Snapshot()
	for _, id := range runs {
		if r := snap.Run(id); r != nil && !r.Status.Terminal() {
			t.look(r)
		}
	}
}

// Connected implements rpc.Observer.
func (t *Term) Connected(node sheaf.NodeID, connected bool) {
	t.Logger.Debug("node's session", "node", node, "open", connected)
	if connected && t.suspects.clear(node) {
		t.nodesChanged()
	}
	if connected {
		t.holdBack()
	}
	if !connected {
		t.history.gone(node)
		poke(t.reap)
	}
	t.drains.poke()
}

// Dead are the evaluations that were laid aside.
func (t *Term) Dead() []broker.Failed {
	d := t.broker.Dead()
	slices.SortFunc(d, func(a, b broker.Failed) int { return slices.Compare([]byte(a.Run), []byte(b.Run)) })
	return d
}

// Evaluations are the term's, by run.
func (t *Term) Evaluations() []sheaf.Evaluation { return t.broker.Evaluations() }
