package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	millionPartitions = 1_000_000
	millionSlots      = 64

	serverGrowthTarget = 150 // MB, over what it was before
	clientGrowthTarget = 5   // per cent, over the last half

	// columnBytes is what a partition may take at a server, all included.
	columnBytes = 96

	memoryEvery = 50 * time.Millisecond
	settle      = 3 * time.Second // after the start, before the memory then is taken
)

// million runs a million partitions that do nothing, on a server and a client
// that are processes of their own, and follows what memory each holds.
func (b *bench) million(ctx context.Context) error {
	server, gossip, err := b.configured(ctx, "server", "")
	if err != nil {
		return err
	}
	defer server.stop()
	client, _, err := b.configured(ctx, "client", fmt.Sprintf("join = [%q]\nclient {\n  drivers = [\"mock\"]\n  slots = %d\n}\n", gossip, millionSlots))
	if err != nil {
		return err
	}
	defer client.stop()
	if err := server.clientReady(ctx); err != nil {
		return err
	}
	n := b.scaled(millionPartitions)
	job, err := server.job(ctx, "mock", n, "")
	if err != nil {
		return err
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	base, err := anonymous(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	f := follower{n: n, server: server.cmd.Process.Pid, client: client.cmd.Process.Pid}
	took, err := server.submit(ctx, job, watchPause, f.look)
	if err != nil {
		return err
	}
	if f.err != nil {
		return f.err
	}
	b.report(f, base, took)
	return nil
}

// follower takes the memory of server and client as a run goes on.
type follower struct {
	n              int
	server, client int // processes
	last           time.Time
	peak, atEnd    int64 // of the server, bytes
	clients        []sample
	clientPeak     int64
	err            error
}

func (f *follower) look(s sheaf.RunSummary) {
	over := s.Status.Terminal()
	if f.err != nil || !over && time.Since(f.last) < memoryEvery {
		return
	}
	f.last = time.Now()
	server, err := anonymous(f.server)
	if err != nil {
		f.err = err
		return
	}
	client, err := anonymous(f.client)
	if err != nil {
		f.err = err
		return
	}
	f.peak, f.atEnd = max(f.peak, server), server
	f.clientPeak = max(f.clientPeak, client)
	f.clients = append(f.clients, sample{done: float64(s.Partitions.Succeeded) / float64(f.n), memory: float64(client)})
}

func (b *bench) report(f follower, base int64, took time.Duration) {
	n := float64(f.n)
	b.add(Figure{
		What: "mock partitions of one run, server and client apart", Value: n / took.Seconds(), Unit: "/s",
		Detail: fmt.Sprintf("%s in %.1f s", amount(n, "partitions"), took.Seconds()),
	})
	b.add(Figure{
		Key: "P14.server", What: "the server's memory, growth to its peak", Value: megabytes(f.peak - base), Unit: "MB",
		Target: serverGrowthTarget, AtMost: true,
		Limit: n * columnBytes / (1 << 20), LimitWhat: fmt.Sprintf("%d bytes a partition", columnBytes),
		Detail: fmt.Sprintf("from %s to %s, %s at the end", amount(megabytes(base), "MB"), amount(megabytes(f.peak), "MB"), amount(megabytes(f.atEnd), "MB")),
	})
	begin, end, ok := growth(f.clients, 0.5)
	if !ok {
		b.note("the run was too short to tell how the client's memory grows")
		return
	}
	b.add(Figure{
		Key: "P14", What: "the client's memory, growth over the last half", Value: 100 * (end - begin) / begin, Unit: "%",
		Target: clientGrowthTarget, AtMost: true,
		Detail: fmt.Sprintf("with its drivers, its floor from %s to %s by a line, at most %s, %d samples", amount(begin/(1<<20), "MB"), amount(end/(1<<20), "MB"), amount(megabytes(f.clientPeak), "MB"), len(f.clients)),
	})
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }
