package state

import (
	"iter"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/sheaf"
)

// Snapshot is the state after one entry of the log. It never changes.
type Snapshot struct {
	db        *memdb.MemDB
	meta      meta
	abandoned chan struct{}
}

// Index is the raft index of the last entry applied.
func (s *Snapshot) Index() uint64 { return s.meta.Index }

// TimeMs is cluster time, Unix milliseconds.
func (s *Snapshot) TimeMs() int64 { return s.meta.TimeMs }

// Cluster is the cluster's identity; its ID is empty before Bootstrap.
func (s *Snapshot) Cluster() Cluster { return s.meta.Cluster }

// Abandoned is closed when a snapshot from elsewhere replaces the whole
// state: watches got from before do not fire any more.
func (s *Snapshot) Abandoned() <-chan struct{} { return s.abandoned }

// Run is the run with that ID, or nil.
func (s *Snapshot) Run(id sheaf.RunID) *Run { return first[*Run](s, tableRuns, byID, nameKey(id)) }

// WatchRun is Run, with a channel that is closed when the run or one of its
// partitions changes, or appears.
func (s *Snapshot) WatchRun(id sheaf.RunID) (*Run, <-chan struct{}) {
	ch, row, err := s.db.Txn(false).FirstWatch(tableRuns, byID, nameKey(id))
	must(err)
	r, _ := row.(*Run)
	return r, ch
}

// Runs are all runs by ID.
func (s *Snapshot) Runs() iter.Seq[*Run] { return scan[*Run](s, tableRuns, byID, nil) }

// RunsWithPrefix are the runs whose ID begins with prefix, by ID.
func (s *Snapshot) RunsWithPrefix(prefix string) iter.Seq[*Run] {
	return scan[*Run](s, tableRuns, byID, []byte(prefix))
}

// RunsOfJob are the runs of a job, the oldest first.
func (s *Snapshot) RunsOfJob(namespace, name string) iter.Seq[*Run] {
	return scan[*Run](s, tableRuns, byJob, jobKey(namespace, name))
}

// LatestRun is the newest run of a job, or nil.
func (s *Snapshot) LatestRun(namespace, name string) *Run {
	row, err := s.db.Txn(false).Last(tableRuns, byJob+"_prefix", jobKey(namespace, name))
	must(err)
	r, _ := row.(*Run)
	return r
}

// LiveRuns are the runs that are not over, the oldest first.
func (s *Snapshot) LiveRuns() iter.Seq[*Run] { return scan[*Run](s, tableRuns, byLive, nil) }

// Node is the node with that ID, or nil.
func (s *Snapshot) Node(id sheaf.NodeID) *Node {
	return first[*Node](s, tableNodes, byID, nameKey(id))
}

// NodeByNumber is the node that columns name so, or nil.
func (s *Snapshot) NodeByNumber(n uint32) *Node {
	return first[*Node](s, tableNodes, byNumber, numberKey(n))
}

// Nodes are all nodes by ID, those that are down included.
func (s *Snapshot) Nodes() iter.Seq[*Node] { return scan[*Node](s, tableNodes, byID, nil) }

// Backup is the second valid attempt at a partition, or nil.
func (s *Snapshot) Backup(run sheaf.RunID, partition int) *Backup {
	return first[*Backup](s, tableBackups, byID, backupKey(run, uint32(partition)))
}

// Backups are a run's, by partition.
func (s *Snapshot) Backups(run sheaf.RunID) iter.Seq[*Backup] {
	return scan[*Backup](s, tableBackups, byID, nameKey(run))
}

// Tombstone is that of a deleted run, or nil.
func (s *Snapshot) Tombstone(run sheaf.RunID) *Tombstone {
	return first[*Tombstone](s, tableTombstones, byID, nameKey(run))
}

// Tombstones are those of all deleted runs that are not reaped, by ID.
func (s *Snapshot) Tombstones() iter.Seq[*Tombstone] {
	return scan[*Tombstone](s, tableTombstones, byID, nil)
}

// NextDeadlineMs is the earliest cluster time at which AdvanceTime would end
// a run; 0 is never.
func (s *Snapshot) NextDeadlineMs() int64 {
	var next int64
	for r := range s.LiveRuns() {
		if r.DeadlineMs > 0 && r.Stop == StopNone && (next == 0 || r.DeadlineMs < next) {
			next = r.DeadlineMs
		}
	}
	return next
}

func (s *Snapshot) watch(table string) <-chan struct{} {
	it, err := s.db.Txn(false).Get(table, byID+"_prefix", []byte(nil))
	must(err)
	return it.WatchCh()
}

func first[T any](s *Snapshot, table, index string, key []byte) T {
	row, err := s.db.Txn(false).First(table, index, key)
	must(err)
	t, _ := row.(T)
	return t
}

func scan[T any](s *Snapshot, table, index string, prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it, err := s.db.Txn(false).Get(table, index+"_prefix", prefix)
		must(err)
		for row := it.Next(); row != nil; row = it.Next() {
			if !yield(row.(T)) {
				return
			}
		}
	}
}

// must is for errors of go-memdb that only a wrong table or index name makes.
func must(err error) {
	if err != nil {
		panic("state: " + err.Error())
	}
}
