package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sheaf-run/agent/e2e/plot"
)

// runSizes are the sizes of a run, in partitions, by which rate and memory are plotted.
var runSizes = []int{1_000, 10_000, 100_000, 1_000_000}

// mostWasm is the largest of them that WebAssembly partitions are measured at: a million take more than a minute.
const mostWasm = 100_000

// The lines of the plot.
const (
	seriesMock   = "partitions that do nothing"
	seriesWasm   = "WebAssembly partitions"
	seriesServer = "server"
	seriesClient = "client with its drivers"
	perSecond    = "/s"
)

// sizes measures runs of several sizes, each on agents that were just started: what they take a second, and what
// memory that takes.
func (b *bench) sizes(ctx context.Context) error {
	config, err := b.wasmConfig()
	if err != nil {
		return err
	}
	for _, size := range runSizes {
		if err := b.mockOf(ctx, b.scaled(size)); err != nil {
			return err
		}
		if size <= mostWasm {
			if err := b.wasmOf(ctx, b.scaled(size), config); err != nil {
				return err
			}
		}
	}
	return nil
}

// mockOf runs n partitions that do nothing on a server and a client that are two processes.
func (b *bench) mockOf(ctx context.Context, n int) error {
	server, client, err := b.apart(ctx, "")
	if err != nil {
		return err
	}
	defer server.stop()
	defer client.stop()
	job, err := server.job(ctx, "mock", n, "")
	if err != nil {
		return err
	}
	f := follower{n: n, server: server.cmd.Process.Pid, client: client.cmd.Process.Pid}
	took, err := server.submit(ctx, job, pauseFor(n), f.look)
	if err != nil {
		return err
	}
	if f.err != nil {
		return f.err
	}
	b.add(point(seriesMock, n, float64(n)/took.Seconds(), perSecond))
	b.add(point(seriesServer, n, megabytes(f.peak), "MB"))
	b.add(point(seriesClient, n, megabytes(f.clientPeak), "MB"))
	return nil
}

// wasmOf runs n WebAssembly partitions that do nothing on one agent that has run some already.
func (b *bench) wasmOf(ctx context.Context, n int, config string) error {
	a, err := b.dev(ctx, "sizes")
	if err != nil {
		return err
	}
	defer a.stop()
	if err := a.warm(ctx, "wasm", config, n); err != nil {
		return err
	}
	job, err := a.job(ctx, "wasm", n, config)
	if err != nil {
		return err
	}
	took, err := a.submit(ctx, job, pauseFor(n), nil)
	if err != nil {
		return err
	}
	b.add(point(seriesWasm, n, float64(n)/took.Seconds(), perSecond))
	return nil
}

// pauseFor is how long a run of that size is left alone between two looks: the end of a small one must be seen at
// once, and looks at a large one cost it something.
func pauseFor(n int) time.Duration {
	if n < runSizes[2] {
		return 0
	}
	return watchPause
}

func point(series string, size int, value float64, unit string) Figure {
	return Figure{What: fmt.Sprintf("%s, a run of %s", series, strings.TrimSpace(amount(float64(size), ""))), Value: value, Unit: unit, AtMost: unit != perSecond, Series: series, Size: size}
}

// draw plots the figures that belong to a series, rates beside memory, both by size.
func (r *Results) draw(path string) error {
	panels := []plot.Panel{
		{Title: "Partitions a second", Below: "partitions of a run"},
		{Title: "Memory at most, MB, of partitions that do nothing", Below: "partitions of a run"},
	}
	figures := slices.Clone(r.Figures)
	slices.SortStableFunc(figures, func(a, b Figure) int { return a.Size - b.Size })
	for _, f := range figures {
		if f.Series == "" {
			continue
		}
		p := &panels[0]
		if f.Unit != perSecond {
			p = &panels[1]
		}
		i := slices.IndexFunc(p.Lines, func(l plot.Line) bool { return l.Name == f.Series })
		if i < 0 {
			i = len(p.Lines)
			p.Lines = append(p.Lines, plot.Line{Name: f.Series})
		}
		p.Lines[i].Points = append(p.Lines[i].Points, [2]float64{float64(f.Size), f.Value})
	}
	for i := range panels {
		if len(panels[i].Lines) == 0 {
			return fmt.Errorf("plot %s: nothing was measured by size: run the part sizes too", path)
		}
		var x, y []float64
		for _, l := range panels[i].Lines {
			for _, at := range l.Points {
				x, y = append(x, at[0]), append(y, at[1])
			}
		}
		panels[i].X, panels[i].Y = plot.Decades(x), plot.Decades(y)
	}
	if err := os.WriteFile(path, plot.SVG(panels), 0o644); err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}
