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
	job := &sheaf.Job{Name: "j", Namespace: "default", Reuse: true, Split: &sheaf.Split{}, Task: sheaf.Task{Driver: task}}
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
		var before []string
		for n := range rapid.IntRange(0, 4).Draw(t, "runs") {
			id, reads := sheaf.RunID(fmt.Sprintf("r%d", n)), draw()
			before = reads
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
		if before != nil && rapid.Bool().Draw(t, "unchanged") {
			reads = before // whole chunks are the same
		}
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

// countedChunks counts what is read.
type countedChunks struct {
	Chunks
	read int
}

func (c *countedChunks) Chunk(r *state.Run, seq int) ([]byte, error) {
	c.read++
	return c.Chunks.Chunk(r, seq)
}

// many is what n partitions read.
func many(n int) []string {
	reads := make([]string, n)
	for i := range reads {
		reads[i] = fmt.Sprintf("%08d", i)
	}
	return reads
}

// TestCompareChunks: where nothing has changed no manifest is read; where one thing has, only its chunk and those behind
// are searched, and what the newest run lacks is looked for in those before.
func TestCompareChunks(t *testing.T) {
	const n = 20_000
	w, all := newWorld(), many(n)
	w.run("oldest", "same", all, func(i int) bool { return i >= 5 })
	w.run("newest", "same", all, func(i int) bool { return i%1000 != 7 && i != 3 })
	w.run("unchanged", "same", all, func(int) bool { return false })
	changed := many(n)
	changed[n/2] = "changed"
	changed = slices.Delete(changed, n-20, n-19)
	w.run("changed", "same", changed, func(int) bool { return false })
	snap := w.store.Snapshot()
	if chunks := len(snap.Run("unchanged").Manifest.Chunks); chunks < 4 {
		t.Fatalf("%d chunks are too few for this test", chunks)
	}
	for _, c := range []struct {
		run   sheaf.RunID
		reads []string
		want  int
		most  int // chunks read
	}{
		{"unchanged", all, n - 1, 1 + 3*len(snap.Run("unchanged").Manifest.Chunks)}, // partition 3 was made by nobody
		{"changed", changed, n - 3, 1 << 10},
	} {
		chunks, got := &countedChunks{Chunks: w.store}, 0
		err := Compare(t.Context(), chunks, snap, snap.Run(c.run), func(some []Match) error {
			for _, m := range some {
				got += int(m.Count)
				for i := range m.Count {
					p, q := int(m.First+i), int(m.MadeAs+i)
					if c.reads[p] != all[q] || (m.Source.ID == "newest") == (q%1000 == 7) || !snap.Origins().Available(m.Source, q) {
						t.Fatalf("%s: partition %d reads %s and is %d of %s", c.run, p, c.reads[p], q, m.Source.ID)
					}
				}
			}
			return nil
		})
		if err != nil || got != c.want || chunks.read > c.most {
			t.Errorf("%s: %d of %d found, %d chunks read, of %d at most; %v", c.run, got, c.want, chunks.read, c.most, err)
		}
	}
	whole := &countedChunks{Chunks: w.store}
	w.run("done", "same", all, func(int) bool { return true })
	w.run("again", "same", all, func(int) bool { return false })
	snap = w.store.Snapshot()
	var found []Match
	if err := Compare(t.Context(), whole, snap, snap.Run("again"), func(some []Match) error { found = append(found, some...); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Count != n || whole.read > 1 {
		t.Errorf("of what is unchanged %d chunks are read, and it comes in %d ranges", whole.read, len(found))
	}
}

// BenchmarkCompareMillion compares a million partitions with an earlier run that made all of them, and with
// one behind which one thing has changed.
func BenchmarkCompareMillion(b *testing.B) {
	const n = 1_000_000
	w := newWorld()
	w.run("before", "same", many(n), func(int) bool { return true })
	w.run("unchanged", "same", many(n), func(int) bool { return false })
	w.run("shifted", "same", many(n)[1:], func(int) bool { return false })
	snap := w.store.Snapshot()
	for _, id := range []sheaf.RunID{"unchanged", "shifted"} {
		b.Run(string(id), func(b *testing.B) {
			for b.Loop() {
				if err := Compare(b.Context(), w.store, snap, snap.Run(id), func([]Match) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
