package table

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// heapOf is what build leaves on the heap.
func heapOf(build func() any) (bytes uint64, keep any) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	keep = build()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc), keep
}

func succeeded(i int) Row {
	r := Row{State: sheaf.PartitionSucceeded, Fence: 1, Attempt: 1, Node: uint32(1 + i%1000), StartedMs: int64(i), DurationMs: 7}
	r.Output[i%32] = byte(i)
	return r
}

func TestMillionPartitionsTakeAtMost96BytesEach(t *testing.T) {
	const n = 1_000_000
	heap, keep := heapOf(func() any {
		table := New(n)
		for first := 0; first < n; first += 1000 { // as commits of a thousand come
			e := table.Edit()
			for i := first; i < first+1000; i++ {
				e.Set(i, succeeded(i))
			}
			table = e.Table()
		}
		return table
	})
	if each := heap / n; each > 96 {
		t.Errorf("%d bytes a partition", each)
	} else {
		t.Logf("%.1f bytes a partition", float64(heap)/n)
	}
	if c := keep.(*Table).Counts()[sheaf.PartitionSucceeded]; c != n {
		t.Errorf("%d of %d have succeeded", c, n)
	}
}

// A page of a small run is as long as the run: a thousand runs of three cost no thousand
// whole pages.
func TestSmallRunsTakeSmallTables(t *testing.T) {
	const runs = 2000
	heap, keep := heapOf(func() any {
		all := make([]*Table, runs)
		for k := range all {
			e := New(3).Edit()
			for i := range 3 {
				e.Set(i, succeeded(i))
			}
			all[k] = e.Table()
		}
		return all
	})
	const fixed = 512 // directory, counts and headers of one table
	if each := heap / runs; each > fixed+3*96 {
		t.Errorf("a table of three takes %d bytes", each)
	} else {
		t.Logf("a table of three takes %d bytes", each)
	}
	runtime.KeepAlive(keep)
}

func TestTenMillionUntouchedTakeKilobytes(t *testing.T) {
	heap, keep := heapOf(func() any { return New(sheaf.MaxPartitions) })
	if heap > 64<<10 {
		t.Errorf("%d bytes", heap)
	}
	e := keep.(*Table).Edit()
	e.Turn(0, sheaf.MaxPartitions-1, Set(sheaf.PartitionPending), sheaf.PartitionCancelled, false)
	heap, cancelled := heapOf(func() any { return e.Table() })
	if heap > 1<<20 {
		t.Errorf("cancelled: %d bytes", heap)
	}
	if got := cancelled.(*Table).Ranges(Set(sheaf.PartitionCancelled), 0, 0).String(); got != "0-9999999" {
		t.Errorf("cancelled are %s", got)
	}
	runtime.KeepAlive(keep)
}

// model is a table done the plain way.
type model []Row

func (m model) counts() (c Counts) {
	for _, r := range m {
		c[r.State]++
	}
	return c
}

func (m model) ranges(set States) (x sheaf.Ranges) {
	for i, r := range m {
		if set.Has(r.State) {
			x = x.Add(i)
		}
	}
	return x
}

func (m model) ready(now int64, from, limit int) (x sheaf.Ranges) {
	for i, r := range m {
		if i >= from && r.State == sheaf.PartitionPending && r.StartedMs <= now && limit > 0 {
			x = x.Add(i)
			limit--
		}
	}
	return x
}

func drawRow(t *rapid.T) Row {
	r := Row{
		State:      sheaf.PartitionState(rapid.SampledFrom([]int{0, 1, 3, 4, 5}).Draw(t, "state")),
		Fence:      rapid.Uint32().Draw(t, "fence"),
		Attempt:    rapid.Uint32().Draw(t, "attempt"),
		Node:       rapid.Uint32Range(0, 4).Draw(t, "node"),
		Generation: rapid.Uint16().Draw(t, "generation"),
		Failures:   rapid.Uint8().Draw(t, "failures"),
		Losses:     rapid.Uint8().Draw(t, "losses"),
		Failure:    sheaf.FailureKind(rapid.Uint8Range(0, 11).Draw(t, "failure")),
		ExitCode:   rapid.Int32().Draw(t, "exit"),
		StartedMs:  rapid.Int64Range(0, 50).Draw(t, "started"),
		DurationMs: rapid.Uint32().Draw(t, "duration"),
		CPUMs:      rapid.Uint32().Draw(t, "cpu"),
		PeakKiB:    rapid.Uint32().Draw(t, "peak"),
	}
	r.Output[rapid.IntRange(0, 31).Draw(t, "byte")] = rapid.Uint8().Draw(t, "value")
	return r
}

func check(t *rapid.T, table *Table, m model) {
	if table.Counts() != m.counts() {
		t.Fatalf("counts are %v, not %v", table.Counts(), m.counts())
	}
	nodes := map[uint32]NodeCount{}
	for i, want := range m {
		if got := table.Row(i); got != want {
			t.Fatalf("partition %d is %+v, not %+v", i, got, want)
		}
		if want.Node == 0 {
			continue
		}
		c := nodes[want.Node]
		c.Node = want.Node
		switch want.State {
		case sheaf.PartitionAssigned:
			c.Assigned++
		case sheaf.PartitionSucceeded:
			c.Committed++
		default:
			continue
		}
		nodes[want.Node] = c
	}
	if len(nodes) != len(table.NodeCounts()) {
		t.Fatalf("nodes are %v, not %v", table.NodeCounts(), nodes)
	}
	for _, c := range table.NodeCounts() {
		if nodes[c.Node] != c {
			t.Fatalf("a node holds %v, not %v", c, nodes[c.Node])
		}
		held := 0
		for i, r := range table.Held(sheaf.PartitionAssigned, c.Node) {
			if r != m[i] || r.Node != c.Node {
				t.Fatalf("partition %d is held as %+v", i, r)
			}
			held++
		}
		if held != int(c.Assigned) {
			t.Fatalf("%d are held of %v", held, c)
		}
	}
	for _, set := range []States{Set(0), Set(1), Set(3), Set(0, 1, 5)} {
		if got, want := table.Ranges(set, 0, 0).String(), m.ranges(set).String(); got != want {
			t.Fatalf("ranges of %b are %s, not %s", set, got, want)
		}
	}
	now := rapid.Int64Range(0, 60).Draw(t, "now")
	from, limit := rapid.IntRange(0, len(m)).Draw(t, "from"), rapid.IntRange(0, 600).Draw(t, "limit")
	if got, want := table.Ready(now, from, limit).String(), m.ready(now, from, limit).String(); got != want {
		t.Fatalf("ready at %d from %d, at most %d: %s, not %s", now, from, limit, got, want)
	}
	ready, next := table.Waiting(now)
	wantNext := int64(0)
	for _, r := range m {
		if r.State == sheaf.PartitionPending && r.StartedMs > now && (wantNext == 0 || r.StartedMs < wantNext) {
			wantNext = r.StartedMs
		}
	}
	if want := m.ready(now, 0, len(m)).Len(); ready != want || next != wantNext {
		t.Fatalf("%d wait until %d, not %d until %d", ready, next, want, wantNext)
	}
}

// TestTableIsWhatItsEditsSay compares tables with plain slices: edits take hold,
// and what was before them stays as it was; what is written is read back the same.
func TestTableIsWhatItsEditsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 3, 255, 256, 257, 700}).Draw(t, "n")
		table, m := New(n), make(model, n)
		for i := range m {
			m[i] = fresh(sheaf.PartitionPending)
		}
		for range rapid.IntRange(1, 5).Draw(t, "edits") {
			old, was := table, slices.Clone(m)
			e := table.Edit()
			for range rapid.IntRange(0, 12).Draw(t, "steps") {
				if rapid.Bool().Draw(t, "turn") {
					first := rapid.IntRange(0, n-1).Draw(t, "first")
					last := rapid.IntRange(first, n-1).Draw(t, "last")
					to := rapid.SampledFrom([]sheaf.PartitionState{sheaf.PartitionPending, sheaf.PartitionCancelled}).Draw(t, "to")
					clean := rapid.Bool().Draw(t, "clean")
					e.Turn(first, last, Set(0, 1, 4), to, clean)
					for i := first; i <= last; i++ {
						m[i] = turned(m[i], to, clean)
					}
					continue
				}
				i := rapid.IntRange(0, n-1).Draw(t, "i")
				m[i] = drawRow(t)
				e.Set(i, m[i])
			}
			table = e.Table()
			check(t, table, m)
			check(t, old, was)
		}
		d := NewDecoder(n)
		for k, b := range table.Encoded() {
			if err := d.Page(k, b); err != nil {
				t.Fatal(err)
			}
		}
		again := d.Table()
		check(t, again, m)
		if again.Digest() != table.Digest() {
			t.Fatal("the digest changes on the way")
		}
	})
}

// turned is what Turn does to one partition.
func turned(r Row, to sheaf.PartitionState, clean bool) Row {
	if !Set(0, 1, 4).Has(r.State) || r.State == to && !clean {
		return r
	}
	if r.State == sheaf.PartitionAssigned {
		r.Attempt = 0
	}
	if r.State == sheaf.PartitionPending || to == sheaf.PartitionPending {
		r.StartedMs = 0
	}
	if clean {
		r.Failures, r.Losses, r.Failure = 0, 0, 0
	}
	r.State = to
	return r
}

func TestDecoderRefusesWhatDoesNotBelong(t *testing.T) {
	for _, c := range []struct {
		name string
		page int
		b    []byte
	}{
		{"a page too far", 2, make([]byte, rowBytes)},
		{"a negative page", -1, []byte{5}},
		{"a short page", 0, make([]byte, 255*rowBytes)},
		{"an unknown state", 1, append(make([]byte, colState), append([]byte{99}, make([]byte, rowBytes-colState-1)...)...)},
		{"a uniform page of an unknown state", 0, []byte{77}},
	} {
		if err := NewDecoder(257).Page(c.page, c.b); err == nil {
			t.Errorf("%s is taken", c.name)
		}
	}
	d := NewDecoder(257)
	if err := d.Page(1, []byte{byte(sheaf.PartitionCancelled)}); err != nil {
		t.Fatal(err)
	}
	if err := d.Page(1, []byte{byte(sheaf.PartitionCancelled)}); err == nil {
		t.Error("a page is taken twice")
	}
}

func BenchmarkSetContiguous(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			table, at := New(1_000_000), 0
			b.ReportAllocs()
			for b.Loop() {
				e := table.Edit()
				for range batch {
					e.Set(at, succeeded(at))
					at = (at + 1) % 1_000_000
				}
				table = e.Table()
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "partitions/s")
		})
	}
}
