package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	execPartitions = 10_000
	execTarget     = 0.5 // of what xargs does
)

// exec measures how fast one agent runs a program that does nothing, each time in a sandbox and with
// its logs kept, and what xargs makes of the same program, two at once, before and after.
func (b *bench) exec(ctx context.Context) error {
	a, err := b.dev(ctx, "exec")
	if err != nil {
		return err
	}
	defer a.stop()
	n := b.scaled(execPartitions)
	if err := a.warm(ctx, "exec", `command = "/bin/true"`, n); err != nil {
		return err
	}
	job, err := a.job(ctx, "exec", n, `command = "/bin/true"`)
	if err != nil {
		return err
	}
	before, err := xargs(ctx, n)
	if err != nil {
		return err
	}
	took, err := a.submit(ctx, job, watchPause, nil)
	if err != nil {
		return err
	}
	after, err := xargs(ctx, n)
	if err != nil {
		return err
	}
	limit := (before + after) / 2
	b.add(Figure{
		Key: "P3", What: "/bin/true of one run, one agent", Value: float64(n) / took.Seconds(), Unit: "/s", Target: execTarget * limit,
		Limit: limit, LimitWhat: "xargs -n1 -P2",
		Detail: fmt.Sprintf("%s in %.2f s", amount(float64(n), "partitions"), took.Seconds()),
	})
	a.stop()
	b.addCPU(a, n)
	return nil
}

// warm runs a few partitions, so that what starts once has started.
func (p *process) warm(ctx context.Context, driver, config string, most int) error {
	job, err := p.job(ctx, driver, min(most, 100), config)
	if err != nil {
		return err
	}
	_, err = p.submit(ctx, job, 0, nil)
	return err
}

// xargs is how many programs it runs in a second.
func xargs(ctx context.Context, n int) (float64, error) {
	cmd := exec.CommandContext(ctx, "xargs", "-n1", "-P2", "/bin/true")
	cmd.Stdin = strings.NewReader(strings.Repeat("x\n", n))
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("xargs: %w", err)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
