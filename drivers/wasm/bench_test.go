package wasm

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// inFlight is how many executions a client keeps going on two processors of
// 2,500 MHz at 100 MHz each.
const inFlight = 50

func BenchmarkNoop(b *testing.B)      { benchmark(b, noop) }
func BenchmarkGoProgram(b *testing.B) { benchmark(b, goModule(b), "exit", "0") }

// benchmark runs a module by the driver, and beside it in this process by
// wazero alone on as many goroutines as there are processors.
func benchmark(b *testing.B, code []byte, args ...string) {
	var raw float64
	b.Run("wazero", func(b *testing.B) { raw = benchWazero(b, code, args) })
	for name, d := range map[string]func(testing.TB) drivers.Driver{
		"driver":           func(t testing.TB) drivers.Driver { return newDriver(t, Options{}) },
		"driver as plugin": func(t testing.TB) drivers.Driver { return drivertest.Hosted(t, Name) },
	} {
		b.Run(name, func(b *testing.B) {
			ours := benchDriver(b, d(b), code, args)
			if raw > 0 {
				b.ReportMetric(ours/raw, "of-wazero")
			}
		})
	}
}

func benchWazero(b *testing.B, code []byte, args []string) float64 {
	ctx := context.Background()
	b.RunParallel(func(pb *testing.PB) {
		r := wazero.NewRuntime(ctx)
		defer r.Close(ctx)
		wasi_snapshot_preview1.MustInstantiate(ctx, r)
		m, err := r.CompileModule(ctx, code)
		if err != nil {
			b.Error(err)
			return
		}
		b.ResetTimer()
		config := wazero.NewModuleConfig().WithName("").WithArgs(append([]string{"m"}, args...)...)
		for pb.Next() {
			instance, err := r.InstantiateModule(ctx, m, config)
			if err != nil {
				b.Error(err)
				return
			}
			if instance != nil {
				instance.Close(ctx)
			}
		}
	})
	return report(b)
}

func report(b *testing.B) float64 {
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "executions/s")
	return rate
}

func benchDriver(b *testing.B, d drivers.Driver, code []byte, args []string) float64 {
	module := writeFile(b, "bench.wasm", code)
	config := configOf(b, module, args...)
	p, err := d.Prepare(context.Background(), &driverpb.PrepareRequest{ConfigJson: config, StateDir: newState(b)})
	if err != nil {
		b.Fatal(err)
	}
	env := make([]string, 15)
	for i := range env {
		env[i] = fmt.Sprintf("SHEAF_VARIABLE_%02d=value-%d", i, i)
	}
	commands, events := make(chan *driverpb.Command), make(chan *driverpb.Event, 64)
	var executing sync.WaitGroup
	executing.Go(func() { _ = d.Execute(context.Background(), commands, events) })
	next := 0
	start := func() {
		next++
		commands <- &driverpb.Command{Body: &driverpb.Command_Start{Start: &driverpb.Start{
			Execution: fmt.Sprintf("bench.%d.1", next), Handle: p.Handle, ConfigJson: config, Env: env, MemoryBytes: 128 << 20,
		}}}
	}
	started, ended := 0, 0
	b.ResetTimer()
	for started < min(inFlight, b.N) {
		start()
		started++
	}
	for ended < b.N {
		x := (<-events).GetExited()
		if x == nil {
			continue
		}
		if x.ExitCode != 0 {
			b.Fatalf("exited = %v", x)
		}
		ended++
		if started < b.N {
			start()
			started++
		}
	}
	b.StopTimer()
	rate := report(b)
	close(commands)
	executing.Wait()
	return rate
}
