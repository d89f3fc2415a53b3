// Package client runs executions on this node: it registers with the region's
// servers, keeps one session with their leader, starts what is assigned as
// space allows, keeps outputs and logs durably, and reports each result until
// it has been answered at a raft index. It decides nothing about a partition:
// that is the servers' log.
//
// The work is done by packages below it: session (the stream and its lease),
// execution (the pure state machine and the queue), worker (the loop that
// carries out what that decides), driver, sandbox (directories and variables), split,
// merge, results (of other runs, as inputs), manifest (shards read ahead), checkpoint (what a restart must know), fingerprint
// (what the node has), room (on its disk), serve (what others may read). This package wires them.
package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/client/fingerprint"
	"github.com/sheaf-run/agent/client/results"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/client/serve"
	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/client/worker"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Client is one node of a region.
type Client struct {
	cfg   Config
	id    sheaf.NodeID
	dir   string // the data directory
	own   bool   // dir is temporary, and ours to remove
	file  *checkpoint.File
	nodes serve.Nodes
	ran   atomic.Bool

	ready    chan struct{} // closed at the first welcome
	welcomed sync.Once
}

// New checks cfg, prepares the data directory and takes hold of it: until Run
// has ended, or [Client.Close], no other client can use it. It starts nothing.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, dir: cfg.DataDir, ready: make(chan struct{})}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "sheaf-client-*"); err != nil {
			return nil, fmt.Errorf("make a temporary data directory: %w", err)
		}
		c.own = true
	}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// open takes hold of the data directory and finds the node's identity in it.
func (c *Client) open() error {
	for _, d := range []string{"", "drivers"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o711); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	}
	damaged, file, err := checkpoint.Open(filepath.Join(c.dir, "client.db"))
	if damaged != nil {
		c.cfg.Logger.Error("checkpoint was damaged and is set aside: what ran before is looked for and ended", "error", damaged)
	}
	if err != nil {
		return err
	}
	c.file = file
	if err := c.clearScratch(); err != nil {
		return err
	}
	id, err := file.Value("node_id")
	if err != nil {
		return fmt.Errorf("read the node's identity: %w", err)
	}
	if id == "" {
		id = randomID()
		if err := file.SetValue("node_id", id); err != nil {
			return fmt.Errorf("keep the node's identity: %w", err)
		}
	}
	c.id = sheaf.NodeID(id)
	return nil
}

// scratch is where spools and the drivers' sockets are.
func (c *Client) scratch() string { return filepath.Join(c.dir, "tmp") }

// clearScratch removes what an agent that was killed left behind. The checkpoint is open by now: nobody else uses the directory.
func (c *Client) clearScratch() error {
	if err := os.RemoveAll(c.scratch()); err != nil {
		return fmt.Errorf("clear the directory of temporary files: %w", err)
	}
	if err := os.Mkdir(c.scratch(), 0o711); err != nil {
		return fmt.Errorf("make the directory of temporary files: %w", err)
	}
	return nil
}

// randomID is 16 hexadecimal digits: short enough to be read, and never twice.
func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Close lets go of the data directory of a client whose Run was never called.
// After Run it does nothing.
func (c *Client) Close() error {
	if c.ran.Load() {
		return nil
	}
	return c.release()
}

func (c *Client) release() error {
	var errs []error
	if c.file != nil {
		errs = append(errs, c.file.Close())
		c.file = nil
	}
	if c.own {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// ID is the node's identity: kept in the data directory, or made anew where that is
// temporary.
func (c *Client) ID() sheaf.NodeID { return c.id }

// Ready is closed once a leader has welcomed the node for the first time.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Nodes is the service that servers and other clients ask for logs, records,
// files and previews. The agent registers it on its RPC listener; before Run
// and after it every call answers Unavailable.
func (c *Client) Nodes() wire.NodesServer { return &c.nodes }

// Run is the client's life, and is called once. It returns when ctx has ended
// and everything is put down: programs and WASM are ended, containers go on and
// are re-attached by the next Run on the same data directory. An error is a failure of the
// node itself, such as a disk that fails to sync.
func (c *Client) Run(ctx context.Context) (err error) {
	if c.ran.Swap(true) {
		return &sheaf.Error{Class: sheaf.Internal, Msg: "the client was run already"}
	}
	defer func() { err = errors.Join(err, c.release()) }()
	st, err := store.Open(filepath.Join(c.dir, "store"), store.Options{Log: c.cfg.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	spaces, err := sandbox.OpenRoot(filepath.Join(c.dir, "work"))
	if err != nil {
		return err
	}
	fp, err := fingerprint.Measure(fingerprint.Options{DataDir: c.dir, Override: c.cfg.Resources, Reserve: c.cfg.Reserve, Extra: c.cfg.Attributes})
	if err != nil {
		return err
	}
	peers := newPeers(c.cfg)
	defer peers.close()
	chain := &results.Reader{Node: c.id, Peer: peers.node, Stores: st.Run}
	sources, kept, err := c.sources(chain)
	if err != nil {
		return err
	}
	keys := &datatoken.Keys{}
	w := worker.New(worker.Config{
		Place:     sandbox.Place{NodeID: c.id, NodeName: c.cfg.Name, Region: c.cfg.Region, Datacenter: c.cfg.Datacenter, Attributes: fp.Attributes},
		Resources: fp.Resources, Slots: c.cfg.Slots, Drivers: c.plugins(), DriverDir: filepath.Join(c.dir, "drivers"),
		Store: st, Checkpoint: c.file, Spaces: spaces, Secrets: secret.NewFiles(string(c.id)), Sources: sources, Places: c.places(), TempDir: c.scratch(), Held: kept.Held,
		Peer: peers.node, PeerAt: peers.at, Keys: keys, Logger: c.cfg.Logger,
	})
	h := &handler{Worker: w, client: c, fingerprint: fp}
	s := session.New(session.Config{Servers: c.cfg.Discovery.Servers, Dial: c.cfg.Dialer.Server, BootID: randomID(), Handler: h, Logger: c.cfg.Logger})
	w.Attach(s)
	chain.Leader = s.Leader

	c.nodes.Open(serve.Source{Store: st, Sources: sources, Follow: w.Follow, Keys: keys, Lacks: w.Lacks})
	defer c.nodes.Close()
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	g.Go(func() error {
		return w.Run(ctx, func(drivers []sheaf.NodeDriver) error {
			h.drivers = drivers
			close(ready)
			return nil
		})
	})
	g.Go(func() error {
		select {
		case <-ready:
			return s.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	keeper := c.room(st, kept, w)
	g.Go(func() error {
		_ = keeper.Run(ctx) // which ends only with ctx
		return nil
	})
	return g.Wait()
}

// plugins are the processes of the configured drivers.
func (c *Client) plugins() []plugin.Config {
	var list []plugin.Config
	for _, d := range c.cfg.Drivers {
		env := slices.Clone(d.Env)
		if d.Options != nil {
			env = append(env, plugin.Setting(d.Options))
		}
		list = append(list, plugin.Config{Name: d.Name, Command: d.Command, Env: env, SocketDir: c.scratch(), Checksum: d.Checksum, MTLS: d.Checksum != nil, Log: c.cfg.Logger})
	}
	return list
}
