package store

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

const benchBatch = 200 // results that a busy client syncs at once

// BenchmarkAppend appends records without outputs in batches, each batch
// synced and answered, beside the bare sync of as many bytes.
func BenchmarkAppend(b *testing.B) {
	for _, stdout := range []int{0, 100} {
		b.Run(fmt.Sprintf("stdout=%d", stdout), func(b *testing.B) {
			s := open(b, b.TempDir())
			defer s.Close()
			r := run(b, s)
			digest := output.Digest(nil)
			keys := make([]Key, 0, benchBatch)
			line := make([]byte, stdout)
			p := 0
			for b.Loop() {
				keys = keys[:0]
				for range benchBatch {
					k := Key{p % sheaf.MaxPartitions, 1}
					p++
					var l *Logs
					if stdout > 0 {
						l, _ = r.Logs(k)
						must(b, l.Write(false, line))
					}
					must(b, r.Append(Record{Partition: k.Partition, Attempt: 1, Outcome: sheaf.OutcomeSucceeded, Digest: digest}, l))
					keys = append(keys, k)
				}
				must(b, s.Sync())
				must(b, r.Ack(keys))
			}
			b.ReportMetric(float64(p)/b.Elapsed().Seconds(), "records/s")
		})
	}
	b.Run("bare sync", func(b *testing.B) {
		f, err := os.Create(b.TempDir() + "/f")
		must(b, err)
		defer f.Close()
		batch := make([]byte, benchBatch*40)
		for b.Loop() {
			f.Write(batch)
			must(b, dataSync(f))
		}
		b.ReportMetric(float64(benchBatch*b.N)/b.Elapsed().Seconds(), "records/s")
	})
}

// BenchmarkMillion fills a run, then reads it back; the heap is what is left of it in memory.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		dir := b.TempDir()
		s := open(b, dir)
		r := run(b, s)
		digest := output.Digest(nil)
		before := heap()
		for p := range n {
			must(b, r.Append(Record{Partition: p, Attempt: 1, Outcome: sheaf.OutcomeSucceeded, Digest: digest}, nil))
			if p%1000 == 999 {
				must(b, s.Sync())
			}
		}
		b.ReportMetric(float64(heap()-before)/n, "heap-B/record")
		crash(s)
		os.Remove(r.dir + "/mark")
		s = open(b, dir)
		r = run(b, s)
		count := 0
		must(b, s.Unanswered(func(sheaf.RunID, Record) error { count++; return nil }))
		for _, err := range r.Records([]Span{{0, n, 0}}) {
			must(b, err)
			count++
		}
		if count != 2*n {
			b.Fatalf("%d records of %d", count, 2*n)
		}
		must(b, s.Close())
	}
}

// BenchmarkRead reads single records in no order.
func BenchmarkRead(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	r := run(b, s)
	for p := range 10_000 {
		must(b, r.Append(record(p, 1), nil))
	}
	must(b, s.Sync())
	p := 0
	for b.Loop() {
		p = (p + 7919) % 10_000
		if _, err := r.Record(p, 0); err != nil {
			b.Fatal(err)
		}
	}
}
