package shard

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

func TestLargest(t *testing.T) {
	of := func(sizes ...int64) []uint32 {
		var l Largest
		for i, b := range sizes {
			l.Add(i, b)
		}
		return l.Partitions()
	}
	for _, c := range []struct {
		name  string
		sizes []int64
		want  []uint32
	}{
		{"none", nil, nil},
		{"empty files", []int64{0, 0, 0}, nil},
		{"equal", []int64{7, 7, 7, 7, 7, 7}, nil},
		{"one alone", []int64{1 << 40}, nil},
		{"two of many", append(slices.Repeat([]int64{10}, 50), 1000, 10, 2000), []uint32{50, 52}},
	} {
		if got := of(c.sizes...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestLargestIsWhatSortingFinds compares with all sizes sorted.
func TestLargestIsWhatSortingFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n, wide := rapid.IntRange(1, 4000).Draw(t, "n"), rapid.Int64Range(1, 1<<40).Draw(t, "wide")
		var l Largest
		all, sum := make([]weight, n), 0.0
		for i := range all {
			all[i] = weight{i, r.Int64N(50)}
			if r.IntN(20) == 0 {
				all[i].bytes = r.Int64N(wide)
			}
			sum += float64(all[i].bytes)
			l.Add(i, all[i].bytes)
		}
		slices.SortStableFunc(all, func(a, b weight) int { return int(min(max(b.bytes-a.bytes, -1), 1)) })
		var want []uint32
		for _, w := range all[:min(n, sheaf.MaxLargest)] {
			if float64(w.bytes)*float64(n) > farLarger*sum {
				want = append(want, uint32(w.partition))
			}
		}
		slices.Sort(want)
		if got := l.Partitions(); !slices.Equal(got, want) {
			t.Fatalf("%d partitions %v, want %d %v", len(got), got, len(want), want)
		}
	})
}
