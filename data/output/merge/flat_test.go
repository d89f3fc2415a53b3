package merge

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// heapWriter takes what is written, and now and then looks at what is live meanwhile.
type heapWriter struct {
	writes, lines int
	most          uint64
}

func (w *heapWriter) Write(b []byte) (int, error) {
	if w.writes++; w.writes%16 == 1 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		w.most = max(w.most, m.HeapAlloc)
	}
	w.lines += bytes.Count(b, []byte{'\n'})
	return len(b), nil
}

// onTheWay makes partitions as they are asked for, each with a file of its own name or all with the same.
func onTheWay(n int, name func(i int) string) iter.Seq2[Partition, error] {
	return func(yield func(Partition, error) bool) {
		for i := range n {
			f := sheaf.File{Output: "o", Path: name(i), Size: 1, SHA256: strings.Repeat("0", 64), Mode: 0o644}
			if !yield(Partition{Index: i, Attempt: 1, Node: "node", Files: []sheaf.File{f}}, nil) {
				return
			}
		}
	}
}

// TestMergeIsFlat: ten times the parts of one file, or ten times the files, take no more memory.
func TestMergeIsFlat(t *testing.T) {
	const small, more = 10_000, 2 << 20 // parts; bytes by which what is live may differ
	for _, c := range []struct {
		rule  string
		name  func(i int) string
		lines func(n int) int
	}{
		{sheaf.MergeConcat, func(int) string { return "all.csv" }, func(int) int { return 1 }},
		{sheaf.MergeUnion, func(i int) string { return fmt.Sprintf("%02d/image%08d.jpg", i%100, i) }, func(n int) int { return n }},
	} {
		live := func(n int) uint64 {
			w := &heapWriter{}
			_, err := Merge(context.Background(), []sheaf.Output{{Name: "o", Merge: c.rule}}, onTheWay(n, c.name), w, Options{Dir: t.TempDir(), Memory: 128 << 10})
			if err != nil || w.lines != c.lines(n) {
				t.Fatalf("%s of %d: %d lines, %v", c.rule, n, w.lines, err)
			}
			return w.most
		}
		if few, many := live(small), live(10*small); many > few+more {
			t.Errorf("%s: %d bytes are live with %d parts, %d with ten times as many", c.rule, few, small, many)
		}
	}
}
