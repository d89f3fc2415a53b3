// Package agent makes one process of the pieces: it reads the configuration, opens the
// listeners, joins the gossip, and runs a server, a client, or both behind one RPC
// port and one HTTP port. Parts start in the order of their needs and stop in the
// reverse order.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/agent/httpapi"
	"github.com/sheaf-run/agent/agent/monitor"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/sheaf"
)

// Options are what the starting command decides, beside the configuration.
type Options struct {
	Version string
	Dev     bool
	Clients int // in dev: how many clients; 1 unless told
	Logger  *slog.Logger
}

// Agent is one process of a cluster.
type Agent struct {
	conf Config
	opts Options
	log  *slog.Logger

	monitor *monitor.Log // lets others follow log

	httpListener net.Listener
	rpcListener  net.Listener
	mux          *wire.Mux
	keys         *pki.Keys // nil in plain text
	dialer       wire.Dialer
	pool         *gossip.Pool
	grpc         *grpc.Server
	server       *server.Server // nil when it is none
	clients      []*client.Client
	extra        []*satellite // dev: clients beyond the first, each behind a listener of its own
	http         *http.Server
	registry     *prometheus.Registry
	started      time.Time

	ready     chan struct{}
	readyOnce sync.Once
	left      chan struct{} // closed when this agent has left its cluster and is to end
	leftOnce  sync.Once
}

// New opens the listeners and builds the parts; nothing runs before Run. If it
// fails, nothing stays open.
func New(conf Config, opts Options) (_ *Agent, err error) {
	if conf, err = conf.Filled(); err != nil {
		return nil, err
	}
	if err := checkDataDir(conf.DataDir); err != nil {
		return nil, err
	}
	a := &Agent{conf: conf, opts: opts, started: time.Now(), ready: make(chan struct{}), left: make(chan struct{}), registry: prometheus.NewRegistry()}
	a.monitor = monitor.New(opts.Logger.Handler())
	a.log = slog.New(a.monitor)
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			a.closeListeners()
		}
	}()
	if err := a.secure(); err != nil {
		return nil, err
	}
	if a.httpListener, err = a.listen("http", conf.Ports.HTTP); err != nil {
		return nil, err
	}
	if a.rpcListener, err = a.listen("rpc", conf.Ports.RPC); err != nil {
		return nil, err
	}
	if err := a.tryGossipPort(); err != nil {
		return nil, err
	}
	a.mux = a.newMux(a.rpcListener)
	a.grpc = newGRPC()
	if err := a.buildParts(); err != nil {
		return nil, err
	}
	return a, nil
}

// listen opens a port and says which one is taken, and by what option to take another.
func (a *Agent) listen(what string, port int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(a.conf.Bind, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		way := fmt.Sprintf("give another port in the configuration: ports { %s = … }", what)
		if a.opts.Dev {
			way = fmt.Sprintf("give another port with -%s-port; 0 takes any", what)
		}
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Field: "ports." + what, Msg: fmt.Sprintf("port %d for %s is taken by another program", port, what), Hint: "is an agent running already? Else " + way}
	}
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", what, err)
	}
	return l, nil
}

// tryGossipPort finds out whether gossip's port is free, since gossip itself opens
// it only when everything else runs already.
func (a *Agent) tryGossipPort() error {
	l, err := a.listen("gossip", a.conf.Ports.Gossip)
	if err != nil {
		return err
	}
	return l.Close()
}

// advertised is the address that others dial for a listener.
func (a *Agent) advertised(l net.Listener) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		panic("a TCP listener's address has no port: " + l.Addr().String())
	}
	return net.JoinHostPort(a.conf.Advertise, port)
}

// buildParts makes gossip, server, clients and the HTTP API, in this order: each knows the ones before it.
func (a *Agent) buildParts() error {
	rpc := a.advertised(a.rpcListener)
	self := gossip.Member{Name: a.conf.Name, Region: a.conf.Region, Address: rpc, HTTP: a.advertised(a.httpListener), HTTPS: a.conf.TLS.https(), Version: a.opts.Version}
	if a.conf.Server.Enabled {
		id, err := serverID(a.conf)
		if err != nil {
			return err
		}
		self.Server, self.Expect = id, a.conf.expect()
	}
	key, err := a.conf.Gossip.key()
	if err != nil {
		return err
	}
	pool, err := gossip.New(gossip.Config{
		Self: self, Bind: net.JoinHostPort(a.conf.Bind, strconv.Itoa(a.conf.Ports.Gossip)), Join: a.conf.Join,
		Key: key, KeyringFile: below(a.conf.DataDir, filepath.Join("gossip", "keyring.json")), Logger: a.log.With("part", "gossip"),
	})
	if err != nil {
		return err
	}
	a.pool = pool
	wire.RegisterAgentsServer(a.grpc, agents{pool: pool})
	if a.conf.Server.Enabled {
		heartbeat, err := a.conf.Server.Heartbeat.heartbeat()
		if err != nil {
			return err
		}
		retention, err := a.conf.Server.Retention.retention()
		if err != nil {
			return err
		}
		keys, err := a.secretKeys()
		if err != nil {
			return err
		}
		if a.server, err = server.New(server.Config{
			Heartbeat: heartbeat, Retention: retention,
			ID: self.Server, Region: a.conf.Region, DataDir: below(a.conf.DataDir, "server"), Address: rpc, Expect: self.Expect,
			Raft: a.mux.Raft(), Dialer: a.dialer, Gossip: pool, Logger: a.log.With("part", "server"),
			Keys: keys,
		}); err != nil {
			return err
		}
		a.server.Register(a.grpc)
		a.registry.MustRegister(a.server.Metrics(), stateCollector{measuring{a.server}}, libraryMetrics())
	}
	if a.conf.Client.Enabled {
		if err := a.buildClients(rpc); err != nil {
			return err
		}
	}
	a.http, err = a.buildHTTP()
	return err
}

// measuring gives what the leader measures of a run in numbers.
type measuring struct{ *server.Server }

func (m measuring) Measured(run sheaf.RunID) (running int, rate float64) {
	p := m.Progress(run)
	return p.Running.Len(), p.Rate
}

func (a *Agent) buildHTTP() (*http.Server, error) {
	limits, err := a.conf.HTTP.limits()
	if err != nil {
		return nil, err
	}
	conf := httpapi.Config{
		Gossip: a.pool, Self: a.self, Health: a.health, Parse: a.parseJob, ReadJob: a.readJob, Metrics: a.registry,
		Logger: a.log.With("part", "http"), Keyring: a.keyring, Leave: a.leave, Settings: a.conf.Show, LeaderTLS: a.dialer.ServerTLS(), AgentTLS: a.dialer.AgentTLS, HTTPS: a.conf.TLS.https(),
		Log: a.monitor, Limits: limits, Hosts: a.hosts(),
		ACL: a.conf.ACL != nil && a.conf.ACL.Enabled,
	}
	if a.server != nil {
		conf.Server = a.server
	}
	served := httpapi.New(conf)
	a.httpListener = served.Limit(a.httpListener)
	s := served.HTTPServer()
	s.TLSConfig = a.secureHTTP()
	return s, nil
}

// below is a folder of the data directory; "" where there is none.
func below(dataDir, name string) string {
	if dataDir == "" {
		return ""
	}
	return filepath.Join(dataDir, name)
}

// HTTPAddress is where the API is served, as a URL.
func (a *Agent) HTTPAddress() string {
	scheme := "http://"
	if a.conf.TLS.https() {
		scheme = "https://"
	}
	return scheme + a.advertised(a.httpListener)
}

// Ready is closed once jobs can be submitted and, where this agent is a client, run.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run is the agent's life. It ends when ctx does, or when a part fails for good. The
// API goes first, so that nobody is promised anything; then the clients, while their
// server still takes results; then the server; gossip and listeners last.
func (a *Agent) Run(ctx context.Context) error {
	defer a.closeListeners()
	stages := []func(context.Context) error{
		a.runListeners, // stops last
		a.runServer,
		a.runClients,
		a.runHTTP, // stops first
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-a.left:
			stop()
		case <-ctx.Done():
		}
	}()
	return runStages(ctx, stages)
}

// leave takes a server out of its cluster; then this agent ends as it does by a signal. A
// client has nothing to hand on: its work is placed again when it is gone.
func (a *Agent) leave(ctx context.Context) error {
	if a.server != nil {
		if err := a.server.Leave(ctx); err != nil {
			return err
		}
	}
	a.leftOnce.Do(func() { close(a.left) })
	return nil
}

// runStages starts the stages in order and stops them in reverse order: each gets a
// context that ends when all stages behind it have returned.
func runStages(ctx context.Context, stages []func(context.Context) error) error {
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var errs []error
	var mu sync.Mutex
	ended := make(chan struct{})
	go func() { <-failed.Done(); close(ended) }()
	after := ended // closed when the stages behind have returned
	var all sync.WaitGroup
	for i := len(stages) - 1; i >= 0; i-- {
		stage, previous, done := stages[i], after, make(chan struct{})
		after = done
		all.Go(func() {
			defer close(done)
			own, stop := context.WithCancel(context.WithoutCancel(ctx))
			defer stop()
			go func() {
				select {
				case <-previous:
					stop()
				case <-own.Done():
				}
			}()
			if err := stage(own); err != nil && own.Err() == nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				fail(err)
			}
			<-previous
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (a *Agent) runListeners(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.mux.Run(ctx) })
	g.Go(func() error { return a.pool.Run(ctx) })
	g.Go(func() error { return a.keepKeys(ctx) })
	g.Go(func() error { return serveGRPC(ctx, a.grpc, a.mux.GRPC()) })
	for _, s := range a.extra {
		g.Go(func() error { return serveGRPC(ctx, s.grpc, s.listener) })
	}
	return g.Wait()
}

func (a *Agent) runServer(ctx context.Context) error {
	if a.server == nil {
		<-ctx.Done()
		return nil
	}
	return a.server.Run(ctx)
}

func (a *Agent) runClients(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range a.clients {
		g.Go(func() error { return c.Run(ctx) })
	}
	g.Go(func() error { return a.announceReady(ctx) })
	return g.Wait()
}

// shutdownGrace is how long replies under way may take once the agent stops;
// blocking reads and followed logs are cut off then.
const shutdownGrace = 500 * time.Millisecond

func (a *Agent) runHTTP(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if a.http.Shutdown(grace) != nil {
			_ = a.http.Close()
		}
	}()
	serve := a.http.Serve
	if a.http.TLSConfig != nil {
		serve = func(l net.Listener) error { return a.http.ServeTLS(l, "", "") }
	}
	if err := serve(a.httpListener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	<-stopped
	return nil
}

func (a *Agent) closeListeners() {
	for _, l := range []net.Listener{a.httpListener, a.rpcListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	for _, s := range a.extra {
		_ = s.listener.Close()
	}
}

func (a *Agent) self() api.Self {
	s := api.Self{
		Version: a.opts.Version, Region: a.conf.Region, Datacenter: a.conf.Datacenter, Name: a.conf.Name,
		Server: a.server != nil, Client: len(a.clients) > 0, Dev: a.opts.Dev, Started: a.started,
	}
	if len(a.clients) > 0 {
		s.NodeID = a.clients[0].ID()
	}
	return s
}

// serverID is the server's identity among servers: kept in the data
// directory, so that a server that comes back is the same one.
func serverID(conf Config) (string, error) {
	if conf.DataDir == "" {
		return conf.Name, nil
	}
	path := filepath.Join(conf.DataDir, "server", "id")
	b, err := os.ReadFile(path)
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the server's identity: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	id := string(api.NewRunID(conf.Name))
	if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("write the server's identity: %w", err)
	}
	return id, nil
}
