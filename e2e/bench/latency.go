package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	latencyRuns   = 1_000
	latencyWarmup = 20
	latencyTarget = 10 // ms, the median

	// latencySyncs is how many syncs must follow each other before a run of one partition
	// is seen as committed: the job, its placement, its output and its commit are durable in turn.
	latencySyncs = 4
)

// latency measures the time from the request for a run of one no-op until a
// blocking read shows it succeeded, for one run after another on a warm agent.
func (b *bench) latency(ctx context.Context) error {
	config, err := b.wasmConfig()
	if err != nil {
		return err
	}
	a, err := b.dev(ctx, "latency")
	if err != nil {
		return err
	}
	defer a.stop()
	job, err := a.job(ctx, "wasm", 1, config)
	if err != nil {
		return err
	}
	var took []float64
	for i := range latencyWarmup + b.scaled(latencyRuns) {
		d, err := a.submit(ctx, job, 0, nil)
		if err != nil {
			return err
		}
		if i >= latencyWarmup {
			took = append(took, milliseconds(d))
		}
	}
	limit, err := syncTime(b.root)
	if err != nil {
		return err
	}
	slices.Sort(took)
	b.add(Figure{
		Key: "P1", What: "one no-op from submission to seen commit, median", Value: quantile(took, 0.5), Unit: "ms", Target: latencyTarget, AtMost: true,
		Limit: latencySyncs * limit, LimitWhat: fmt.Sprintf("%d syncs of 1 KiB, one after another", latencySyncs),
		Detail: fmt.Sprintf("%d runs, from %s to %s", len(took), amount(took[0], "ms"), amount(took[len(took)-1], "ms")),
	})
	b.add(Figure{What: "the same, 99th percentile", Value: quantile(took, 0.99), Unit: "ms", AtMost: true})
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile is of sorted values, of which there is at least one.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// syncSamples is how many syncs are measured.
const syncSamples = 500

// syncTime is the median time of writing and syncing 1 KiB, in milliseconds.
func syncTime(dir string) (float64, error) {
	path := filepath.Join(dir, "sync")
	f, err := os.Create(path)
	if err != nil {
		return 0, fmt.Errorf("measure syncs: %w", err)
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, 1<<10)
	// As logs do: the space is there before, so that a sync writes data alone.
	if err := f.Truncate(syncSamples << 10); err != nil {
		return 0, fmt.Errorf("measure syncs: %w", err)
	}
	var took []float64
	for i := range syncSamples {
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i)<<10); err != nil {
			return 0, fmt.Errorf("measure syncs: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("measure syncs: %w", err)
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	slices.Sort(took)
	return quantile(took, 0.5), nil
}
