package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sheaf-run/agent/api"
)

const (
	submitPartitions = 10_000_000
	submitReads      = 200

	submitTarget       = 50 // ms
	submitMemoryTarget = 1  // MB
	statusTarget       = 10 // ms, 99th percentile
)

// submit measures what it costs to ask for ten million partitions that no node
// can take yet: the time until they are acknowledged, the server's memory, and
// how fast the run's status is told.
func (b *bench) submit(ctx context.Context) error {
	server, _, err := b.configured(ctx, "server", "")
	if err != nil {
		return err
	}
	defer server.stop()
	n := b.scaled(submitPartitions)
	job, err := server.job(ctx, "mock", n, "")
	if err != nil {
		return err
	}
	base, err := anonymous(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	reply, err := server.api.Submit(ctx, api.SubmitRequest{Job: job})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	b.add(Figure{Key: "P7", What: fmt.Sprintf("submit count = %d until acknowledged", n), Value: milliseconds(time.Since(began)), Unit: "ms", Target: submitTarget, AtMost: true})
	after, err := anonymous(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	var reads []float64
	for range submitReads {
		began := time.Now()
		s, _, err := server.api.Summary(ctx, string(reply.Run.ID), api.Read{})
		if err != nil {
			return fmt.Errorf("read the status: %w", err)
		}
		if s.Partitions.Total != n {
			return fmt.Errorf("the run has %d partitions of %d", s.Partitions.Total, n)
		}
		reads = append(reads, milliseconds(time.Since(began)))
	}
	slices.Sort(reads)
	b.add(Figure{Key: "P7.status", What: "its status, 99th percentile", Value: quantile(reads, 0.99), Unit: "ms", Target: statusTarget, AtMost: true,
		Detail: fmt.Sprintf("%d reads, median %.2f ms", len(reads), quantile(reads, 0.5))})
	b.add(Figure{Key: "P7.memory", What: "the server's memory for it, growth", Value: megabytes(after - base), Unit: "MB", Target: submitMemoryTarget, AtMost: true})
	return nil
}
