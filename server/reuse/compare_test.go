package reuse

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// world is runs of one job, each a list of what its partitions read.
type world struct {
	store  *state.Store
	chunks state.MemoryChunks
	index  uint64
}

func newWorld() *world {
	w := &world{}
	w.store = state.New(&w.chunks)
	w.change(func(txn *state.Txn) {
		txn.PutNode(&state.Node{Node: sheaf.Node{ID: "n", Status: sheaf.NodeReady}})
	})
	return w
}

func (w *world) change(f func(*state.Txn)) {
	w.index++
	txn := w.store.Begin(w.index, 1)
	f(txn)
	txn.Commit()
}

// run adds a run that reads the given contents; those in done are committed.
func (w *world) run(id sheaf.RunID, task string, reads []string, done func(i int) bool) {
	job := &sheaf.Job{Name: "j", Namespace: "default", Reuse: true, Task: sheaf.Task{Driver: task}}
	m := state.Manifest{Attempt: 1, Sealed: true, Partitions: uint32(len(reads))}
	enc := shard.NewWriter(func(c shard.Chunk) error {
		at := int64(0)
		if n := len(m.Chunks); n > 0 {
			at = m.Chunks[n-1].Offset + int64(m.Chunks[n-1].Length)
		}
		m.Chunks = append(m.Chunks, state.Chunk{First: uint32(c.First), Count: uint32(c.Count), Offset: at, Length: uint32(len(c.Data)), Digest: sha256.Sum256(c.Data)})
		return w.chunks.Put(id, 1, at, c.Data)
	})
	enc.Prints = shard.NewFingerprinter(job)
	for i, r := range reads {
		if err := enc.Add(&shard.View{Index: i, Atoms: []shard.Atom{{Path: "/" + r, Tag: "x"}}}); err != nil {
			panic(err)
		}
	}
	if _, _, err := enc.Close(); err != nil {
		panic(err)
	}
	w.change(func(txn *state.Txn) {
		r := txn.InsertRun(&state.Run{ID: id, Job: job, JobJSON: []byte("{}"), Status: sheaf.RunRunning, Manifest: m, Partitions: table.New(len(reads))})
		for i := range reads {
			if done(i) {
				r.Table().Set(i, table.Row{State: sheaf.PartitionSucceeded, Attempt: 1, Node: 1})
			}
		}
	})
}

// TestCompare holds what is found against a model that looks at everything.
func TestCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		type made struct {
			run sheaf.RunID
			at  int
		}
		newest := map[string]sheaf.RunID{}
		where := map[string][]made{}
		draw := func() []string {
			return rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}), 1, 12).Draw(t, "reads")
		}
		for n := range rapid.IntRange(0, 4).Draw(t, "runs") {
			id, reads := sheaf.RunID(fmt.Sprintf("r%d", n)), draw()
			task := rapid.SampledFrom([]string{"same", "same", "other"}).Draw(t, "task")
			done := make([]bool, len(reads))
			for i := range reads {
				done[i] = rapid.Bool().Draw(t, "done")
				if done[i] && task == "same" {
					newest[reads[i]] = id
					where[reads[i]] = append(where[reads[i]], made{id, i})
				}
			}
			w.run(id, task, reads, func(i int) bool { return done[i] })
		}
		reads := draw()
		w.run("new", "same", reads, func(int) bool { return false })
		w.run("later", "same", reads, func(int) bool { return true })
		snap := w.store.Snapshot()
		found := map[int]made{}
		last := -1
		err := Compare(t.Context(), w.store, snap, snap.Run("new"), func(some []Match) error {
			for _, m := range some {
				for i := range m.Count {
					p := int(m.First + i)
					if p <= last {
						t.Fatalf("partition %d after %d", p, last)
					}
					last = p
					found[p] = made{m.Source.ID, int(m.MadeAs + i)}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range reads {
			got, ok := found[i]
			if ok != (newest[r] != "") || ok && (got.run != newest[r] || !slices.Contains(where[r], got)) {
				t.Fatalf("partition %d reads %s: found %v %v; made by %v", i, r, got, ok, where[r])
			}
		}
	})
}
