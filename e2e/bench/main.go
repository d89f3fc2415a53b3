// Bench measures the agent as a user has it: its binary, as processes of their
// own, with raft on disk and outputs durable, on free ports and in directories that it
// removes. Beside each figure stands its target and, taken in the same run on the same
// machine, what the parts below the agent do at most: a noisy machine moves both.
//
// It ends with exit code 1 when a target is missed, and writes all figures as JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// parts are what can be measured, in the order in which it is done.
var parts = []part{
	{"start", "starting an agent, and its memory when idle", (*bench).start},
	{"latency", "one no-op from submission to seen commit", (*bench).latency},
	{"wasm", "no-op WebAssembly partitions on one agent", (*bench).wasm},
	{"exec", "programs that do nothing, beside xargs", (*bench).exec},
	{"mock", "a million partitions, server and client apart", (*bench).million},
	{"sizes", "rate and memory by the size of a run", (*bench).sizes},
	{"fair", "ten partitions behind a million", (*bench).fair},
	{"split", "a million files on disk split", (*bench).split},
	{"runs", "many runs of one partition", (*bench).runs},
	{"fleet", "a million partitions on a thousand simulated clients, and a leader killed", (*bench).fleet},
	{"submit", "ten million partitions submitted", (*bench).submit},
	{"placement", "a million partitions planned over a thousand nodes", unitsOf("placement")},
	{"table", "ten million partitions committed in random order", unitsOf("table")},
	{"files", "a shard staged, and results made, beside cp", unitsOf("files")},
	{"containers", "containers that do nothing, beside containerd alone", unitsOf("containers")},
	{"tails", "simulated runs of very unequal partitions, beside doing nothing about them", unitsOf("tails")},
}

// namedParts run only where they are named: they take long, or packages that few machines have.
var namedParts = []part{
	{"peers", "the same work by GNU parallel, Slurm, Dask, and raft alone", (*bench).peers},
	{"listing", "a million files split, in a bucket and on disk, and what memory that takes", (*bench).listing},
	{"reuse", "an unchanged run over a million files, beside listing them", (*bench).reuse},
}

// part is one thing that can be measured.
type part struct {
	name, about string
	run         func(*bench, context.Context) error
}

// partTimeout ends a part that hangs; the slowest takes a few minutes where targets are just missed.
const partTimeout = 20 * time.Minute

// bench is one run of the program.
type bench struct {
	agent string  // the binary
	root  string  // directory for everything that is written
	scale float64 // of the partitions and runs of the targets
	out   io.Writer
	keep  string // folder for the agents' CPU profiles; "" for none
	plot  string // file for a plot by size; "" for none

	figures []Figure
}

func main() {
	if len(os.Args) >= 2 && os.Args[1] == fleetArgument {
		if err := fleetMain(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: clients:", err)
			os.Exit(1)
		}
		return
	}
	agent := flag.String("agent", "bin/agent", "the agent's binary")
	only := flag.String("only", "", "parts to run, separated by commas; otherwise all but peers, listing and reuse")
	scale := flag.Float64("scale", 1, "this share of the partitions and runs; targets are for 1")
	dir := flag.String("dir", "", "where agents keep their state; a disk, not memory (default: the system's temporary directory)")
	results := flag.String("o", "", "file for the figures (default e2e/bench/results/<date>.json)")
	drawn := flag.String("plot", "", "file for a plot of what was measured by size, as SVG")
	profiles := flag.String("cpu-profiles", "", "folder for CPU profiles of the agents")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run ./e2e/bench [flags]\n\nparts:")
		for _, p := range slices.Concat(parts, namedParts) {
			fmt.Fprintf(os.Stderr, "  %-10s %s\n", p.name, p.about)
		}
		fmt.Fprintln(os.Stderr, "\nflags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *results == "" {
		name := time.Now().UTC().Format("2006-01-02")
		if *scale != 1 { // which does not take the place of whole figures
			name += fmt.Sprintf("-scale-%v", *scale)
		}
		*results = filepath.Join("e2e", "bench", "results", name+".json")
	}
	b := &bench{agent: *agent, scale: *scale, out: os.Stdout, keep: *profiles, plot: *drawn}
	met, err := b.all(ctx, *only, *dir, *results)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(1)
	}
}

// all runs the chosen parts, prints the table and writes it to a file; it tells
// whether every target was met.
func (b *bench) all(ctx context.Context, only, dir, results string) (bool, error) {
	chosen, err := choose(only)
	if err != nil {
		return false, err
	}
	if b.scale <= 0 || b.scale > 1 {
		return false, fmt.Errorf("-scale %v: give more than 0 and at most 1", b.scale)
	}
	if b.agent, err = filepath.Abs(b.agent); err != nil {
		return false, fmt.Errorf("find the agent: %w", err)
	}
	if _, err := os.Stat(b.agent); err != nil {
		return false, fmt.Errorf("find the agent: %w; `make build` makes it", err)
	}
	if b.root, err = os.MkdirTemp(dir, "sheaf-bench-"); err != nil {
		return false, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(b.root)
	defer os.RemoveAll(b.root + filesSuffix)
	machine, err := describe(b.root)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(b.out, "%s\n", machine)
	var failed error
	for _, p := range slices.Concat(parts, namedParts) {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		fmt.Fprintf(b.out, "%s: %s …\n", p.name, p.about)
		if err := b.part(ctx, p.run); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	writeTable(b.out, b.figures)
	r := Results{Date: time.Now().UTC(), Machine: machine, Scale: b.scale, Figures: b.figures, Promises: promises(b.figures)}
	if err := r.write(results); err != nil {
		return false, errors.Join(failed, err)
	}
	if b.plot != "" {
		if err := r.draw(b.plot); err != nil {
			return false, errors.Join(failed, err)
		}
	}
	fmt.Fprintln(b.out, "figures are in", results)
	met := !slices.ContainsFunc(b.figures, func(f Figure) bool { return !f.Met() })
	return met, failed
}

func (b *bench) part(ctx context.Context, run func(*bench, context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, partTimeout)
	defer stop()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go guardDisk(ctx, b.root, fail)
	if err := run(b, ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
	return nil
}

func choose(only string) ([]string, error) {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	if only == "" {
		return names, nil
	}
	for _, p := range namedParts {
		names = append(names, p.name)
	}
	chosen := strings.Split(only, ",")
	for _, c := range chosen {
		if !slices.Contains(names, c) {
			return nil, fmt.Errorf("-only %s: no such part; there are %s", c, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

// scaled is n at the scale, at least 1.
func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.scale)) }

// add keeps a figure and shows it at once.
func (b *bench) add(f Figure) {
	b.figures = append(b.figures, f)
	fmt.Fprintf(b.out, "  %s\n", f)
}

func (b *bench) note(format string, args ...any) {
	fmt.Fprintf(b.out, "  "+format+"\n", args...)
}
