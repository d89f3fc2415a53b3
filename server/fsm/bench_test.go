package fsm_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// TestTenMillionPartitionsAreOneRecord: a count of ten million costs less than 1 MB.
func TestTenMillionPartitionsAreOneRecord(t *testing.T) {
	s := newScript(t)
	s.line("node n1 boot=a")
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.line("job r count=10000000")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("it takes %d bytes", grown)
	}
	s.line("place r n1 0-9")
	s.line("cancel r")
	if got := s.show1("r"); got != "cancelled, 10000000 cancelled" {
		t.Error(got)
	}
	s.line("retry r 7")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("with one of them tried again it takes %d bytes", grown)
	}
	runtime.KeepAlive(s)
}

func (s *script) show1(run string) string {
	r := s.snap().Run(sheaf.RunID(run))
	return fmt.Sprintf("%s, %d cancelled", r.Status, r.Counts().Cancelled)
}

// commitBatch is n contiguous successes of a run.
func commitBatch(n, first int) *wire.Results {
	x := &wire.Results{Run: "r", Generation: 1, Node: "n1", Session: 1, Digest: make([]byte, 32*n)}
	for i := range n {
		x.Partition = append(x.Partition, uint32(first+i))
		x.Attempt = append(x.Attempt, 1)
		x.Outcome = append(x.Outcome, byte(sheaf.OutcomeSucceeded))
		x.Failure = append(x.Failure, 0)
		x.ExitCode = append(x.ExitCode, 0)
		x.StartedMs = append(x.StartedMs, 1_700_000_000_000+int64(i))
		x.DurationMs = append(x.DurationMs, 12)
		x.CpuMs = append(x.CpuMs, 10)
		x.PeakMemoryKib = append(x.PeakMemoryKib, 4096)
		x.Digest[32*i] = byte(i)
	}
	return x
}

func encoded(b *testing.B, c *fsm.Command) []byte {
	b.Helper()
	data, err := fsm.Encode(c)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// placedMachine is a machine with a run of total partitions, all placed.
func placedMachine(b *testing.B, total int) (*fsm.Machine, uint64) {
	b.Helper()
	m := fsm.New(state.New(&state.MemoryChunks{}))
	for i, c := range []*fsm.Command{
		{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: []byte(`{"id":"n1","drivers":[]}`), BootId: "a"}}},
		{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: "r", JobJson: fmt.Appendf(nil, `{"name":"j","count":%d,"retry":{"attempts":3,"delay":"1s","max_delay":"1m","backoff":"constant"},"task":{"kill_timeout":"5s"},"failure":{"tolerate":0}}`, total)}}},
		{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{{Run: "r", Node: "n1", Session: 1, First: []uint32{0}, Count: []uint32{uint32(total)}}}}}},
	} {
		r, err := m.Apply(uint64(i+1), encoded(b, c))
		if err != nil || r.Err != nil {
			b.Fatal(err, r.Err)
		}
	}
	return m, 3
}

func BenchmarkCommitPartitions(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			const total = 1_000_000
			m, index := placedMachine(b, total)
			entries := make([][]byte, total/batch)
			for i := range min(len(entries), 2000) {
				entries[i] = encoded(b, &fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{commitBatch(batch, i*batch)}}}})
			}
			entries = entries[:min(len(entries), 2000)]
			done := 0
			b.ReportAllocs()
			for b.Loop() {
				if done == len(entries) {
					b.StopTimer()
					m, index = placedMachine(b, total)
					done = 0
					b.StartTimer()
				}
				index++
				r, err := m.Apply(index, entries[done])
				if err != nil || r.Answers[0].Verdict[0] != byte(wire.Verdict_VERDICT_COMMITTED) {
					b.Fatal(err, r)
				}
				done++
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "partitions/s")
		})
	}
}

func BenchmarkApplyPlan(b *testing.B) {
	for b.Loop() {
		placedMachine(b, 1_000_000)
	}
	b.ReportMetric(float64(b.N)*1e6/b.Elapsed().Seconds(), "partitions/s")
}
