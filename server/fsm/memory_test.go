package fsm_test

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
)

// BenchmarkTenMillionInRandomOrder commits ten million partitions, a thousand in an entry, each
// anywhere in the run, and tells what the machine holds afterwards: every page is touched early and filled last.
func BenchmarkTenMillionInRandomOrder(b *testing.B) {
	const total, batch = 10_000_000, 1000
	order := rand.New(rand.NewPCG(1, 2)).Perm(total) //nolint:gosec // the same order each time
	for i := 0; i < b.N; i++ {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, index := placedMachine(b, total)
		x := commitBatch(batch, 0)
		for first := 0; first < total; first += batch {
			for j := range batch {
				x.Partition[j] = uint32(order[first+j])
			}
			index++
			r, err := m.Apply(index, encoded(b, &fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{x}}}}))
			if err != nil || r.Answers[0].Verdict[0] != byte(wire.Verdict_VERDICT_COMMITTED) {
				b.Fatal(err, r)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heap-MB")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/total, "bytes/partition")
		runtime.KeepAlive(m)
	}
	b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "partitions/s")
}
