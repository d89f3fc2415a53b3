package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/sheaf-run/agent/api"
)

// starts is how often an agent is started; what counts is the median.
const starts = 5

const (
	startTarget       = 500 // ms
	idleTarget        = 60  // MB
	waitingCoreTarget = 1   // per cent of a core
	waitingFor        = 20 * time.Second
)

// start measures how long an agent takes until it can be given work, and the
// memory of its process tree once it has nothing to do.
func (b *bench) start(ctx context.Context) error {
	var ready, idle, bare []float64
	for range max(1, b.scaled(starts)) {
		began := time.Now()
		if err := exec.CommandContext(ctx, b.agent, "version").Run(); err != nil {
			return err
		}
		bare = append(bare, milliseconds(time.Since(began)))
		a, err := b.dev(ctx, "start")
		if err != nil {
			return err
		}
		ready = append(ready, milliseconds(a.took))
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
		pss, err := proportional(a.cmd.Process.Pid)
		a.stop()
		if err != nil {
			return err
		}
		idle = append(idle, megabytes(pss))
	}
	for _, s := range [][]float64{ready, idle, bare} {
		slices.Sort(s)
	}
	b.add(Figure{
		Key: "P11", What: "agent dev until ready", Value: quantile(ready, 0.5), Unit: "ms", Target: startTarget, AtMost: true,
		Limit: quantile(bare, 0.5), LimitWhat: "agent version",
	})
	b.add(Figure{Key: "P11.memory", What: "agent dev idle, whole process tree (PSS)", Value: quantile(idle, 0.5), Unit: "MB", Target: idleTarget, AtMost: true})
	return b.waiting(ctx)
}

// waiting measures what an agent computes while a million partitions wait that no node can take.
func (b *bench) waiting(ctx context.Context) error {
	a, err := b.dev(ctx, "waiting")
	if err != nil {
		return err
	}
	defer a.stop()
	job, err := a.api.Parse(ctx, api.ParseRequest{HCL: fmt.Sprintf(`
job "waits" {
  count = %d
  task "noop" {
    driver = "mock"
  }
  constraint {
    attribute = "${node.class}"
    value     = "of which there is no node"
  }
}`, b.scaled(millionPartitions))})
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	reply, err := a.api.Submit(ctx, api.SubmitRequest{Job: job})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	for _, d := range []time.Duration{settle, max(settle, time.Duration(b.scale*float64(waitingFor)))} {
		before, began := computed(a.cmd.Process.Pid), time.Now()
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if d == settle && b.scale == 1 {
			continue // for it to come to rest
		}
		share := 100 * float64(computed(a.cmd.Process.Pid)-before) / float64(time.Since(began))
		b.add(Figure{Key: "P11.waiting", What: "a million partitions wait, share of a core", Value: share, Unit: "%", Target: waitingCoreTarget, AtMost: true})
		break
	}
	s, _, err := a.api.Summary(ctx, string(reply.Run.ID), api.Read{})
	if err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	if s.Partitions.Pending != job.Count {
		return fmt.Errorf("of %d partitions %d wait", job.Count, s.Partitions.Pending)
	}
	return nil
}
