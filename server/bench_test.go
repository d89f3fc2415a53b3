package server_test

import (
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// BenchmarkOnePartition is a run of one partition from its submission to its end,
// on disk, with a client that takes no time.
func BenchmarkOnePartition(b *testing.B) {
	h := startHost(b, tempDir(b), "")
	newFake(b, h, "a", succeed).connect(nil)
	n := 0
	for b.Loop() {
		n++
		id := sheaf.RunID(fmt.Sprint("run", n))
		h.submit(b, id, job())
		h.awaitRun(b, id, "its end", func(r *state.Run) bool { return r.Status.Terminal() })
	}
}

// BenchmarkPartitions is a large run from submission to end, on disk: placements,
// assignments, results and their group commit, with clients that take no time.
func BenchmarkPartitions(b *testing.B) {
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			h := startHost(b, tempDir(b), "")
			for i := range clients {
				newFake(b, h, fmt.Sprint("c", i), succeed).connect(nil)
			}
			n := 0
			const size = 300_000
			for b.Loop() {
				n++
				id := sheaf.RunID(fmt.Sprint("run", n))
				h.submit(b, id, job(count(size)))
				h.awaitRun(b, id, "its end", func(r *state.Run) bool { return r.Status.Terminal() })
			}
			b.ReportMetric(float64(n*size)/b.Elapsed().Seconds(), "partitions/s")
		})
	}
}
