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
	b.add(Figure{What: fmt.Sprintf("submit count = %d until acknowledged", n), Value: milliseconds(time.Since(began)), Unit: "ms", AtMost: true})
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
	after, err := anonymous(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	slices.Sort(reads)
	b.add(Figure{What: "its status, median", Value: quantile(reads, 0.5), Unit: "ms", AtMost: true})
	b.add(Figure{What: "the server's memory for it, growth", Value: megabytes(after - base), Unit: "MB", AtMost: true})
	return nil
}
