package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	smallRuns      = 20_000 // of one partition each
	smallAsked     = 32     // submissions at once
	smallTarget    = 300    // runs a second, from the first submission to the last end
	waitingRuns    = 10_000 // submitted before there is a node
	waitingTarget  = 300
	smallLook      = 50 * time.Millisecond // between looks whether all are over
	smallRetention = "server {\n  retention {\n    runs = 1000000\n  }\n}\n"
)

// runs measures many runs of one partition each: as they come, and when all of them waited for a node.
func (b *bench) runs(ctx context.Context) error {
	server, gossip, err := b.configured(ctx, "server", smallRetention)
	if err != nil {
		return err
	}
	defer server.stop()
	job, err := server.job(ctx, "mock", 1, "")
	if err != nil {
		return err
	}
	n := b.scaled(waitingRuns)
	if err := server.askFor(ctx, job, n); err != nil {
		return err
	}
	client, _, err := b.configured(ctx, "client", fmt.Sprintf("join = [%q]\nclient {\n  drivers = [\"mock\"]\n  slots = %d\n}\n", gossip, millionSlots))
	if err != nil {
		return err
	}
	defer client.stop()
	if err := server.clientReady(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := server.settled(ctx); err != nil {
		return err
	}
	b.add(Figure{What: fmt.Sprintf("%d waiting runs when a node comes", n), Value: float64(n) / time.Since(began).Seconds(), Unit: "/s", Target: waitingTarget})

	more := b.scaled(smallRuns)
	began = time.Now()
	if err := server.askFor(ctx, job, more); err != nil {
		return err
	}
	asked := time.Since(began)
	if err := server.settled(ctx); err != nil {
		return err
	}
	b.add(Figure{What: fmt.Sprintf("%d runs of one partition, submitted to ended", more), Value: float64(more) / time.Since(began).Seconds(), Unit: "/s", Target: smallTarget,
		Detail: fmt.Sprintf("acknowledged at %.0f/s, %d asked for at once", float64(more)/asked.Seconds(), smallAsked)})
	return nil
}

// askFor submits a job n times.
func (p *process) askFor(ctx context.Context, job sheaf.Job, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	for s := range smallAsked {
		g.Go(func() error {
			for i := s; i < n; i += smallAsked {
				if _, err := p.api.Submit(ctx, api.SubmitRequest{Job: job}); err != nil {
					return fmt.Errorf("submit: %w", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// settled waits until every run is over, and reports one that did not succeed.
func (p *process) settled(ctx context.Context) error {
	look := time.NewTicker(smallLook)
	defer look.Stop()
	for {
		open, _, err := p.api.Runs(ctx, api.Read{Params: map[string][]string{"filter": {`status != "succeeded"`}, "per_page": {"1"}}})
		switch {
		case err != nil:
			return fmt.Errorf("list the runs: %w", err)
		case len(open) == 0:
			return nil
		case open[0].Status.Terminal():
			return fmt.Errorf("run %s is %s", open[0].ID, open[0].Status)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
