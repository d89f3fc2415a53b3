package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// noop is a module with a page of memory and a _start that returns.
var noop = []byte{
	0x00, 'a', 's', 'm', 0x01, 0x00, 0x00, 0x00,
	0x01, 0x04, 0x01, 0x60, 0x00, 0x00, // a type: no parameters, no results
	0x03, 0x02, 0x01, 0x00, // a function of it
	0x05, 0x04, 0x01, 0x01, 0x01, 0x01, // a memory of one page, and no more
	0x07, 0x13, 0x02,
	0x06, 'm', 'e', 'm', 'o', 'r', 'y', 0x02, 0x00,
	0x06, '_', 's', 't', 'a', 'r', 't', 0x00, 0x00,
	0x0a, 0x04, 0x01, 0x02, 0x00, 0x0b, // its body: end
}

// wasmConfig puts the module on disk and gives the config of a task that runs it.
func (b *bench) wasmConfig() (string, error) {
	path := filepath.Join(b.root, "noop.wasm")
	if err := os.WriteFile(path, noop, 0o644); err != nil {
		return "", fmt.Errorf("write the module: %w", err)
	}
	return fmt.Sprintf("module = %q", "file://"+path), nil
}

// rawFor is how long the bare loop is measured, before the agent and after it.
const rawFor = 2 * time.Second

// rawRate is how many instances of the module wazero makes, runs and closes in a
// second, in this process on all processors, and nothing else.
func rawRate(ctx context.Context) (float64, error) {
	var made atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, runtime.NumCPU())
	began := time.Now()
	for range runtime.NumCPU() {
		all.Go(func() { errs <- rawLoop(ctx, began.Add(rawFor), &made) })
	}
	all.Wait()
	took := time.Since(began)
	for range runtime.NumCPU() {
		if err := <-errs; err != nil {
			return 0, fmt.Errorf("run the module bare: %w", err)
		}
	}
	return float64(made.Load()) / took.Seconds(), nil
}

func rawLoop(ctx context.Context, until time.Time, made *atomic.Int64) error {
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	m, err := r.CompileModule(ctx, noop)
	if err != nil {
		return err
	}
	config := wazero.NewModuleConfig().WithName("").WithArgs("noop.wasm")
	for n := int64(0); ; n++ {
		if n%256 == 0 && time.Now().After(until) {
			made.Add(n)
			return nil
		}
		instance, err := r.InstantiateModule(ctx, m, config)
		if err != nil {
			return err
		}
		if err := instance.Close(ctx); err != nil {
			return err
		}
	}
}

const (
	wasmPartitions = 100_000
	wasmWarmup     = 2_000  // partitions before, so that what starts once has started
	wasmTarget     = 10_000 // partitions a second

	// watchPause is how seldom a run is looked at while its rate is measured: the
	// run's end is seen so much too late at most.
	watchPause = 50 * time.Millisecond
)

// wasm measures how fast one agent runs the partitions of one run, from the
// request to the reply that shows them all committed.
func (b *bench) wasm(ctx context.Context) error {
	config, err := b.wasmConfig()
	if err != nil {
		return err
	}
	before, err := rawRate(ctx)
	if err != nil {
		return err
	}
	a, err := b.dev(ctx, "wasm")
	if err != nil {
		return err
	}
	defer a.stop()
	n := b.scaled(wasmPartitions)
	for _, count := range []int{min(n, wasmWarmup), n} {
		job, err := a.job(ctx, "wasm", count, config)
		if err != nil {
			return err
		}
		took, err := a.submit(ctx, job, watchPause, nil)
		if err != nil {
			return err
		}
		if count < n {
			continue
		}
		a.stop() // so that the bare loop has the machine for itself
		after, err := rawRate(ctx)
		if err != nil {
			return err
		}
		b.add(Figure{
			Key: "P2", What: "no-op WASM partitions of one run, one agent", Value: float64(n) / took.Seconds(), Unit: "/s", Target: wasmTarget,
			Limit: (before + after) / 2, LimitWhat: "wazero alone, all processors",
			Detail: fmt.Sprintf("%s in %.2f s", amount(float64(n), "partitions"), took.Seconds()),
		})
		b.addCPU(a, "no-op WebAssembly partition", n+min(n, wasmWarmup))
		break
	}
	return nil
}
