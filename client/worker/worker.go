// Package worker carries out what the core of the client (package execution)
// decides: one loop owns the core and everything that concerns a run or an
// execution; what takes time (staging, harvesting, syncs, calls) runs beside it and comes
// back to the loop as a function. A short execution passes without a goroutine
// or a directory of its own: one command to its driver, one event back, one record in a batch.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/manifest"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// tickEvery is how often time alone is looked at: the precision of timeouts.
	tickEvery = 100 * time.Millisecond
	// maxDrain bounds the events handled before effects are carried out, so
	// that a flood of logs never delays a start by much.
	maxDrain = 1024
	// eventBuffer lets drivers run ahead of the loop by some batches.
	eventBuffer = 4096
	// inboxLen bounds the functions that wait for the loop; who posts waits.
	inboxLen = 256
	// restAfter is how long a driver's process is kept with nothing to do: longer than
	// the pauses of a person who submits again and again.
	restAfter = 30 * time.Second
)

// Config is what a Worker is made of. It owns none of what it is given.
type Config struct {
	Place      sandbox.Place
	Resources  sheaf.Resources
	Slots      int
	Drivers    []plugin.Config
	DriverDir  string // below which each driver has a directory of its own
	Store      *store.Store
	Checkpoint *checkpoint.File
	Spaces     *sandbox.Root
	Secrets    *secret.Files
	Sources    source.Config
	Places     publish.Config
	TempDir    string // for spools
	// Held is what was fetched and lies here: bytes by origin. It may be nil.
	Held func() map[string]int64
	// Peer is the service of another node.
	Peer func(id sheaf.NodeID) (client wire.NodesClient, done func(), err error)
	// PeerAt is the service of the node at an address.
	PeerAt func(address string) (wire.NodesClient, error)
	// Keys take what the leader says of data tokens.
	Keys   *datatoken.Keys
	Logger *slog.Logger
}

// Worker runs executions. Its exported methods may be called concurrently
// while Run lasts.
type Worker struct {
	cfg     Config
	log     *slog.Logger
	session *session.Session // set by Attach, before Run
	reader  *manifest.Reader

	events chan *driverpb.Event
	inbox  chan func()
	done   chan struct{} // closed when the loop has ended: nothing posted is run any more

	durable *durable
	saver   *saver
	pool    chan struct{} // a token for each job of the disk that runs
	jobs    sync.WaitGroup

	transfers chan struct{} // a token for each batch that is copied

	// The loop's own.
	ctx     context.Context // of Run
	core    *execution.Core
	fx      execution.Effects
	now     time.Time
	engines map[string]*engine
	up      up
	watch   watch
	strays  strays
	failure error // ends Run

	deleting int // runs that are being deleted, or wait for it
}

// New makes a worker that begins nothing.
func New(cfg Config) *Worker {
	w := &Worker{
		cfg: cfg, log: cfg.Logger,
		events: make(chan *driverpb.Event, eventBuffer), inbox: make(chan func(), inboxLen), done: make(chan struct{}),
		pool: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), transfers: make(chan struct{}, transfersAtOnce),
		core:    execution.New(execution.NewAccountant(execution.NeedOf(cfg.Resources), cfg.Slots)),
		engines: map[string]*engine{},
	}
	w.durable = newDurable(w)
	w.saver = newSaver(cfg.Checkpoint, cfg.Logger)
	w.reader = manifest.New(func(ctx context.Context) (wire.ServersClient, error) {
		leader, _, err := w.session.Leader(ctx)
		return leader, err
	})
	for _, p := range cfg.Drivers {
		w.engines[p.Name] = newEngine(w, p)
	}
	return w
}

// Attach gives the worker the session that it answers through.
func (w *Worker) Attach(s *session.Session) { w.session = s }

// Run recovers what a process before this one left, calls ready, and then works until ctx
// ends. What outlives it by a driver of its kind goes on and is in the checkpoint
// when Run returns; everything else is ended.
func (w *Worker) Run(ctx context.Context, ready func(drivers []sheaf.NodeDriver) error) error {
	// The drivers and the disk end after the loop, so that it can say its last words to them.
	tail, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	loopCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.ctx = loopCtx
	var engines, disk errgroup.Group
	for _, e := range w.engines {
		engines.Go(func() error { return e.driver.Run(tail) })
	}
	disk.Go(func() error { return w.durable.run(tail) })
	disk.Go(func() error { w.durable.runJobs(tail); return nil })
	disk.Go(func() error { w.saver.run(tail); return nil })

	drivers, err := w.recover(loopCtx)
	if err == nil {
		err = ready(drivers)
	}
	if err == nil {
		err = w.loop(loopCtx)
	}
	cancel()
	close(w.done)
	w.leave()
	w.jobs.Wait()
	stop()
	return errors.Join(err, engines.Wait(), disk.Wait())
}

// post has f run by the loop. After the loop has ended f is dropped.
func (w *Worker) post(f func()) {
	select {
	case w.inbox <- f:
	case <-w.done:
	}
}

// ask has f run by the loop and waits for it.
func (w *Worker) ask(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	g := func() { f(); close(ran) }
	select {
	case w.inbox <- g:
	case <-w.done:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-ran:
		return nil
	case <-w.done:
		return errEnded
	}
}

// errEnded answers who asks after the end.
var errEnded = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the client is shutting down"}

// do runs a job of the disk beside the loop, when there is a token for it.
func (w *Worker) do(job func()) {
	w.jobs.Go(func() {
		w.pool <- struct{}{}
		defer func() { <-w.pool }()
		job()
	})
}

func (w *Worker) loop(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case ev := <-w.events:
			w.now = time.Now()
			w.event(ev)
			w.drain(maxDrain)
		case f := <-w.inbox:
			w.now = time.Now()
			f()
			w.drain(maxDrain)
		case <-tick.C:
			w.now = time.Now()
			w.tick()
		case <-ctx.Done():
			return w.failure
		}
		w.carryOut()
		if w.failure != nil {
			return w.failure
		}
	}
}

// drain handles what waits already, up to most, without waiting.
func (w *Worker) drain(most int) {
	for range most {
		select {
		case ev := <-w.events:
			w.event(ev)
		case f := <-w.inbox:
			f()
		default:
			return
		}
	}
}

func (w *Worker) tick() {
	w.core.Tick(w.now, func(r *execution.Run) time.Duration { return dataOf(r).grace() })
	w.restIdle()
	w.sendDeleted()
	w.pulse(false)
}

// fail ends Run with err.
func (w *Worker) fail(err error) {
	if w.failure == nil {
		w.failure = err
	}
}
