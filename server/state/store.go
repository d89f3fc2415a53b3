// Package state is what the replicated log has decided: runs, nodes, backups,
// tombstones and the cluster itself. It owns how they are kept, read, watched, compared
// and written to snapshots; package fsm alone decides what changes.
//
// A [Snapshot] never changes and may be read by any number of goroutines
// without a lock. One [Txn] writes at a time; its changes are seen all at once, by
// snapshots taken after its Commit. Small tables are go-memdb's, and so are
// watches; the partitions of a run are a table.Table that its row points to.
package state

import (
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/sheaf"
)

// Cluster is what the first entry of the log says of the cluster.
type Cluster struct {
	ID     string `json:"id"`
	Region string `json:"region"`
}

// meta is what a snapshot has one of.
type meta struct {
	Index   uint64  `json:"index"` // of the last entry applied
	TimeMs  int64   `json:"time"`  // cluster time, Unix ms
	Cluster Cluster `json:"cluster"`
	Nodes   uint32  `json:"nodes"` // highest node number given

	Operator *Operator `json:"operator,omitempty"` // nil until set
	// ACLBootstrap is the index at which the first management token was made; 0 before.
	ACLBootstrap uint64 `json:"aclBootstrap,omitempty"`
}

// Store holds the newest state. The zero value is not usable; see [New].
type Store struct {
	chunks ChunkStore
	db     *memdb.MemDB // replaced by Restore
	now    atomic.Pointer[Snapshot]
}

// New makes an empty store whose manifest chunks lie in chunks.
func New(chunks ChunkStore) *Store {
	s := &Store{chunks: chunks}
	s.reset(newDB(), meta{})
	return s
}

// Snapshot is the newest state.
func (s *Store) Snapshot() *Snapshot { return s.now.Load() }

// Chunks is where the bytes of manifests are.
func (s *Store) Chunks() ChunkStore { return s.chunks }

// reset makes db the state, and tells readers of what was before to look again.
func (s *Store) reset(db *memdb.MemDB, m meta) {
	s.db = db
	mem := db.Txn(true)
	must(mem.Insert(tableTouched, &touched{touchedSince, max(m.Index, 1)}))
	mem.Commit()
	old := s.now.Swap(&Snapshot{db: db.Snapshot(), meta: m, abandoned: make(chan struct{})})
	if old != nil {
		close(old.abandoned)
	}
}

// Tombstone stands for a deleted run until its outputs are gone.
type Tombstone struct {
	// Unpublished is a URL below which merges of the run may have left what is no part
	// of its published result; empty where nothing is.
	Unpublished string `json:"unpublished,omitempty"`

	Run       sheaf.RunID `json:"run"`
	DeletedMs int64       `json:"deleted"` // cluster time
}

// Backup is the second valid attempt of an assigned partition.
type Backup struct {
	Run       sheaf.RunID `json:"run"`
	Partition uint32      `json:"partition"`
	Attempt   uint32      `json:"attempt"`
	Node      uint32      `json:"node"`
}
