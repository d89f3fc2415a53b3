// Package consensus replicates the log of commands by raft and applies it to a state
// machine. It owns the raft directory: entries and votes carry checksums, snapshots are verified whole, and
// damage is an error that names the file, never a crash and never passed over.
// An entry that Apply answered is durable on a majority. What the commands
// mean is package fsm's.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/sheaf"

	"github.com/sheaf-run/agent/internal/wire"
)

// Config is what a member of the cluster is made of.
type Config struct {
	Identity Identity     // see ReadIdentity; in memory its Server and Region are enough
	DataDir  string       // empty keeps everything in memory
	Address  string       // host:port at which others reach this server's raft
	Listener net.Listener // raft's share of the RPC listener
	Machine  Machine
	Logger   *slog.Logger
	// Election is how long a follower believes in a leader that it does not hear of; 0 is 600 ms. A machine that
	// stalls for as long changes the leader.
	Election time.Duration

	// Dial connects to another server's raft; nil is plain text.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Founders gives all servers that found the cluster, this one among
	// them, each the same list. It is asked, in a goroutine, only while this server knows of no cluster;
	// nil founds one alone.
	Founders func(ctx context.Context) ([]Peer, error)
	// Lead is called for each term that this server leads, once what earlier terms
	// committed is applied. Its context ends with the leadership, which is not given
	// up on purpose before it returned.
	Lead func(ctx context.Context, term uint64) error

	// Members gives the live servers of the region, and a channel that closes when they change.
	// The leader takes in those that are new; nil leaves the servers as they are, and
	// then Stats and Autopilot are not asked.
	Members func() ([]Member, <-chan struct{})
	// Stats asks the server at address how far its log is.
	Stats func(ctx context.Context, address string) (Stats, error)
	// Autopilot gives the settings of now.
	Autopilot func() sheaf.Autopilot
}

// Peer is a server of the cluster.
type Peer struct {
	ID      string
	Address string // host:port of its raft
	Voter   bool
}

// Node is this server's membership. Its methods may be called concurrently;
// before Run has opened the log they answer that nothing is available yet.
type Node struct {
	config Config
	raft   atomic.Pointer[raft.Raft]
	store  *checkedStore
	snaps  raft.SnapshotStore
	failed chan error // of size 1: the first fatal error

	cluster   atomic.Pointer[string]
	snapIndex atomic.Uint64 // of the newest snapshot
	snapBytes atomic.Int64
	grown     chan struct{}                       // of size 1: the log has outgrown its bound
	pauses    chan func()                         // run while no work of a term goes on
	pilot     atomic.Pointer[autopilot.Autopilot] // while this server leads

	mu      sync.Mutex    // over changed, and the changing of cluster
	changed chan struct{} // closed and replaced when the leader changes
}

// New checks the configuration. It opens nothing; Run does.
func New(c Config) (*Node, error) {
	if c.Identity.Server == "" || c.Address == "" || c.Listener == nil || c.Machine == nil || c.Logger == nil {
		return nil, errors.New("consensus: identity, address, listener, machine and logger are needed")
	}
	if c.Dial == nil {
		c.Dial = wire.Dialer{}.Raft
	}
	n := &Node{config: c, failed: make(chan error, 1), grown: make(chan struct{}, 1), changed: make(chan struct{}), pauses: make(chan func())}
	n.cluster.Store(&c.Identity.Cluster)
	return n, nil
}

// Run opens the log, takes part until ctx ends, hands leadership on where there
// is another to take it, and closes the log. An error is fatal for the process: what is durable is then unknown.
func (n *Node) Run(ctx context.Context) error {
	closeStore, configuration, err := n.open()
	if err != nil {
		return err
	}
	defer closeStore()
	alone := n.config.Founders == nil && configuration == nil || n.votesAlone(configuration, false)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &streams{
			Listener: n.config.Listener, address: advertised(n.config.Address), dial: n.config.Dial,
			cluster: func() string { return *n.cluster.Load() }, join: n.SetCluster, log: n.config.Logger, ended: make(chan struct{}),
		},
		MaxPool: maxPool, MaxRPCsInFlight: maxInFlight, Timeout: transportTimeout, Logger: raftLogger(n.config.Logger, alone),
	})
	if configuration == nil && alone {
		if err := n.foundAlone(transport); err != nil {
			transport.Close()
			return err
		}
	}
	n.sayWhereItStands(configuration)
	var link raft.Transport = transport
	started, stopEager := context.WithCancel(ctx)
	defer stopEager()
	g, gctx := errgroup.WithContext(started)
	if n.votesAlone(configuration, alone) {
		e := newEager(transport)
		link = e
		g.Go(func() error { return e.run(gctx) })
	}
	r, err := raft.NewRaft(n.raftConfig(alone), &adapter{machine: n.config.Machine, fatal: n.fatal}, &recent{store: n.store}, n.store, n.snaps, link)
	if err != nil {
		stopEager()
		transport.Close()
		return errors.Join(fmt.Errorf("start raft: %w", err), ignoreCanceled(g.Wait()))
	}
	n.raft.Store(r)

	g.Go(func() error {
		select {
		case err := <-n.failed:
			return err
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error { return n.keepSnapshots(gctx, r) })
	g.Go(func() error { return n.observe(gctx, r) })
	if configuration == nil && n.config.Founders != nil {
		g.Go(func() error { return n.found(gctx, r) })
	}
	g.Go(func() error { return n.lead(gctx, r) })
	err = g.Wait()
	if r.State() == raft.Leader && n.hasSuccessor() {
		if transferErr := r.LeadershipTransfer().Error(); transferErr != nil {
			n.config.Logger.Warn("hand leadership on", "error", transferErr)
		}
	}
	if shutdownErr := r.Shutdown().Error(); shutdownErr != nil && err == nil {
		err = fmt.Errorf("stop raft: %w", shutdownErr)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// hasSuccessor reports whether another voter is there to lead.
func (n *Node) hasSuccessor() bool {
	return slices.ContainsFunc(n.Peers(), func(p Peer) bool { return p.Voter && p.ID != n.config.Identity.Server })
}

// votesAlone reports whether this server is the only voter there is.
func (n *Node) votesAlone(c *raft.Configuration, founded bool) bool {
	if c == nil {
		return founded
	}
	self, voters := false, 0
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || s.ID == raft.ServerID(n.config.Identity.Server)
		}
	}
	return self && voters == 1
}

// sayWhereItStands tells a server that is no member of its own cluster any more.
func (n *Node) sayWhereItStands(c *raft.Configuration) {
	if c == nil || slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(n.config.Identity.Server) }) {
		return
	}
	n.config.Logger.Warn("this server was removed from its cluster, or left it: it has no vote until the leader takes it in again, which it does when gossip shows this server",
		"server", n.config.Identity.Server, "cluster", n.config.Identity.Cluster, "servers", len(c.Servers))
}

// open opens log and snapshots and checks both. The configuration is the
// newest known, nil for a server that belongs to no cluster.
func (n *Node) open() (closeAll func(), configuration *raft.Configuration, err error) {
	if n.config.DataDir == "" {
		memory := raft.NewInmemStore()
		n.store = &checkedStore{under: memory, name: "memory", fatal: n.fatal, grown: n.noteGrowth}
		n.snaps = raft.NewInmemSnapshotStore()
		return func() {}, nil, nil
	}
	dir := filepath.Join(n.config.DataDir, "raft")
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	path := filepath.Join(dir, logName)
	if !n.config.Identity.Opened {
		// A crash may have left a log that was never opened: it holds nothing.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("begin the raft log: %w", err)
		}
	} else if st, err := os.Stat(path); err != nil {
		return nil, nil, damaged(path, "the file", err)
	} else if st.Size() == 0 {
		return nil, nil, damaged(path, "the file", io.ErrUnexpectedEOF)
	}
	under, err := openLog(path)
	if err != nil {
		return nil, nil, err
	}
	n.store = &checkedStore{under: under, name: path, fatal: n.fatal, grown: n.noteGrowth, servers: n.writeServers}
	defer func() {
		if err != nil {
			n.store.Close()
		}
	}()
	snaps, err := openSnapshots(filepath.Join(dir, "snapshots"))
	if err != nil {
		return nil, nil, err
	}
	n.snaps = snaps
	newest, err := snaps.verifyNewest()
	if err != nil {
		return nil, nil, err
	}
	var covered uint64
	if newest != nil {
		covered = newest.Index
	}
	configuration, err = n.store.scanGuarded(covered)
	if err != nil {
		return nil, nil, err
	}
	first, err := n.store.FirstIndex()
	if err != nil {
		return nil, nil, err
	}
	if newest != nil {
		n.snapIndex.Store(newest.Index)
		n.snapBytes.Store(newest.Size)
		if configuration == nil {
			configuration = &newest.Configuration
		}
	}
	if first > covered+1 {
		return nil, nil, damaged(snaps.dir, "the newest snapshot", fmt.Errorf("it is missing: the log begins at entry %d and snapshots end at %d", first, covered))
	}
	if configuration != nil {
		n.writeServers(*configuration)
	}
	if !n.config.Identity.Opened {
		n.config.Identity.Opened = true
		if err := n.config.Identity.write(n.config.DataDir); err != nil {
			return nil, nil, err
		}
	}
	return func() { n.store.Close(); lock.Close() }, configuration, nil
}

// fatal ends Run with err. Later ones are of the first's making.
func (n *Node) fatal(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// SetCluster remembers which cluster this server belongs to. Another than
// before is ErrForeign.
func (n *Node) SetCluster(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := *n.cluster.Load(); old == id {
		return nil
	} else if old != "" {
		return foreign(n.config.DataDir, fmt.Sprintf("it belongs to cluster %s, and its log to %s", old, id))
	}
	if n.config.DataDir != "" {
		identity := n.config.Identity
		identity.Cluster = id
		if err := identity.write(n.config.DataDir); err != nil {
			return err
		}
	}
	n.cluster.Store(&id)
	return nil
}

func crc(s string) uint32 { return crc32.Checksum([]byte(s), castagnoli) }

const (
	// maxInFlight is how many messages of entries are under way to a server. With raft's 2, its channels hold none
	// beside: a leader that learns from one answer that its term is over, as one that was frozen
	// does, then sends into them for ever, and raft waits for that when it is shut down.
	maxInFlight = 130
	// maxPool is how many idle connections are kept to each server.
	maxPool = 3
	// transportTimeout bounds one exchange with another server; a snapshot gets more by its size.
	transportTimeout = 5 * time.Second
)
