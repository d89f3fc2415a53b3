package exec_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/drivers/exec"
)

// BenchmarkTrue runs /bin/true, two at once, next to what xargs makes of it.
func BenchmarkTrue(b *testing.B) {
	b.Run("xargs -n1 -P2", func(b *testing.B) {
		cmd := osexec.Command("xargs", "-n1", "-P2", "/bin/true")
		cmd.Stdin = strings.NewReader(strings.Repeat("x\n", b.N))
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		report(b)
	})
	b.Run("exec", func(b *testing.B) { run(b, exec.New(), 2, nil) })
	b.Run("exec through its plugin", func(b *testing.B) { run(b, drivertest.Hosted(b, "exec"), 2, nil) })
	b.Run("exec, 8 at once", func(b *testing.B) { run(b, drivertest.Hosted(b, "exec"), 8, nil) })
	b.Run("exec with an input and an output", func(b *testing.B) {
		in, out := b.TempDir(), b.TempDir()
		if err := os.WriteFile(filepath.Join(in, "a"), nil, 0o644); err != nil {
			b.Fatal(err)
		}
		run(b, drivertest.Hosted(b, "exec"), 2, []*driverpb.Mount{
			{Source: in, Target: "/input_bench", ReadOnly: true}, {Source: out, Target: "/output_bench"},
		})
	})
}

func report(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "executions/s") }

// run keeps this many executions under way.
func run(b *testing.B, d drivers.Driver, atOnce int, mounts []*driverpb.Mount) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := d.Recover(ctx, &driverpb.RecoverRequest{StateDir: b.TempDir()}); err != nil {
		b.Fatal(err)
	}
	commands, events := make(chan *driverpb.Command, 256), make(chan *driverpb.Event, 256)
	returned := make(chan error, 1)
	go func() { returned <- d.Execute(ctx, commands, events) }()
	next := 0
	start := func() {
		if next == b.N {
			return
		}
		next++
		commands <- &driverpb.Command{Body: &driverpb.Command_Start{Start: &driverpb.Start{
			Execution: fmt.Sprintf("bench.%d.1", next), ConfigJson: []byte(`{"command":"/bin/true"}`),
			Env: []string{"SHEAF_PARTITION_INDEX=1"}, CpuMhz: 100, MemoryBytes: 128 << 20, Pids: 256, Mounts: mounts,
		}}}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range atOnce {
		start()
	}
	for ended := 0; ended < b.N; {
		x := (<-events).GetExited()
		if x == nil {
			continue
		}
		if x.GetExitCode() != 0 {
			b.Fatal(x)
		}
		ended++
		start()
	}
	b.StopTimer()
	report(b)
	close(commands)
	if err := <-returned; err != nil {
		b.Fatal(err)
	}
}
