package state

import (
	"testing"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// TestUnchanged: which earlier run's result is that of a run whose partitions were all taken over.
func TestUnchanged(t *testing.T) {
	const n = 300
	outputs := func(merge string) []sheaf.Output {
		return []sheaf.Output{{Name: "o", Path: "/o", Merge: merge, OnConflict: sheaf.ConflictError}}
	}
	whole := []Taken{{First: 0, Count: n, Maker: 0, MadeAs: 0}}
	mixed := []Taken{{First: 10, Count: 90, Maker: 0, MadeAs: 10}, {First: 100, Count: 50, Maker: 0, MadeAs: 120}}
	for name, c := range map[string]struct {
		first  func(r *Run) // the run that made all, "first"
		second func(r *Run) // another in between, if set; it made what it has not taken over
		node   sheaf.NodeStatus
		last   func(r *Run) // the run asked about
		want   sheaf.RunID
	}{
		"the run that made all":                {want: "first"},
		"one that took over all as well":       {second: func(r *Run) { r.Reuse = Reuse{Makers: []sheaf.RunID{"first"}, Taken: whole} }, want: "second"},
		"one that made all, and nobody has it": {second: func(*Run) {}, want: "first"},
		"one that took over some, as the last": {
			second: func(r *Run) { r.Reuse = Reuse{Makers: []sheaf.RunID{"first"}, Taken: mixed} },
			last: func(r *Run) {
				r.Reuse = Reuse{Makers: []sheaf.RunID{"second", "first"}, Taken: []Taken{
					{0, 10, 0, 0}, {10, 90, 1, 10}, {100, 50, 1, 120}, {150, n - 150, 0, 150},
				}}
			}, want: "second"},
		"the same made at other places": {last: func(r *Run) {
			r.Reuse.Taken = []Taken{{0, 100, 0, 100}, {100, 100, 0, 0}, {200, n - 200, 0, 200}}
		}},
		"of one made anew":      {second: func(*Run) {}, last: func(r *Run) { r.Reuse.Makers[0] = "second" }, want: "second"},
		"not all is taken over": {last: func(r *Run) { setState(r, 0, sheaf.PartitionFailed) }},
		"without reuse":         {last: func(r *Run) { r.Job.Reuse = false }},
		"with a reduce":         {last: func(r *Run) { r.Job.Reduce = &sheaf.Reduce{} }},
		"merged by other rules": {last: func(r *Run) { r.Job.Outputs = outputs(sheaf.MergeConcat) }},
		"a reduce in that run":  {first: func(r *Run) { r.Job.Reduce = &sheaf.Reduce{} }},
		"that run failed":       {first: func(r *Run) { r.Status = sheaf.RunFailed }},
		"it is not sealed":      {first: func(r *Run) { r.Result.Sealed = false }},
		"it made some again":    {first: func(r *Run) { r.Remade = 1 }},
		"it lost some":          {first: func(r *Run) { r.Lost = sheaf.Ranges{{First: 7, Last: 7}} }},
		"it has more":           {first: func(r *Run) { r.Partitions = table.New(n + 1) }},
		"one of it failed":      {first: func(r *Run) { setState(r, 4, sheaf.PartitionFailed) }},
		"its node is down":      {node: sheaf.NodeDown},
		"the result's node is gone, and an older one is not": {
			second: func(r *Run) {
				r.Reuse, r.Result.Node = Reuse{Makers: []sheaf.RunID{"first"}, Taken: whole}, 9
			}, want: "first"},
	} {
		s := New(&MemoryChunks{})
		txn := s.Begin(1, 1)
		status := sheaf.NodeReady
		if c.node != "" {
			status = c.node
		}
		txn.PutNode(&Node{Node: sheaf.Node{ID: "n", Status: status}})
		txn.Commit()
		index := uint64(1)
		put := func(id sheaf.RunID, state sheaf.PartitionState, change func(*Run)) {
			if change == nil {
				return
			}
			r := &Run{
				ID: id, Job: &sheaf.Job{Name: "j", Namespace: "default", Reuse: true, Outputs: outputs(sheaf.MergeUnion)}, JobJSON: []byte("{}"),
				Status: sheaf.RunSucceeded, Partitions: table.New(n), Result: Result{Sealed: true, Attempt: 1, Node: 1},
			}
			e := r.Partitions.Edit()
			for i := range n {
				e.Set(i, table.Row{State: state, Attempt: 1, Node: 1})
			}
			r.Partitions = e.Table()
			change(r)
			for _, x := range r.Reuse.Taken {
				e := r.Partitions.Edit()
				e.Turn(int(x.First), int(x.First+x.Count)-1, table.Set(sheaf.PartitionSucceeded), sheaf.PartitionReused, false)
				r.Partitions = e.Table()
			}
			index++
			txn := s.Begin(index, 1)
			txn.InsertRun(r)
			txn.Commit()
		}
		first := c.first
		if first == nil {
			first = func(*Run) {}
		}
		put("first", sheaf.PartitionSucceeded, first)
		put("second", sheaf.PartitionSucceeded, c.second)
		put("last", sheaf.PartitionReused, func(r *Run) {
			r.Status, r.Result, r.Reuse = sheaf.RunMerging, Result{}, Reuse{Makers: []sheaf.RunID{"first"}, Taken: whole}
			if c.last != nil {
				c.last(r)
			}
		})
		put("later", sheaf.PartitionSucceeded, func(r *Run) { r.Reuse = Reuse{Makers: []sheaf.RunID{"first"}, Taken: whole} })
		snap, got := s.Snapshot(), sheaf.RunID("")
		if x := snap.Unchanged(snap.Run("last")); x != nil {
			got = x.ID
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// setState sets the state of one partition.
func setState(r *Run, i int, state sheaf.PartitionState) {
	e := r.Partitions.Edit()
	e.Set(i, table.Row{State: state, Attempt: 1, Node: 1})
	r.Partitions = e.Table()
}
