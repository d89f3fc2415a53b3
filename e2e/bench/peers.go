package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peerTimeout is the longest that one peer may take.
const peerTimeout = time.Minute

// What each peer runs: so much that it takes some seconds, and never a minute.
const (
	parallelTasks = 1_000
	slurmTasks    = 300
	daskTasks     = 2_000
	peerMock      = 100_000
)

// needed is a program of a Debian package that a peer is made of.
type needed struct{ program, debian string }

// peersNeed are those that are not on every machine.
var peersNeed = []needed{
	{"parallel", "parallel"}, {"munged", "munge"}, {"slurmctld", "slurmctld"}, {"slurmd", "slurmd"}, {"sbatch", "slurm-client"},
	{"dask-scheduler", "python3-distributed"}, {debianPython, "python3-distributed"},
}

// present fails with the names of the packages that are missing.
func present(programs []needed, find func(string) (string, error)) error {
	var all error
	for _, p := range programs {
		if _, err := find(p.program); err != nil {
			all = errors.Join(all, fmt.Errorf("%s is not there: install Debian's package %s, as e2e/bench/install-peers does: %w", p.program, p.debian, err))
		}
	}
	return all
}

// peers runs the same programs as partitions of one run and by what else there is for such work, each set up and
// stopped again; and raft alone beside partitions that do nothing.
func (b *bench) peers(ctx context.Context) error {
	if err := present(peersNeed, exec.LookPath); err != nil {
		return err
	}
	programs, functions, err := b.ours(ctx)
	if err != nil {
		return err
	}
	for _, p := range []peer{
		{"/bin/true", "GNU parallel -j2 --joblog --results", programs, func(ctx context.Context) (float64, error) { return b.parallel(ctx, b.scaled(parallelTasks)) }},
		{"/bin/true", "an array of Slurm's, tuned", programs, func(ctx context.Context) (float64, error) { return b.slurm(ctx, b.scaled(slurmTasks)) }},
		{"/bin/true", "Dask with a subprocess each", programs, func(ctx context.Context) (float64, error) { return b.dask(ctx, "program", b.scaled(daskTasks)) }},
		{"partitions that do nothing", "Dask's functions that do nothing", functions, func(ctx context.Context) (float64, error) { return b.dask(ctx, "function", b.scaled(daskTasks)) }},
		{"partitions that do nothing", "entries of 1 KiB in raft alone, one voter, 64 at once", functions, b.rawRaft},
	} {
		theirs, err := p.within(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		b.add(Figure{What: p.what + " beside " + p.name, Value: p.ours, Unit: "/s", Limit: theirs, LimitWhat: p.name})
	}
	return nil
}

// peer is something else that does such work.
type peer struct {
	what, name string
	ours       float64 // a second
	rate       func(context.Context) (float64, error)
}

// within takes the peer's rate, in bounded time.
func (p *peer) within(ctx context.Context) (float64, error) {
	ctx, stop := context.WithTimeoutCause(ctx, peerTimeout, fmt.Errorf("it took longer than %v", peerTimeout))
	defer stop()
	return p.rate(ctx)
}

// ours are the rates of the agent, of programs and of partitions that do nothing.
func (b *bench) ours(ctx context.Context) (programs, functions float64, err error) {
	a, err := b.dev(ctx, "peers")
	if err != nil {
		return 0, 0, err
	}
	defer a.stop()
	rate := func(driver, config string, n int) (float64, error) {
		if err := a.warm(ctx, driver, config, n); err != nil {
			return 0, err
		}
		job, err := a.job(ctx, driver, n, config)
		if err != nil {
			return 0, err
		}
		took, err := a.submit(ctx, job, watchPause, nil)
		return float64(n) / took.Seconds(), err
	}
	if programs, err = rate("exec", `command = "/bin/true"`, b.scaled(execPartitions)); err != nil {
		return 0, 0, err
	}
	functions, err = rate("mock", "", b.scaled(peerMock))
	return programs, functions, err
}

// parallel is how many programs GNU parallel runs in a second, two at once, with their logs kept.
func (b *bench) parallel(ctx context.Context, n int) (float64, error) {
	dir, err := os.MkdirTemp(b.root, "parallel-")
	if err != nil {
		return 0, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "parallel", "--will-cite", "-j2", "--joblog", filepath.Join(dir, "log"), "--results", filepath.Join(dir, "results"), "/bin/true")
	cmd.Env = append(os.Environ(), "PARALLEL_HOME="+dir) // it keeps what it has found out of the machine
	cmd.WaitDelay = time.Second
	var input strings.Builder
	for i := range n {
		fmt.Fprintln(&input, i)
	}
	cmd.Stdin = strings.NewReader(input.String())
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", orCause(ctx, err), lastOf(string(out)))
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// debianPython is the one that has Debian's modules.
const debianPython = "/usr/bin/python3"

//go:embed daskpeer.py
var daskProgram []byte

// dask is how many functions Dask runs in a second, on two workers that are a process each.
func (b *bench) dask(ctx context.Context, what string, n int) (float64, error) {
	program := filepath.Join(b.root, "daskpeer.py") // its workers import it
	if err := os.WriteFile(program, daskProgram, 0o600); err != nil {
		return 0, fmt.Errorf("write Dask's program: %w", err)
	}
	cmd := exec.CommandContext(ctx, debianPython, program, what, strconv.Itoa(n))
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", orCause(ctx, err), lastOf(said.String()))
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil || seconds <= 0 {
		return 0, fmt.Errorf("it printed %q, which is no time: %s", out, lastOf(said.String()))
	}
	return float64(n) / seconds, nil
}

// orCause is why ctx ended, where that is why a program failed.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
