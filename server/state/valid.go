package state

import (
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Ready are at most limit pending partitions that may be placed at cluster
// time nowMs, from partition `from` on.
func (r *Run) Ready(nowMs int64, from, limit int) sheaf.Ranges {
	if r.Partitions == nil || r.Masked() || r.Status.Terminal() || r.Reuse.Waits {
		return nil
	}
	return r.Partitions.Ready(nowMs, from, limit)
}

// Need is what the run waits for the scheduler to place at cluster time nowMs.
func (r *Run) Need(nowMs int64) Need {
	var n Need
	switch {
	case r.Held() || len(r.Waits) > 0:
	case r.Status == sheaf.RunMerging:
		n.Merge, n.NextMs = r.Merge.need(nowMs)
	case r.Status == sheaf.RunReducing:
		n.Reduce, n.NextMs = r.Reduce.need(nowMs)
	case r.Status.Terminal() || r.Masked() || r.Reuse.Waits:
	case r.Partitions == nil:
		n.Split, n.NextMs = r.Split.need(nowMs)
	default:
		n.Ready, n.NextMs = r.Partitions.Waiting(nowMs)
	}
	return n
}

func (e Exec) need(nowMs int64) (now bool, nextMs int64) {
	if !e.Active && !e.Done && e.NotBeforeMs > nowMs {
		return false, e.NotBeforeMs
	}
	return e.Ready(nowMs), 0
}

// AssignedOn is how many executions of the run are valid on a node, the
// split, the merge, the reduce and backups included.
func (s *Snapshot) AssignedOn(r *Run, node uint32) int {
	n := 0
	if r.Split.Active && r.Split.Node == node {
		n++
	}
	if r.Merge.Active && r.Merge.Node == node {
		n++
	}
	if r.Reduce.Active && r.Reduce.Node == node {
		n++
	}
	if r.Partitions == nil || r.Masked() {
		return n
	}
	n += int(r.Partitions.OnNode(node).Assigned)
	if r.Backups > 0 {
		for b := range s.Backups(r.ID) {
			if b.Node == node {
				n++
			}
		}
	}
	return n
}

// ValidOn are the executions of a run that are valid on a node, each with
// its attempt: at most one message for each kind, by partition.
func (s *Snapshot) ValidOn(r *Run, node uint32) []*wire.Executions {
	var all []*wire.Executions
	for _, x := range []struct {
		kind wire.Kind
		exec Exec
	}{{wire.Kind_KIND_SPLIT, r.Split}, {wire.Kind_KIND_MERGE, r.Merge}, {wire.Kind_KIND_REDUCE, r.Reduce.Exec}} {
		if x.exec.Active && x.exec.Node == node {
			all = append(all, One(r, x.kind, x.exec.Attempt))
		}
	}
	if r.Partitions == nil || r.Masked() {
		return all
	}
	e := &wire.Executions{Run: string(r.ID), Generation: r.Generation}
	type pair struct {
		partition int
		attempt   uint32
	}
	var backups []pair
	if r.Backups > 0 {
		for b := range s.Backups(r.ID) {
			if b.Node == node {
				backups = append(backups, pair{int(b.Partition), b.Attempt})
			}
		}
	}
	for i, row := range r.Partitions.Held(sheaf.PartitionAssigned, node) {
		for len(backups) > 0 && backups[0].partition < i {
			AppendExecution(e, backups[0].partition, backups[0].attempt)
			backups = backups[1:]
		}
		AppendExecution(e, i, row.Attempt)
	}
	for _, b := range backups {
		AppendExecution(e, b.partition, b.attempt)
	}
	if len(e.First) > 0 {
		all = append(all, e)
	}
	return all
}

// Valid reports whether an attempt on a node may still commit.
func (s *Snapshot) Valid(r *Run, kind wire.Kind, partition int, attempt uint32, node uint32) bool {
	switch kind {
	case wire.Kind_KIND_SPLIT:
		return r.Split.Valid(attempt, node)
	case wire.Kind_KIND_MERGE:
		return r.Merge.Valid(attempt, node)
	case wire.Kind_KIND_REDUCE:
		return r.Reduce.Valid(attempt, node)
	}
	if r.Partitions == nil || r.Masked() || partition < 0 || partition >= r.Partitions.Len() {
		return false
	}
	row := r.Partitions.Row(partition)
	if row.State != sheaf.PartitionAssigned {
		return false
	}
	if row.Attempt == attempt && row.Node == node {
		return true
	}
	if r.Backups == 0 {
		return false
	}
	b := s.Backup(r.ID, partition)
	return b != nil && b.Attempt == attempt && b.Node == node
}

// One names a single execution of a run's split, merge or reduce.
func One(r *Run, kind wire.Kind, attempt uint32) *wire.Executions {
	first := uint32(0)
	if kind == wire.Kind_KIND_REDUCE {
		first = uint32(r.Partitions.Len())
	}
	return &wire.Executions{Run: string(r.ID), Generation: r.Generation, Kind: kind,
		First: []uint32{first}, Count: []uint32{1}, Attempt: []uint32{attempt}}
}

// IsReduce reports whether a partition's number is the one under which what the run's reduce makes is kept.
func (r *Run) IsReduce(partition int) bool {
	return r.Job.Reduce != nil && r.Partitions != nil && partition == r.Partitions.Len()
}

// AppendExecution adds a partition to e, which must come after those in it,
// growing the last range where it can.
func AppendExecution(e *wire.Executions, partition int, attempt uint32) {
	if n := len(e.First) - 1; n >= 0 && e.Attempt[n] == attempt && e.First[n]+e.Count[n] == uint32(partition) {
		e.Count[n]++
		return
	}
	e.First = append(e.First, uint32(partition))
	e.Count = append(e.Count, 1)
	e.Attempt = append(e.Attempt, attempt)
}

// PrepareBlocked reports whether the run may not be placed on a node at
// cluster time nowMs, since preparing it there failed, and why.
func (r *Run) PrepareBlocked(node uint32, nowMs int64) (why string, blocked bool) {
	i, ok := slices.BinarySearchFunc(r.Prepare, node, func(m PrepareMark, n uint32) int {
		return int(int64(m.Node) - int64(n))
	})
	if !ok {
		return "", false
	}
	m := r.Prepare[i]
	switch {
	case m.Exhausted:
		return fmt.Sprintf("preparing it failed %d times: %s", m.Tries, m.Error), true
	case nowMs < m.NotBeforeMs:
		return "preparing it failed, and is tried again: " + m.Error, true
	}
	return "", false
}

// HasOutputs reports whether anything committed is to be merged.
func (r *RunTxn) HasOutputs() bool {
	return len(r.Job.Outputs) > 0 && r.Table().Counts()[sheaf.PartitionSucceeded]+r.Table().Counts()[sheaf.PartitionReused] > 0
}
