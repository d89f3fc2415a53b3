// Package server is the servers' role of an agent: one member of a raft cluster that
// holds the state of a region's runs, and while it leads decides what runs where.
// This package wires the pieces below it; each of them is testable alone.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/server/events"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/leader"
	"github.com/sheaf-run/agent/server/liveness"
	"github.com/sheaf-run/agent/server/rpc"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Config is what a server is made of.
type Config struct {
	ID      string // among the servers; stable across restarts
	Region  string
	DataDir string // absolute; empty keeps everything in memory
	Address string // host:port of the RPC listener, as others reach it; raft shares it
	Expect  int    // servers that found a cluster together; 1 founds one alone, 0 waits to be taken into one

	Raft   net.Listener // raft's share of the RPC listener: wire.Mux.Raft
	Dialer wire.Dialer  // to nodes and to other servers; the zero value speaks plain text
	Gossip *gossip.Pool // run by the agent
	Logger *slog.Logger // discards when nil

	Retention Retention
	Heartbeat Heartbeat
	Election  time.Duration // see consensus.Config

	Keys rpc.Keys // of secrets, asked for each use; nil refuses secrets
}

// Heartbeat says when a node counts as lost; a zero field takes its default.
type Heartbeat struct {
	Lease   time.Duration // after which a node that is not heard of begins nothing new (9 s)
	Grace   time.Duration // after the lease, until it is declared lost (3 s)
	Outputs time.Duration // after that, until outputs that lie only there and are needed are made again (5 min)
}

// Retention says how long runs that are over are kept; a zero field takes its default.
type Retention struct {
	Runs int           // at most so many (1000)
	Age  time.Duration // at most so long (7 days)
	// Least is how long each is kept, whatever their number (1 minute): who
	// submitted it learns how it ended.
	Least time.Duration
}

// Defaults of Retention.
const (
	keepRuns  = 1000
	keepFor   = 7 * 24 * time.Hour
	keepLeast = time.Minute
	// outputsGrace is longer than the restart of a machine.
	outputsGrace = 5 * time.Minute
)

func (h *Heartbeat) fill() {
	for field, usual := range map[*time.Duration]time.Duration{&h.Lease: liveness.Lease, &h.Grace: liveness.Grace, &h.Outputs: outputsGrace} {
		if *field == 0 {
			*field = usual
		}
	}
}

// Server is one server. Its methods may be called concurrently, also before Run.
type Server struct {
	config  Config
	store   *state.Store
	node    *consensus.Node
	service *rpc.Service
	events  *events.Log
	nodes   *rpc.Nodes
	peers   *peers
	told    told

	term  atomic.Pointer[leader.Term] // while this server leads and takes work
	named chan string                 // of size 1: the cluster's ID, as the log gave it

	ready     chan struct{}
	readyOnce sync.Once
}

var _ API = (*Server)(nil)

// New checks the configuration and the data directory, and claims an empty one. It starts nothing.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Retention.Runs == 0 {
		c.Retention.Runs = keepRuns
	}
	if c.Retention.Age == 0 {
		c.Retention.Age = keepFor
	}
	if c.Retention.Least == 0 {
		c.Retention.Least = keepLeast
	}
	c.Heartbeat.fill()
	if c.DataDir != "" && !filepath.IsAbs(c.DataDir) {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "data_dir", Msg: fmt.Sprintf("data directory %q is not absolute", c.DataDir), Hint: "write it from the root, as in /var/lib/sheaf"}
	}
	s := &Server{config: c, nodes: rpc.NewNodes(c.Dialer), peers: newPeers(c.Dialer), events: events.New(), named: make(chan string, 1), ready: make(chan struct{})}
	identity := consensus.Identity{Server: c.ID, Region: c.Region}
	var chunks state.ChunkStore = new(state.MemoryChunks)
	if c.DataDir != "" {
		var err error
		if identity, err = consensus.ReadIdentity(c.DataDir, c.ID, c.Region); err != nil {
			return nil, err
		}
		if chunks, err = state.OpenFileChunks(filepath.Join(c.DataDir, "manifests")); err != nil {
			return nil, fmt.Errorf("open the shard manifests: %w", err)
		}
	} else if identity.Server == "" {
		identity.Server = consensus.NewID()
	}
	s.config.ID = identity.Server
	s.store = state.New(chunks)
	conf := consensus.Config{
		Identity: identity, DataDir: c.DataDir, Address: c.Address, Listener: c.Raft,
		Machine: newMachine(s.store, s.events, s.named), Logger: c.Logger, Election: c.Election, Lead: s.lead, Dial: c.Dialer.Raft,
	}
	if c.Expect != 1 || c.Gossip != nil && c.Gossip.Joins() {
		if c.Gossip == nil {
			return nil, errors.New("server: servers find each other by gossip, and there is none")
		}
		conf.Founders = s.founders
	}
	if c.Gossip != nil {
		conf.Members, conf.Stats, conf.Autopilot = s.members, s.peers.stats, func() sheaf.Autopilot { return s.store.Snapshot().Operator().Autopilot }
		c.Gossip.Update(func(m *gossip.Member) { m.Cluster = identity.Cluster })
	}
	var err error
	if s.node, err = consensus.New(conf); err != nil {
		return nil, err
	}
	s.service = rpc.NewService(c.Region, s.leading, s.store, s.keys)
	return s, nil
}

// Register adds the services that clients and other servers use to the agent's RPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	wire.RegisterServersServer(r, s.service)
	wire.RegisterPeersServer(r, peerService{server: s})
}

// Run takes part in the cluster until ctx ends. An error is fatal for the process.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.node.Run(ctx) })
	g.Go(func() error { return s.nodes.Run(ctx) })
	g.Go(func() error { return s.peers.run(ctx) })
	g.Go(func() error { return s.follow(ctx) })
	return g.Wait()
}

// follow notes which cluster this is, and when it is ready.
func (s *Server) follow(ctx context.Context) error {
	for {
		changed := s.node.Changed()
		if address, self := s.node.Leader(); address != "" && (!self || s.term.Load() != nil) {
			s.readyOnce.Do(func() { close(s.ready) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case id := <-s.named:
			if err := s.node.SetCluster(id); err != nil {
				return err
			}
			if s.config.Gossip != nil {
				s.config.Gossip.Update(func(m *gossip.Member) { m.Cluster = id })
			}
		}
	}
}

// lead is what this server does during a term.
func (s *Server) lead(ctx context.Context, number uint64) error {
	t := leader.New(leader.Config{
		Number: number, Region: s.config.Region, Log: s.node, Store: s.store, Gossip: s.config.Gossip, Logger: s.config.Logger,
		NewCluster: consensus.NewID, Node: s.Node, KeepRuns: s.config.Retention.Runs, KeepFor: s.config.Retention.Age, KeepLeast: s.config.Retention.Least,
		Lease: s.config.Heartbeat.Lease, Grace: s.config.Heartbeat.Grace, OutputsGrace: s.config.Heartbeat.Outputs,
	})
	defer func() {
		s.term.Store(nil)
		s.node.Announce()
	}()
	return t.Run(ctx, func() {
		s.term.Store(t)
		s.node.Announce()
	})
}

// leads gives the term of now, or says who leads instead.
func (s *Server) leads() (*leader.Term, error) {
	if t := s.term.Load(); t != nil {
		return t, nil
	}
	return nil, s.node.NotLeader()
}

func (s *Server) leading() (*rpc.Hub, error) {
	t, err := s.leads()
	if err != nil {
		return nil, err
	}
	return t.Hub(), nil
}

// machine is package fsm's as consensus wants it. It tells of the cluster's
// name, which only the log has.
type machine struct {
	fsm    *fsm.Machine
	events *events.Log
	named  chan<- string
	known  string
}

func newMachine(store *state.Store, log *events.Log, named chan<- string) *machine {
	m := &machine{fsm: fsm.New(store), events: log, named: named}
	m.fsm.Observe(log.Applied)
	return m
}

// Configured implements consensus.Configured.
func (m *machine) Configured(index uint64, servers []consensus.Peer) {
	var list []events.Server
	for _, p := range servers {
		list = append(list, events.Server{ID: p.ID, Address: p.Address, Voter: p.Voter})
	}
	m.events.Configured(index, list)
}

func (m *machine) Apply(index uint64, command []byte) (any, error) {
	reply, err := m.fsm.Apply(index, command)
	if err != nil {
		return nil, err
	}
	m.tell()
	return reply, nil
}

func (m *machine) Image() (consensus.Image, error) { return m.fsm.Image(), nil }

func (m *machine) Restore(r io.Reader) error {
	if err := m.fsm.Restore(r); err != nil {
		return err
	}
	m.events.Restored(m.fsm.Store().Snapshot())
	m.tell()
	return nil
}

func (m *machine) tell() {
	if id := m.fsm.Store().Snapshot().Cluster().ID; id != "" && id != m.known {
		m.known = id
		select {
		case m.named <- id:
		default: // the log can name one cluster only: it has been told
		}
	}
}
