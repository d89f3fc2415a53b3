package main

import (
	"context"
	"os/exec"
	"slices"
	"time"
)

// starts is how often an agent is started; what counts is the median.
const starts = 5

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
		What: "agent dev until ready", Value: quantile(ready, 0.5), Unit: "ms", AtMost: true,
		Limit: quantile(bare, 0.5), LimitWhat: "agent version",
	})
	b.add(Figure{What: "agent dev idle, whole process tree (PSS)", Value: quantile(idle, 0.5), Unit: "MB", AtMost: true})
	return nil
}
