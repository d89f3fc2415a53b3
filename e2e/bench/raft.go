package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	raftEntry  = 1 << 10 // bytes
	raftAtOnce = 64
)

// nothing is a state machine that keeps nothing.
type nothing struct{}

func (nothing) Apply(*raft.Log) any { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("there is nothing to keep")
}
func (nothing) Restore(r io.ReadCloser) error { return r.Close() }

// rawRaft is how many entries of 1 KiB a lone voter of hashicorp/raft commits to disk in a second, 64 asked for at
// once, in this process and for nothing.
func (b *bench) rawRaft(ctx context.Context) (rate float64, err error) {
	dir, err := os.MkdirTemp(b.root, "raft-")
	if err != nil {
		return 0, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "log"))
	if err != nil {
		return 0, fmt.Errorf("make raft's log: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	config := raft.DefaultConfig()
	config.LocalID, config.LogOutput, config.MaxAppendEntries = "bare", io.Discard, 512
	config.SnapshotThreshold = 1 << 40
	address, transport := raft.NewInmemTransport("")
	snapshots := raft.NewDiscardSnapshotStore()
	if err := raft.BootstrapCluster(config, store, store, snapshots, transport, raft.Configuration{Servers: []raft.Server{{ID: config.LocalID, Address: address}}}); err != nil {
		return 0, fmt.Errorf("begin raft: %w", err)
	}
	node, err := raft.NewRaft(config, nothing{}, store, store, snapshots, transport)
	if err != nil {
		return 0, fmt.Errorf("begin raft: %w", err)
	}
	defer func() { err = errors.Join(err, node.Shutdown().Error()) }()
	select {
	case <-node.LeaderCh():
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	var entries atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, raftAtOnce)
	entry, began := make([]byte, raftEntry), time.Now()
	for range raftAtOnce {
		all.Go(func() {
			for time.Since(began) < rawFor {
				if err := node.Apply(entry, partTimeout).Error(); err != nil {
					errs <- fmt.Errorf("commit to raft: %w", err)
					return
				}
				entries.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	close(errs)
	return float64(entries.Load()) / took.Seconds(), <-errs
}
