package consensus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// heartbeatTimeout is when a follower stops believing in its leader, unless Config.Election says otherwise; a
	// leader without a quorum stops believing in itself a sixth earlier. A stalled scheduler on a
	// busy machine stays below them, and a new leader is found in about a second.
	heartbeatTimeout = 600 * time.Millisecond
	// maxAppendEntries doubles what many appliers at once get through (see the limits of raft on disk).
	maxAppendEntries = 512
	// snapshotAt is how many bytes of entries above the newest snapshot lead to the
	// next, unless that is larger itself: then as many as it has. Replaying them takes well below a second.
	snapshotAt = 16 << 20
	// trailingBytes of entries stay behind a snapshot, so that a follower
	// that was briefly away need not get the whole state.
	trailingBytes = 4 << 20
	// snapshotRetry is the pause after a snapshot that failed, as on a full disk.
	snapshotRetry = 10 * time.Second
	// leadRetry is the pause before the work of a term is begun again after it failed.
	leadRetry = time.Second
	// never is for raft's own timer of snapshots, which counts entries.
	never = 365 * 24 * time.Hour
)

func (n *Node) raftConfig(alone bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.config.Identity.Server)
	election := cmp.Or(n.config.Election, heartbeatTimeout)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = election, election, election*5/6
	c.MaxAppendEntries = maxAppendEntries
	c.BatchApplyCh = true
	c.SnapshotInterval, c.SnapshotThreshold = never, math.MaxUint64
	c.Logger = raftLogger(n.config.Logger, alone)
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false // a server that was removed says so, and may be taken in again
	return c
}

// foundAlone makes this server a cluster of one.
func (n *Node) foundAlone(t raft.Transport) error {
	err := raft.BootstrapCluster(n.raftConfig(true), n.store, n.store, n.snaps, t, raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.config.Identity.Server), Address: raft.ServerAddress(n.config.Address),
	}}})
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return nil
}

// found waits for the other founders and founds the cluster with them. A leader
// that was found meanwhile makes it needless.
func (n *Node) found(ctx context.Context, r *raft.Raft) error {
	founders, err := n.config.Founders(ctx)
	if err != nil {
		return fmt.Errorf("wait for the founding servers: %w", err)
	}
	var c raft.Configuration
	for _, p := range founders {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Address)})
	}
	err = r.BootstrapCluster(c).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) && !errors.Is(err, raft.ErrRaftShutdown) {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return nil
}

// lead runs Config.Lead for each term of this server's.
func (n *Node) lead(ctx context.Context, r *raft.Raft) error {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case leading := <-r.LeaderCh():
			stop()
			stop = func() {}
			if leading {
				stop = n.term(ctx, r)
			}
			n.Announce()
		case f := <-n.pauses:
			stop()
			stop = func() {}
			f()
			if r.State() == raft.Leader {
				stop = n.term(ctx, r)
			}
		}
	}
}

// term begins the work of a term and gives the function that ends it and waits.
func (n *Node) term(ctx context.Context, r *raft.Raft) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done, kept := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(kept)
		n.keepServers(ctx, r)
	}()
	go func() {
		defer close(done)
		for ctx.Err() == nil && r.State() == raft.Leader {
			err := n.leadOnce(ctx, r)
			if ctx.Err() != nil || r.State() != raft.Leader {
				return
			}
			n.config.Logger.Error("the leader's work failed and begins again", "error", err, "after", leadRetry)
			select {
			case <-ctx.Done():
			case <-time.After(leadRetry):
			}
		}
	}()
	return func() { cancel(); <-done; <-kept }
}

func (n *Node) leadOnce(ctx context.Context, r *raft.Raft) error {
	if err := n.Barrier(ctx); err != nil {
		return fmt.Errorf("apply what earlier terms committed: %w", err)
	}
	if n.config.Lead == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return n.config.Lead(ctx, r.CurrentTerm())
}

// keepSnapshots takes a snapshot whenever the log has grown by enough bytes.
func (n *Node) keepSnapshots(ctx context.Context, r *raft.Raft) error {
	n.noteGrowth()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.grown:
		}
		if !n.outgrown() { // it was said while the last snapshot was being taken
			continue
		}
		if err := n.snapshot(r); err != nil && ctx.Err() == nil {
			n.config.Logger.Error("take a snapshot of the state", "error", err, "retry", snapshotRetry)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(snapshotRetry):
			}
		}
		n.noteGrowth()
	}
}

func (n *Node) snapshot(r *raft.Raft) error {
	reloaded := r.ReloadableConfig()
	reloaded.TrailingLogs = n.store.countWithin(trailingBytes)
	if err := r.ReloadConfig(reloaded); err != nil {
		return fmt.Errorf("bound the trailing log: %w", err)
	}
	if err := r.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return err
	}
	return n.noteSnapshot()
}

// outgrown reports whether the log above the newest snapshot has reached its bound.
func (n *Node) outgrown() bool {
	return n.store.since(n.snapIndex.Load()) >= max(snapshotAt, n.snapBytes.Load())
}

// noteGrowth wakes keepSnapshots when the log has outgrown its bound.
func (n *Node) noteGrowth() {
	if !n.outgrown() {
		return
	}
	select {
	case n.grown <- struct{}{}:
	default:
	}
}

// observe announces changes of the leader.
func (n *Node) observe(ctx context.Context, r *raft.Raft) error {
	seen := make(chan raft.Observation, 16)
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	r.RegisterObserver(o)
	defer r.DeregisterObserver(o)
	n.Announce()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-seen:
			n.Announce()
		}
	}
}

// Announce wakes who waits for Changed.
func (n *Node) Announce() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Changed is closed when the leader changes, and by Announce. Take it before asking for the leader.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}
