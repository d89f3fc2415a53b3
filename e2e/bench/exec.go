package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	execPartitions = 10_000
	execTarget     = 0.5 // of what xargs does
	execRunTarget  = 0.8 // with isolation = "run"
)

// exec measures how fast one agent runs a program that does nothing, each time in a sandbox and with
// its logs kept, and again with isolation = "run"; and what xargs makes of the same program, two at once, before and after.
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
	var took [2]time.Duration
	for i, isolation := range []string{sheaf.IsolationPartition, sheaf.IsolationRun} {
		job.Isolation = isolation
		if took[i], err = a.submit(ctx, job, watchPause, nil); err != nil {
			return err
		}
	}
	after, err := xargs(ctx, n)
	if err != nil {
		return err
	}
	limit := (before + after) / 2
	for i, f := range []Figure{
		{Key: "P3", What: "/bin/true of one run, one agent", Target: execTarget * limit},
		{Key: "P3.run", What: `/bin/true of one run with isolation "run", one agent`, Target: execRunTarget * limit},
	} {
		f.Value, f.Unit, f.Limit, f.LimitWhat = float64(n)/took[i].Seconds(), "/s", limit, "xargs -n1 -P2"
		f.Detail = fmt.Sprintf("%s in %.2f s", amount(float64(n), "partitions"), took[i].Seconds())
		b.add(f)
	}
	a.stop()
	b.addCPU(a, "program", 2*n)
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
