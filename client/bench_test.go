package client

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
)

// BenchmarkMock is what the client adds to an execution: durable records and a
// driver's process, with a leader in this process that answers at once. It prints
// executions a second, and by how much the heap grew over the last half.
func BenchmarkMock(b *testing.B) {
	l := newLeader(b)
	l.count = true
	l.start(l.config(func(c *Config) { c.Slots = 64; c.Logger = slog.New(slog.DiscardHandler) }))
	l.run("warm", mockJob(nil), 1)
	l.assign("warm", 0, 1, 1)
	l.until("it is warm", func() bool { return l.counted == 1 })
	l.run("r", mockJob(nil), b.N)
	var half runtime.MemStats
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	l.assign("r", 0, uint32(b.N), 1)
	l.until("half of the results", func() bool { return l.counted > b.N/2 })
	b.StopTimer()
	paused := time.Now()
	runtime.GC()
	runtime.ReadMemStats(&half)
	gc := time.Since(paused)
	b.StartTimer()
	l.until("all results", func() bool { return l.counted == b.N+1 })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/(time.Since(began)-gc).Seconds(), "executions/s")
	var end runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&end)
	b.ReportMetric(float64(int64(end.HeapAlloc)-int64(half.HeapAlloc))/1024, "KiB-growth")
}

// BenchmarkOneRun is the way of a run of one partition through a warm client:
// described, prepared, run, durable, answered.
func BenchmarkOneRun(b *testing.B) {
	l := newLeader(b)
	l.start(l.config(func(c *Config) { c.Logger = slog.New(slog.DiscardHandler) }))
	one := func(id string) {
		l.run(id, mockJob(nil), 1)
		l.assign(id, 0, 1, 1)
		l.result(id + ".0.1")
		l.send(&wire.FromServer{Body: &wire.FromServer_End{End: &wire.RunEnd{Run: id}}})
	}
	one("warm")
	b.ResetTimer()
	for i := range b.N {
		one(fmt.Sprint("r", i))
	}
}
