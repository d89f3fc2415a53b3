package state

import (
	"slices"
	"time"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Masked reports whether pending and assigned partitions read as cancelled.
func (r *Run) Masked() bool { return r.Stop != StopNone }

// Held reports whether a person holds the run: nothing more of it is placed.
func (r *Run) Held() bool { return r.Adjusted.Held }

// Priority is the run's, as it now is.
func (r *Run) Priority() int {
	if r.Adjusted.Priority != 0 {
		return r.Adjusted.Priority
	}
	return r.Job.Priority
}

// Publishes reports whether the run's result, once sealed, is to be published: what a run that fails
// leaves is merged all the same, but nobody shall take it for the whole.
func (r *Run) Publishes() bool {
	c := r.Counts()
	return r.Job.Publish != nil && !r.Result.Published && r.Stop == StopNone && r.Reduce.Error == "" && c.Failed+c.Cancelled <= r.Job.Failure.Tolerate.Of(c.Total)
}

// Unpublished is the URL below which merges of the run may have left what is no part of its published
// result; empty where there can be nothing.
func (r *Run) Unpublished() string {
	if r.Job.Publish == nil || r.Merge.Fence == 0 || r.Merge.Fence == 1 && r.Result.Published {
		return ""
	}
	return r.Job.Publish.To
}

// Bound is how many executions of the run may be under way at once, where
// eligible nodes can take it; 0 is no bound.
func (r *Run) Bound(eligible int) int {
	p := r.Job.Parallelism
	switch {
	case r.Adjusted.Parallelism != nil:
		return *r.Adjusted.Parallelism
	case p == nil:
		return 0
	case p.Constant > 0:
		return p.Constant
	}
	return int(max(1, min(p.Coefficient*float64(eligible), sheaf.MaxPartitions)))
}

// BoundByNodes reports whether Bound depends on how many nodes can take the run.
func (r *Run) BoundByNodes() bool {
	return r.Adjusted.Parallelism == nil && r.Job.Parallelism != nil && r.Job.Parallelism.Constant == 0
}

// PartitionFor is the partition of an ops run that is for a node, -1 where there is none.
func (r *Run) PartitionFor(node uint32) int { return slices.Index(r.Nodes, node) }

// UnderWay is how many executions of its partitions are valid, backups included.
func (r *Run) UnderWay() int { return r.Counts().Assigned + r.Backups }

// Counts is how many partitions are in each state; they sum to Total. Running
// is always 0: clients report it, the log does not hold it.
func (r *Run) Counts() sheaf.PartitionCounts {
	if r.Partitions == nil {
		return sheaf.PartitionCounts{}
	}
	return r.counts(r.Partitions.Len(), r.Partitions.Counts())
}

// Counts is the same as of now, within the transaction.
func (r *RunTxn) Counts() sheaf.PartitionCounts {
	if r.edit == nil {
		return r.Run.Counts()
	}
	return r.counts(r.edit.Len(), r.edit.Counts())
}

func (r *Run) counts(n int, c table.Counts) sheaf.PartitionCounts {
	p := sheaf.PartitionCounts{
		Total:     n,
		Pending:   c[sheaf.PartitionPending],
		Assigned:  c[sheaf.PartitionAssigned],
		Running:   c[sheaf.PartitionRunning],
		Succeeded: c[sheaf.PartitionSucceeded],
		Failed:    c[sheaf.PartitionFailed],
		Cancelled: c[sheaf.PartitionCancelled],
		Reused:    c[sheaf.PartitionReused],
	}
	if r.Masked() {
		p.Cancelled += p.Pending + p.Assigned
		p.Pending, p.Assigned = 0, 0
	}
	return p
}

// Row is partition i as it stands, cancelled where the run's stop masks it.
func (r *Run) Row(i int) table.Row {
	row := r.Partitions.Row(i)
	if r.Masked() && !row.State.Terminal() {
		if row.State == sheaf.PartitionPending {
			row.StartedMs = 0
		}
		row.State = sheaf.PartitionCancelled
	}
	return row
}

// Ranges are the partitions in a state.
func (r *Run) Ranges(state sheaf.PartitionState) sheaf.Ranges { return r.RangesFrom(state, 0, 0) }

// RangesFrom are those from partition `from` on, in at most `most` ranges; 0 is any number.
func (r *Run) RangesFrom(state sheaf.PartitionState, from, most int) sheaf.Ranges {
	if r.Partitions == nil {
		return nil
	}
	set := table.Set(state)
	if r.Masked() {
		switch state {
		case sheaf.PartitionPending, sheaf.PartitionAssigned:
			return nil
		case sheaf.PartitionCancelled:
			set = table.Set(state, sheaf.PartitionPending, sheaf.PartitionAssigned)
		}
	}
	return r.Partitions.Ranges(set, from, most)
}

// Committed are the partitions that have an output, by an execution of their own or taken over, from partition
// `from` on, in at most `most` ranges; 0 is any number.
func (r *Run) Committed(from, most int) sheaf.Ranges {
	if r.Partitions == nil {
		return nil
	}
	return r.Partitions.Ranges(table.Set(sheaf.PartitionSucceeded, sheaf.PartitionReused), from, most)
}

// NodeCounts is what each node holds of the run's partitions, by node
// number; backups, split and merge are not in it. Where the run is masked, assigned
// ones are not valid any more. The slice must not be changed.
func (r *Run) NodeCounts() []table.NodeCount {
	if r.Partitions == nil {
		return nil
	}
	return r.Partitions.NodeCounts()
}

// OutputsOn is how many committed outputs and merged results lie on a node, but
// for those that are known to be lost.
func (r *Run) OutputsOn(node uint32) int {
	n := 0
	if r.Partitions != nil {
		n = int(r.Partitions.OnNode(node).Committed)
		for _, l := range r.Lost {
			for i := l.First; i <= l.Last && n > 0; i++ {
				if row := r.Partitions.Row(i); row.State == sheaf.PartitionSucceeded && row.Node == node {
					n--
				}
			}
		}
	}
	if r.Result.Sealed && r.Result.Node == node {
		n++
	}
	if r.Reduce.Done && r.Reduce.Node == node && !r.Reduce.Lost {
		n++
	}
	return n
}

// Unreached is how many committed outputs lie on nodes that are down, or are
// known to be lost.
func (s *Snapshot) Unreached(r *Run) int {
	lost := r.Lost.Len()
	for _, c := range r.NodeCounts() {
		if c.Committed == 0 {
			continue
		}
		if n := s.NodeByNumber(c.Node); n == nil || n.Status == sheaf.NodeDown {
			lost += int(c.Committed)
		}
	}
	for range s.UnreachedReused(r) {
		lost++
	}
	if s.reduceUnreached(r) {
		lost++
	}
	return lost
}

// reduceUnreached reports whether what the reduce made lies on a node that is down, or is known to be lost.
func (s *Snapshot) reduceUnreached(r *Run) bool {
	if !r.Reduce.Done {
		return false
	}
	n := s.NodeByNumber(r.Reduce.Node)
	return r.Reduce.Lost || n == nil || n.Status == sheaf.NodeDown
}

// Stub is the run as lists show it.
func (r *Run) Stub() sheaf.RunStub {
	return sheaf.RunStub{
		ID: r.ID, Name: r.Job.Name, Namespace: r.Job.Namespace, Priority: r.Priority(), Held: r.Held(),
		Status: r.Status, Generation: int(r.Generation), Partitions: r.Counts(), Error: r.Error,
		Submitted: at(r.SubmittedMs), Started: maybe(r.StartedMs), Ended: maybe(r.EndedMs),
	}
}

// Reduce is a run's reduce as the API shows it, nil where its job has none or it is yet to come.
func (s *Snapshot) Reduce(r *Run) *sheaf.Partition {
	e := &r.Reduce
	if r.Job.Reduce == nil || r.Partitions == nil || e.Fence == 0 && r.Status != sheaf.RunReducing {
		return nil
	}
	p := &sheaf.Partition{Index: r.Partitions.Len(), Attempt: e.Fence, Failures: int(e.Failures), Losses: int(e.Losses)}
	switch {
	case e.Done:
		p.State, p.Attempt, p.Output = sheaf.PartitionSucceeded, e.Attempt, e.Output.String()
	case e.Active:
		p.State = sheaf.PartitionAssigned
	case e.Error != "":
		p.State = sheaf.PartitionFailed
	case r.Status.Terminal():
		p.State = sheaf.PartitionCancelled
	}
	if n := s.NodeByNumber(e.Node); n != nil {
		p.Node = n.ID
	}
	if e.Failure != sheaf.FailNone {
		p.Reason = e.Failure.String()
	}
	if e.Started > 0 && !e.Active {
		code := int(e.ExitCode)
		p.ExitCode = &code
		p.Started, p.Ended = maybe(e.Started), maybe(e.Started+int64(e.DurationMs))
		p.CPUMs, p.PeakMem = int64(e.CPUMs), int64(e.PeakKiB)<<10
	}
	return p
}

// Partition is partition i as the API shows it, or the reduce where i is its number.
func (s *Snapshot) Partition(r *Run, i int) sheaf.Partition {
	if r.IsReduce(i) {
		if p := s.Reduce(r); p != nil {
			return *p
		}
		return sheaf.Partition{Index: i}
	}
	row := r.Row(i)
	var from *sheaf.MadeBy
	if row.State == sheaf.PartitionReused {
		if m, _ := s.Origin(r, i); m.Run != nil {
			row = m.Row
			row.State = sheaf.PartitionReused
			from = &sheaf.MadeBy{Run: m.Run.ID, Partition: m.Partition}
		}
	}
	p := sheaf.Partition{
		Index: i, State: row.State, Attempt: row.Fence, MadeBy: from,
		Failures: int(row.Failures), Losses: int(row.Losses),
		CPUMs: int64(row.CPUMs), PeakMem: int64(row.PeakKiB) << 10,
	}
	if row.State == sheaf.PartitionSucceeded || from != nil {
		p.Attempt = row.Attempt
	}
	if n := s.NodeByNumber(row.Node); n != nil {
		p.Node = n.ID
	}
	if row.ExitCode >= 0 {
		code := int(row.ExitCode)
		p.ExitCode = &code
	}
	if row.Failure != sheaf.FailNone {
		p.Reason = row.Failure.String()
	}
	if row.Output != (table.Digest{}) {
		p.Output = row.Output.String()
	}
	switch {
	case row.State == sheaf.PartitionPending && row.StartedMs > 0:
		p.Reason = "waits until " + at(row.StartedMs).UTC().Format(time.RFC3339) + " to be tried again"
	case row.State != sheaf.PartitionPending && row.StartedMs > 0:
		p.Started = maybe(row.StartedMs)
		if row.State.Terminal() {
			p.Ended = maybe(row.StartedMs + int64(row.DurationMs))
		}
	}
	return p
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func maybe(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := at(ms)
	return &t
}
