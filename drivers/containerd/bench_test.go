package containerd_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/cio"
	"github.com/containerd/containerd/oci"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// slots is how many executions a client gives the driver at once: more than it makes at once.
const slots = 8

// BenchmarkCold runs containers that do nothing from start to removal, by the driver and by a loop over
// the same daemon with the same image, at the loop's best concurrency. Rounds of both
// take turns, so that both see the same machine. It prints containers a second of both and their ratio.
func BenchmarkCold(b *testing.B) {
	n, _ := open(b, containerd.New(), b.TempDir(), busybox(b, ""))
	const round = 40
	var took, best time.Duration
	var bestAt int
	for i := 0; i < b.N; i++ {
		began := time.Now()
		starts := make(chan *driverpb.Start, round)
		for range round {
			starts <- n.start("/bin/true")
		}
		each(slots, round, func() { wantExit(b, n.session.Run(<-starts), 0) })
		took += time.Since(began)
		var fastest time.Duration
		for _, atOnce := range []int{2, 4, 8} {
			began := time.Now()
			raw(b, n.handle, i*1000+atOnce*100, atOnce, round)
			if d := time.Since(began); fastest == 0 || d < fastest {
				fastest, bestAt = d, atOnce
			}
		}
		best += fastest
	}
	ours, theirs := float64(b.N*round)/took.Seconds(), float64(b.N*round)/best.Seconds()
	b.ReportMetric(ours, "containers/s")
	b.ReportMetric(theirs, "raw/s")
	b.ReportMetric(ours/theirs, "ratio")
	b.Logf("%.1f containers/s, the raw loop %.1f/s with %d at once: ratio %.2f", ours, theirs, bestAt, ours/theirs)
}

// BenchmarkKept runs programs that do nothing in kept containers, from start to end, as many at once as there are
// processors, and a shell in one of them that forks and executes the same program, one after another. Rounds take turns.
func BenchmarkKept(b *testing.B) {
	n, _ := open(b, containerd.New(), b.TempDir(), busybox(b, ""))
	const round = 2000
	loop := func(count int) time.Duration {
		began := time.Now()
		wantExit(b, n.session.Run(n.kept(fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", count))), 0)
		return time.Since(began)
	}
	pass := func(count int) time.Duration {
		starts := make(chan *driverpb.Start, count)
		for range count {
			start := n.start("/bin/true")
			start.Share = "a task"
			starts <- start
		}
		began := time.Now()
		each(runtime.NumCPU(), count, func() { wantExit(b, n.session.Run(<-starts), 0) })
		return time.Since(began)
	}
	pass(10 * runtime.NumCPU()) // so that the containers are there
	var took, forks time.Duration
	for b.Loop() {
		took += pass(round)
		forks += loop(round) - loop(0)
	}
	ours, theirs := float64(b.N*round)/took.Seconds(), float64(b.N*round)/forks.Seconds()
	b.ReportMetric(ours, "programs/s")
	b.ReportMetric(theirs, "forks/s")
	b.ReportMetric(ours/theirs, "ratio")
}

// each calls do count times, atOnce at once.
func each(atOnce, count int, do func()) {
	var left atomic.Int64
	left.Store(int64(count))
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for left.Add(-1) >= 0 {
				do()
			}
		})
	}
	workers.Wait()
}

// raw is containerd's own way: container, task, wait, start, delete.
func raw(b *testing.B, digest string, first, atOnce, count int) {
	conn, ctx := dial(b, daemon)
	list, err := conn.ListImages(ctx, "target.digest=="+digest)
	if err != nil || len(list) == 0 {
		b.Fatal(list, err)
	}
	img := list[0]
	var number atomic.Int64
	number.Store(int64(first))
	each(atOnce, count, func() {
		id := fmt.Sprintf("raw-%d", number.Add(1))
		c, err := conn.NewContainer(ctx, id, client.WithNewSnapshot(id, img), client.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs("/bin/true")))
		if err != nil {
			b.Error(err)
			return
		}
		task, err := c.NewTask(ctx, cio.NullIO)
		if err != nil {
			b.Error(err)
			return
		}
		exit, err := task.Wait(ctx)
		if err == nil {
			err = task.Start(ctx)
		}
		if err != nil {
			b.Error(err)
			return
		}
		if st := <-exit; st.ExitCode() != 0 {
			b.Error(st.ExitCode(), st.Error())
		}
		if _, err := task.Delete(ctx); err != nil {
			b.Error(err)
		}
		if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil {
			b.Error(err)
		}
	})
}
