package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

const (
	// DefaultStartTimeout bounds the way from starting a process to its first
	// answer, which takes thousands of times as long as when idle where disk and processors are busy.
	DefaultStartTimeout = time.Minute
	// RestartPause is how long a failed start is remembered, so that a plugin
	// that cannot start isn't forked for every call.
	RestartPause = time.Second
)

// Config says how a driver's process is started.
type Config struct {
	Name         string        // of the driver, for errors and logs
	Command      []string      // program and arguments, as in {"/usr/bin/agent", "plugin", "exec"}
	Env          []string      // NAME=value, beside the few that are passed on (PATH, proxies, Go's own)
	SocketDir    string        // where sockets are made; "", or a path too long for one, is the system's temporary directory
	Log          *slog.Logger  // nil is slog's default
	StartTimeout time.Duration // 0 is DefaultStartTimeout
	Checksum     []byte        // sha256 of the program, checked at every start; nil is unchecked
	MTLS         bool          // certificates on both sides, made anew for each process; without, the kernel says who is at the other end

	answerTimeout time.Duration // of the first answer alone; 0 is StartTimeout
}

// Host is a driver whose process is started at the first call and again at
// the first call after it died. Its methods are those of drivers.Driver and may be called
// concurrently; before Run has begun they wait for it. What Prepare and Execute made is gone with a process: after
// ErrCrashed a client calls Recover, and prepares anew.
type Host struct {
	cfg   Config
	begun chan struct{} // closed when Run begins

	processes sync.WaitGroup // none begins once closed

	mu        sync.Mutex
	closed    bool
	current   *process // the newest; nil before the first
	recovered *process // that of the last Recover; nil before the first
}

var _ drivers.Driver = (*Host)(nil)

// NewHost makes a host; no process is started yet.
func NewHost(cfg Config) *Host {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = DefaultStartTimeout
	}
	if cfg.answerTimeout <= 0 {
		cfg.answerTimeout = cfg.StartTimeout
	}
	return &Host{cfg: cfg, begun: make(chan struct{})}
}

// Run lets processes be started until ctx ends; then it ends the process that
// is there, with its whole tree, and returns ctx's error once it and those before it are gone. It may be called once.
func (h *Host) Run(ctx context.Context) error {
	close(h.begun)
	<-ctx.Done()
	h.mu.Lock()
	h.closed = true
	p := h.current
	h.mu.Unlock()
	if p != nil {
		p.end()
	}
	h.processes.Wait()
	return ctx.Err()
}

// Rest ends the process when there is one, so that an idle driver takes no memory. The
// caller has no call open. The next call starts another process, to which earlier handles mean nothing.
func (h *Host) Rest() {
	h.mu.Lock()
	p := h.current
	h.current = nil
	h.mu.Unlock()
	if p != nil {
		p.end()
		<-p.done
	}
}

// Pid is the process that serves at the moment, 0 when there is none.
func (h *Host) Pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil || !h.current.alive() {
		return 0
	}
	return h.current.runner.pid()
}

// process gives a process that has answered, starting one where needed.
func (h *Host) process(ctx context.Context) (*process, error) {
	select {
	case <-h.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, fmt.Errorf("driver %q: %w", h.cfg.Name, ErrClosed)
	}
	p := h.current
	if p == nil || p.over(time.Now()) {
		p = newProcess(h.cfg)
		h.current = p
		h.processes.Go(p.run)
	}
	h.mu.Unlock()
	select {
	case <-p.started:
		return p, p.startErr
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Fingerprint is the driver's.
func (h *Host) Fingerprint(ctx context.Context) (*driverpb.FingerprintResponse, error) {
	return call(ctx, h, &driverpb.FingerprintRequest{}, driverpb.DriverClient.Fingerprint)
}

// Prepare is the driver's.
func (h *Host) Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	return call(ctx, h, req, driverpb.DriverClient.Prepare)
}

// Release is the driver's. A handle of a process that is gone is released already.
func (h *Host) Release(ctx context.Context, handle string) error {
	if h.Pid() == 0 {
		return nil
	}
	_, err := call(ctx, h, &driverpb.ReleaseRequest{Handle: handle}, driverpb.DriverClient.Release)
	if errors.Is(err, ErrCrashed) {
		return nil
	}
	return err
}

// Recover is the driver's; it is called for every process anew. From then on
// Execute is refused by any other process.
func (h *Host) Recover(ctx context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	p, err := h.process(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Recover(ctx, req)
	if err != nil {
		return nil, h.finish(ctx, p, err)
	}
	h.mu.Lock()
	h.recovered = p
	h.mu.Unlock()
	return resp, nil
}

// mayExecute refuses a process that was started after the one that recovered:
// it knows nothing of what runs.
func (h *Host) mayExecute(p *process) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recovered == nil || h.recovered == p {
		return nil
	}
	return fmt.Errorf("driver %q: %w: its process ended between recovering and executing", h.cfg.Name, ErrCrashed)
}

// finish names the error of a call that went to p.
func (h *Host) finish(ctx context.Context, p *process, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if named, ok := fromStatus(err); ok && p.alive() {
		return named
	}
	return p.crash(err)
}
