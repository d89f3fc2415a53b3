package state

import (
	"iter"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Txn is the change that one entry of the log makes. It belongs to one
// goroutine and ends with Commit or Abort. What it gives for writing is a copy; pointers
// into snapshots stay as they were.
type Txn struct {
	store *Store
	mem   *memdb.Txn
	meta  meta
	runs  map[sheaf.RunID]*RunTxn
	order []*RunTxn // the runs in the order of first use, so that nothing depends on a map's

	changes memdb.Changes // once committed, if tracked
}

// Begin starts the change made by the entry at index. Cluster time goes to
// timeMs unless it is there already.
func (s *Store) Begin(index uint64, timeMs int64) *Txn {
	t := &Txn{store: s, mem: s.db.Txn(true), meta: s.Snapshot().meta}
	t.meta.Index = index
	t.meta.TimeMs = max(t.meta.TimeMs, timeMs)
	return t
}

// Index is that of the entry.
func (t *Txn) Index() uint64 { return t.meta.Index }

// TimeMs is cluster time.
func (t *Txn) TimeMs() int64 { return t.meta.TimeMs }

// Cluster is the cluster's identity.
func (t *Txn) Cluster() Cluster { return t.meta.Cluster }

// SetCluster gives the cluster its identity.
func (t *Txn) SetCluster(c Cluster) { t.meta.Cluster = c }

// Chunks is where the bytes of manifests are.
func (t *Txn) Chunks() ChunkStore { return t.store.chunks }

// Abort drops the change. The entry still counts as applied: index and time move.
func (t *Txn) Abort() {
	t.mem.Abort()
	was := t.store.Snapshot()
	m := was.meta
	m.Index, m.TimeMs = t.meta.Index, t.meta.TimeMs
	t.store.now.Store(&Snapshot{db: was.db, meta: m, abandoned: was.abandoned})
}

// Commit makes the change the newest state and wakes those who watch.
func (t *Txn) Commit() {
	for _, r := range t.order {
		if changed := r.edit != nil && r.edit.Changed(); changed {
			r.Partitions = r.edit.Table()
		} else if !r.dirty {
			continue // what only repeats wakes nobody
		}
		r.Modified = t.meta.Index
		must(t.mem.Insert(tableRuns, r.Run))
		t.touchRun(r.Run)
	}
	t.changes = t.mem.Changes()
	t.mem.Commit()
	s := t.store
	s.now.Store(&Snapshot{db: s.db.Snapshot(), meta: t.meta, abandoned: s.Snapshot().abandoned})
}

// Run gives a run for writing, or nil. Asked again, it gives the same.
func (t *Txn) Run(id sheaf.RunID) *RunTxn {
	if r, ok := t.runs[id]; ok {
		return r
	}
	row, err := t.mem.First(tableRuns, byID, nameKey(id))
	must(err)
	old, _ := row.(*Run)
	if old == nil {
		return nil
	}
	c := *old
	c.digest = new(atomic.Uint64)
	return t.open(&c)
}

// InsertRun adds a run; its ID must be free.
func (t *Txn) InsertRun(r *Run) *RunTxn {
	r.digest = new(atomic.Uint64)
	r.Created = t.meta.Index
	x := t.open(r)
	x.dirty = true
	return x
}

func (t *Txn) open(r *Run) *RunTxn {
	if t.runs == nil {
		t.runs = map[sheaf.RunID]*RunTxn{}
	}
	x := &RunTxn{Run: r}
	t.runs[r.ID] = x
	t.order = append(t.order, x)
	return x
}

// LiveRuns are the IDs of the runs that are not over, the oldest first.
func (t *Txn) LiveRuns() []sheaf.RunID {
	it, err := t.mem.Get(tableRuns, byLive+"_prefix", []byte(nil))
	must(err)
	var ids []sheaf.RunID
	for row := it.Next(); row != nil; row = it.Next() {
		ids = append(ids, row.(*Run).ID)
	}
	return ids
}

// WaitingRuns are the IDs of the runs that waited for others before this entry, the
// oldest first.
func (t *Txn) WaitingRuns() []sheaf.RunID {
	it, err := t.mem.Get(tableRuns, byWaits+"_prefix", []byte(nil))
	must(err)
	var ids []sheaf.RunID
	for row := it.Next(); row != nil; row = it.Next() {
		ids = append(ids, row.(*Run).ID)
	}
	return ids
}

// LatestRun is the newest run of a job before this entry, for reading, or nil.
func (t *Txn) LatestRun(namespace, name string) *Run {
	row, err := t.mem.Last(tableRuns, byJob+"_prefix", jobKey(namespace, name))
	must(err)
	r, _ := row.(*Run)
	return r
}

// Peek is the run as it was before this entry, for reading, or nil.
func (t *Txn) Peek(id sheaf.RunID) *Run {
	row, err := t.mem.First(tableRuns, byID, nameKey(id))
	must(err)
	r, _ := row.(*Run)
	return r
}

// DeleteRun removes a run and puts the tombstone in its place.
func (t *Txn) DeleteRun(r *RunTxn, stone *Tombstone) {
	r.dirty, r.edit = false, nil
	for _, b := range t.Backups(r.ID) {
		must(t.mem.Delete(tableBackups, b))
	}
	must(t.mem.Delete(tableRuns, t.Peek(r.ID)))
	t.touchRun(r.Run)
	must(t.mem.Insert(tableTombstones, stone))
}

// Tombstone is that of a deleted run, or nil.
func (t *Txn) Tombstone(run sheaf.RunID) *Tombstone {
	row, err := t.mem.First(tableTombstones, byID, nameKey(run))
	must(err)
	x, _ := row.(*Tombstone)
	return x
}

// DeleteTombstone removes a tombstone.
func (t *Txn) DeleteTombstone(x *Tombstone) { must(t.mem.Delete(tableTombstones, x)) }

// Node is a node for reading, or nil.
func (t *Txn) Node(id sheaf.NodeID) *Node {
	row, err := t.mem.First(tableNodes, byID, nameKey(id))
	must(err)
	n, _ := row.(*Node)
	return n
}

// NodeByNumber is a node for reading, or nil.
func (t *Txn) NodeByNumber(number uint32) *Node {
	row, err := t.mem.First(tableNodes, byNumber, numberKey(number))
	must(err)
	n, _ := row.(*Node)
	return n
}

// Nodes are all nodes by ID, for reading.
func (t *Txn) Nodes() []*Node {
	it, err := t.mem.Get(tableNodes, byID+"_prefix", []byte(nil))
	must(err)
	var nodes []*Node
	for row := it.Next(); row != nil; row = it.Next() {
		nodes = append(nodes, row.(*Node))
	}
	return nodes
}

// PutNode stores n, which must not be changed from here on. A new node gets its number.
func (t *Txn) PutNode(n *Node) {
	if n.Number == 0 {
		t.meta.Nodes++
		n.Number = t.meta.Nodes
	}
	n.Modified = t.meta.Index
	must(t.mem.Insert(tableNodes, n))
	t.touch(touchedNodes)
}

// DeleteNode forgets a node. Its number is not given again.
func (t *Txn) DeleteNode(n *Node) {
	must(t.mem.Delete(tableNodes, n))
	t.touch(touchedNodes)
}

// Runs are all runs by ID, as they were before this entry, for reading.
func (t *Txn) Runs() iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		it, err := t.mem.Get(tableRuns, byID+"_prefix", []byte(nil))
		must(err)
		for row := it.Next(); row != nil && yield(row.(*Run)); row = it.Next() {
		}
	}
}

// Backup is the second valid attempt at a partition, or nil.
func (t *Txn) Backup(run sheaf.RunID, partition uint32) *Backup {
	row, err := t.mem.First(tableBackups, byID, backupKey(run, partition))
	must(err)
	b, _ := row.(*Backup)
	return b
}

// Backups are a run's, by partition.
func (t *Txn) Backups(run sheaf.RunID) []*Backup {
	it, err := t.mem.Get(tableBackups, byID+"_prefix", nameKey(run))
	must(err)
	var all []*Backup
	for row := it.Next(); row != nil; row = it.Next() {
		all = append(all, row.(*Backup))
	}
	return all
}

// PutBackup stores b, which must not be changed from here on.
func (t *Txn) PutBackup(r *RunTxn, b *Backup) {
	r.Change().Backups++
	must(t.mem.Insert(tableBackups, b))
}

// DeleteBackup removes a backup of r.
func (t *Txn) DeleteBackup(r *RunTxn, b *Backup) {
	r.Change().Backups--
	must(t.mem.Delete(tableBackups, b))
}

// RunTxn is a run within a Txn. Its fields may be read; Change gives them for writing.
type RunTxn struct {
	*Run
	edit   *table.Edit
	dirty  bool
	errors bool // Errors is our own copy
}

// Change gives the row for writing.
func (r *RunTxn) Change() *Run {
	r.dirty = true
	return r.Run
}

// Table gives the partitions for reading and writing. Run.Partitions is as
// old as the transaction until it commits.
func (r *RunTxn) Table() *table.Edit {
	if r.edit == nil {
		r.edit = r.Partitions.Edit()
	}
	return r.edit
}

// UnderWay is the same as of now, within the transaction.
func (r *RunTxn) UnderWay() int { return r.Counts().Assigned + r.Backups }
