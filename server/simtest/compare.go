package simtest

import (
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// begunAgain takes note of partitions that a retry or an invalidation made pending.
func (o *oracle) begunAgain(before, after *state.Run) {
	r := o.runs[string(after.ID)]
	r.merge.committed, r.merge.valid, r.merge.losses = 0, nil, 0
	if before.Partitions == nil {
		r.split.losses, r.split.committed = 0, 0
		return
	}
	for i := range after.Partitions.Len() {
		was, is, s := before.Row(i), after.Partitions.Row(i), &r.parts[i]
		if (was.State == sheaf.PartitionSucceeded || was.State == sheaf.PartitionReused) && is.Generation != was.Generation {
			s.committed, s.adopted = 0, false
			s.redone++
			s.failures, s.losses = 0, 0
			continue
		}
		if is.State != sheaf.PartitionPending || was.State == sheaf.PartitionPending || before.Generation == after.Generation {
			continue
		}
		s.failures, s.losses = 0, 0
	}
}

// compare holds a run that has changed against the book.
func (o *oracle) compare(before, after *state.Snapshot, run *state.Run) {
	w := o.w
	r := o.runs[string(run.ID)]
	if r == nil {
		r = &shadowRun{}
		o.runs[string(run.ID)] = r
	}
	was := before.Run(run.ID)
	if run.Masked() || run.Status.Terminal() {
		o.history.masked(run, was)
		for i := range r.parts {
			r.parts[i].valid = nil
			if was != nil && !was.Masked() { // the stop came before the command could end all
				r.parts[i].losses = int(run.Partitions.Row(i).Losses)
			}
		}
		r.split.valid = nil
		if run.Status.Terminal() {
			r.merge.valid, r.reduce.valid = nil, nil
		}
	}
	if run.Status == sheaf.RunRunning {
		r.merge.valid = nil // what was merging is not any more
	}
	if was != nil && was.Reduce.Done && !run.Reduce.Done { // what it read, or made, is given up
		r.reduce.committed = 0
		r.reduce.redone++
	}
	if was != nil && was.Reduce.Active && !run.Reduce.Active {
		r.reduce.valid = nil
	}
	if run.Reduce.Done != (r.reduce.committed != 0) || run.Reduce.Done && run.Reduce.Attempt != r.reduce.committed {
		w.fail("the reduce of %s is %+v; committed is %d", run.ID, run.Reduce, r.reduce.committed)
	}
	o.compareExec(run, "reduce", &r.reduce, run.Reduce.Exec)
	o.compareExec(run, "split", &r.split, run.Split)
	o.compareExec(run, "merge", &r.merge, run.Merge)
	o.compareLife(was, run)
	o.holds(after, run)
	w.bucket.compare(run)
	if run.Partitions == nil {
		return
	}
	if r.parts == nil {
		r.parts = make([]shadow, run.Partitions.Len())
	}
	var counts table.Counts
	held := map[uint32]table.NodeCount{}
	backups := 0
	for i := range run.Partitions.Len() {
		row := run.Partitions.Row(i)
		counts[run.Row(i).State]++
		h := held[row.Node]
		switch row.State {
		case sheaf.PartitionAssigned:
			h.Assigned++
		case sheaf.PartitionSucceeded:
			h.Committed++
		}
		held[row.Node] = h
		backups += o.compareRow(after, run, i, row, &r.parts[i])
		if was != nil && was.Partitions != nil {
			old := was.Partitions.Row(i)
			if old.State.Terminal() && old.State != row.State && run.Generation == was.Generation && old.Generation == row.Generation {
				w.fail("partition %d of %s goes from %v to %v within a generation", i, run.ID, old.State, row.State)
			}
			if row.Fence < old.Fence {
				w.fail("the attempt of partition %d of %s goes back from %d to %d", i, run.ID, old.Fence, row.Fence)
			}
		}
	}
	c := run.Counts()
	if c != asCounts(run.Partitions.Len(), counts) {
		w.fail("the counts of %s are %+v; counted one by one: %v", run.ID, c, counts)
	}
	if c.Pending+c.Assigned+c.Running+c.Succeeded+c.Failed+c.Cancelled+c.Reused != c.Total {
		w.fail("the counts of %s do not sum to their total: %+v", run.ID, c)
	}
	if backups != run.Backups {
		w.fail("run %s counts %d backups and has %d", run.ID, run.Backups, backups)
	}
	for _, n := range run.NodeCounts() {
		if h := held[n.Node]; h.Assigned != n.Assigned || h.Committed != n.Committed {
			w.fail("node %d holds %+v of run %s; counted one by one: %+v", n.Node, n, run.ID, h)
		}
	}
}

func asCounts(n int, c table.Counts) sheaf.PartitionCounts {
	return sheaf.PartitionCounts{Total: n, Pending: c[0], Assigned: c[1], Running: c[2], Succeeded: c[3], Failed: c[4], Cancelled: c[5], Reused: c[6]}
}

// compareRow holds one partition against the book, and says how many backups it has.
func (o *oracle) compareRow(after *state.Snapshot, run *state.Run, i int, row table.Row, s *shadow) int {
	w := o.w
	if row.Fence != s.fence {
		w.fail("partition %d of %s has attempt %d, placed were %d", i, run.ID, row.Fence, s.fence)
	}
	if int(row.Failures) != s.failures {
		w.fail("partition %d of %s has %d failures; %d different ones were reported", i, run.ID, row.Failures, s.failures)
	}
	if int(row.Losses) != s.losses {
		w.fail("partition %d of %s has %d losses, not %d", i, run.ID, row.Losses, s.losses)
	}
	if row.State == sheaf.PartitionSucceeded != (s.committed != 0) || s.committed != 0 && row.Attempt != s.committed {
		w.fail("partition %d of %s is %v by attempt %d; committed is %d", i, run.ID, row.State, row.Attempt, s.committed)
	}
	if row.State == sheaf.PartitionReused != s.adopted {
		w.fail("partition %d of %s is %v, by the book %+v", i, run.ID, row.State, s)
	}
	if run.Masked() {
		return 0
	}
	var valid []placed
	backups := 0
	if row.State == sheaf.PartitionAssigned {
		valid = append(valid, placed{row.Attempt, string(after.NodeByNumber(row.Node).ID)})
		if b := after.Backup(run.ID, i); b != nil {
			valid = append(valid, placed{b.Attempt, string(after.NodeByNumber(b.Node).ID)})
			backups++
		}
	}
	if len(valid) != len(s.valid) || slices.ContainsFunc(valid, func(p placed) bool { return !slices.Contains(s.valid, p) }) {
		w.fail("partition %d of %s: valid are %v, by the book %v", i, run.ID, valid, s.valid)
	}
	if row.State == sheaf.PartitionPending && (int(row.Failures) >= run.Job.Retry.Attempts || row.Losses >= 5) {
		w.fail("partition %d of %s is pending with %d failures and %d losses", i, run.ID, row.Failures, row.Losses)
	}
	return backups
}

func (o *oracle) compareExec(run *state.Run, what string, s *shadow, e state.Exec) {
	if e.Fence != s.fence || e.Active != (len(s.valid) == 1) || e.Active && e.Attempt != s.valid[0].attempt {
		o.w.fail("the %s of %s is %+v; by the book attempt %d, valid %v", what, run.ID, e, s.fence, s.valid)
	}
}

// compareLife: what is terminal stays so, and the verdict is what the job asks for.
func (o *oracle) compareLife(was, run *state.Run) {
	w := o.w
	if was != nil && was.Status.Terminal() && was.Generation == run.Generation {
		if was.Status != run.Status || was.Result != run.Result || was.Counts() != run.Counts() || was.EndedMs != run.EndedMs {
			w.fail("run %s was %s and changes: %+v to %+v", run.ID, was.Status, was.Stub(), run.Stub())
		}
	}
	c := run.Counts()
	switch run.Status {
	case sheaf.RunSucceeded:
		o.succeeded[string(run.ID)] = true
		if c.Pending+c.Assigned > 0 || c.Failed+c.Cancelled > run.Job.Failure.Tolerate.Of(c.Total) {
			w.fail("run %s has succeeded with %+v", run.ID, c)
		}
		if len(run.Job.Outputs) > 0 && c.Succeeded+c.Reused > 0 && !run.Result.Sealed {
			w.fail("run %s has succeeded unmerged", run.ID)
		}
		if run.Job.Reduce != nil && run.Result.Sealed && !run.Reduce.Done {
			w.fail("run %s has succeeded unreduced", run.ID)
		}
	case sheaf.RunFailed:
		if run.Error == "" {
			w.fail("run %s has failed and does not say why", run.ID)
		}
	case sheaf.RunMerging, sheaf.RunReducing:
		if c.Pending+c.Assigned > 0 {
			w.fail("run %s merges with %+v", run.ID, c)
		}
		if run.Status == sheaf.RunReducing && (run.Job.Reduce == nil || run.Reduce.Done || run.Merge.Active) {
			w.fail("run %s is reducing with %+v and merge %+v", run.ID, run.Reduce, run.Merge)
		}
	}
}

// final holds what is left against the book: nothing acknowledged is missing, and
// what is committed is where it is said to be.
func (o *oracle) final() {
	w, snap := o.w, o.w.snap()
	for _, r := range w.user.runs {
		if r.known && !r.deleted && snap.Run(sheaf.RunID(r.id)) == nil {
			w.fail("run %s was acknowledged and is gone", r.id)
		}
	}
	for run := range snap.Runs() {
		if run.Partitions == nil {
			continue
		}
		o.holds(snap, run)
		for i, row := range run.Partitions.In(sheaf.PartitionSucceeded) {
			c := w.client(snap.NodeByNumber(row.Node).ID)
			x := execution{string(run.ID), wire.Kind_KIND_PARTITION, uint32(i), row.Attempt}
			if row.Output != table.Digest(nonce(x, c.id)) && row.Output != (table.Digest{}) {
				w.fail("%v is committed with the output of another", x)
			}
			if row.Output != (table.Digest{}) && !c.outputs[x] && !c.wiped[x] {
				w.fail("%v is committed on %s, which has deleted it", x, c.id)
			}
		}
		if e := run.Reduce; e.Done {
			w.out.Reduces++
			c := w.client(snap.NodeByNumber(e.Node).ID)
			x := execution{string(run.ID), wire.Kind_KIND_REDUCE, uint32(run.Partitions.Len()), e.Attempt}
			if e.Output != (table.Digest{}) && (e.Output != table.Digest(nonce(x, c.id)) || !c.outputs[x] && !c.wiped[x]) {
				w.fail("%v is committed with the output of another, or %s has deleted it", x, c.id)
			}
		}
		if run.Job.Splits() {
			o.manifest(run)
		}
	}
}

// manifest: the stored chunks are those of the attempt that sealed it.
func (o *oracle) manifest(run *state.Run) {
	if !run.Manifest.Sealed {
		return
	}
	for i, want := range chunksOf(string(run.ID), run.Manifest.Attempt, run.Partitions.Len()) {
		got, err := o.w.store().Chunk(run, i)
		if err != nil || string(got) != string(want.Data) {
			o.w.fail("chunk %d of %s is %q (%v), not %q", i, run.ID, got, err, want.Data)
		}
	}
}
