// Package driver keeps one task driver's process for the client: opened when
// the first run asks for it, recovered and opened again after it died, put to
// rest when it is idle. Commands are queued without blocking and sent in order;
// events of all drivers come on one channel. Every event of a stream is in that
// channel before its end is reported.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// recoverTimeout bounds the search for what a process before left: a
	// container runtime may have hundreds to look at and end.
	recoverTimeout = 2 * time.Minute
	// fingerprintTimeout bounds a driver's look at its node, and the start of its process before it.
	fingerprintTimeout = 90 * time.Second
	// commandBuffer is how far the stream may lag behind the queue before the
	// queue is what grows; capacity bounds that.
	commandBuffer = 256
)

// Ended says that a driver's stream is over. Err is nil when it was closed in
// order.
type Ended struct {
	Driver *Driver
	Err    error
}

// Driver is one task driver. Recover and Rest are called by one goroutine at a
// time, the others concurrently.
type Driver struct {
	Name string

	host     *plugin.Host
	stateDir string
	log      *slog.Logger
	events   chan<- *driverpb.Event
	ended    func(Ended)

	begun chan struct{}   // closed when Run begins
	life  context.Context // of Run; read after begun

	mu     sync.Mutex
	queue  []*driverpb.Command
	wake   chan struct{} // of size 1
	stream *stream       // nil while closed
}

// stream is one Execute.
type stream struct {
	close chan struct{} // closed to end it in order
	done  chan struct{} // closed when Execute has returned
}

// Config is what a Driver is made of.
type Config struct {
	Plugin   plugin.Config
	StateDir string // where the driver may keep things
	Events   chan<- *driverpb.Event
	Ended    func(Ended) // called once for each Recover that succeeded, when its stream is over
	Logger   *slog.Logger
}

// New makes a driver; no process is started.
func New(c Config) *Driver {
	return &Driver{
		Name: c.Plugin.Name, host: plugin.NewHost(c.Plugin), stateDir: c.StateDir, log: c.Logger,
		events: c.Events, ended: c.Ended, begun: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// Run lets the process be started until ctx ends. Then the driver ends what cannot
// be recovered, and its process is ended after it; the rest goes on without it.
func (d *Driver) Run(ctx context.Context) error {
	d.life = ctx
	close(d.begun)
	hostCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	over := make(chan error, 1)
	go func() { over <- d.host.Run(hostCtx) }()
	<-ctx.Done()
	d.mu.Lock()
	s := d.stream
	d.mu.Unlock()
	if s != nil {
		<-s.done
	}
	end()
	if err := <-over; !errors.Is(err, context.Canceled) {
		return fmt.Errorf("end driver %q: %w", d.Name, err)
	}
	return nil
}

// Fingerprint asks whether the driver works here. A driver that cannot answer
// is unhealthy, with the reason.
func (d *Driver) Fingerprint(ctx context.Context) sheaf.NodeDriver {
	ctx, cancel := context.WithTimeout(ctx, fingerprintTimeout)
	defer cancel()
	fp, err := d.host.Fingerprint(ctx)
	if err != nil {
		return sheaf.NodeDriver{Name: d.Name, Reason: err.Error()}
	}
	return sheaf.NodeDriver{Name: d.Name, Healthy: fp.GetHealthy(), Reason: fp.GetReason(), Attributes: fp.GetAttributes()}
}

// Recover re-attaches to those of known that still run, has everything else of ours
// ended, and opens the stream. It returns the IDs of what runs. After an error
// nothing runs that could be known of, and the driver is closed.
func (d *Driver) Recover(ctx context.Context, known []*driverpb.Known) ([]string, error) {
	rctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	resp, err := d.host.Recover(rctx, &driverpb.RecoverRequest{Known: known, StateDir: d.stateDir})
	if err != nil {
		return nil, fmt.Errorf("recover executions of driver %q: %w", d.Name, err)
	}
	d.open()
	return resp.GetRunning(), nil
}

// open begins an Execute that lasts until Run's context ends, Rest, or the process dies.
func (d *Driver) open() {
	<-d.begun
	s := &stream{close: make(chan struct{}), done: make(chan struct{})}
	d.mu.Lock()
	d.queue, d.stream = nil, s
	d.mu.Unlock()
	commands := make(chan *driverpb.Command, commandBuffer)
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		d.pump(s, commands)
	}()
	go func() {
		err := d.host.Execute(d.life, commands, d.events)
		d.mu.Lock()
		d.queue, d.stream = nil, nil
		d.mu.Unlock()
		close(s.done)
		<-pumped
		d.ended(Ended{Driver: d, Err: err})
	}()
}

// pump moves queued commands to the stream until it is over.
func (d *Driver) pump(s *stream, commands chan<- *driverpb.Command) {
	var batch []*driverpb.Command
	for {
		d.mu.Lock()
		batch, d.queue = d.queue, batch[:0]
		d.mu.Unlock()
		for i, c := range batch {
			batch[i] = nil
			select {
			case commands <- c:
			case <-s.done:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-d.wake:
		case <-s.close:
			close(commands)
			return
		case <-s.done:
			return
		}
	}
}

// Send queues commands. It never blocks; while the driver is closed they are
// dropped, and what they were for is reported lost.
func (d *Driver) Send(cs ...*driverpb.Command) {
	d.mu.Lock()
	if d.stream != nil {
		d.queue = append(d.queue, cs...)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Prepare makes a run's task ready; see drivers.Driver.
func (d *Driver) Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	req.StateDir = d.stateDir
	return d.host.Prepare(ctx, req)
}

// Release gives up a handle.
func (d *Driver) Release(ctx context.Context, handle string) error {
	return d.host.Release(ctx, handle)
}

// Rest closes the stream in order and ends the process. Nothing may run.
func (d *Driver) Rest() {
	d.mu.Lock()
	s := d.stream
	d.mu.Unlock()
	if s != nil {
		close(s.close)
		<-s.done
	}
	d.host.Rest()
}

// Kill ends a process that answers no more, as a crash would.
func (d *Driver) Kill() {
	d.log.Error("driver is ended since it does not answer", "driver", d.Name, "pid", d.host.Pid())
	d.host.Rest()
}

// Crashed reports whether err says that a driver's process died, rather than
// what the driver thinks of a request.
func Crashed(err error) bool {
	return errors.Is(err, plugin.ErrCrashed) || errors.Is(err, plugin.ErrStart) || errors.Is(err, plugin.ErrClosed)
}
