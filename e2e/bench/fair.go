package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sheaf-run/agent/api"
)

const (
	fairSlots  = 16
	fairTask   = 100 * time.Millisecond // of a partition
	fairSmall  = 10                     // partitions of the run behind
	fairRuns   = 10
	fairTarget = 1000 // ms, the worst
)

// fair measures how long a run of ten waits behind a run of a million that has every slot
// and its lookahead: until the last of the ten has begun.
func (b *bench) fair(ctx context.Context) error {
	server, gossip, err := b.configured(ctx, "server", "")
	if err != nil {
		return err
	}
	defer server.stop()
	client, _, err := b.configured(ctx, "client", fmt.Sprintf("join = [%q]\nclient {\n  drivers = [\"mock\"]\n  slots = %d\n}\n", gossip, fairSlots))
	if err != nil {
		return err
	}
	defer client.stop()
	if err := server.clientReady(ctx); err != nil {
		return err
	}
	config := fmt.Sprintf("duration = %q", fairTask)
	large, err := server.job(ctx, "mock", millionPartitions, config)
	if err != nil {
		return err
	}
	small, err := server.job(ctx, "mock", fairSmall, config)
	if err != nil {
		return err
	}
	reply, err := server.api.Submit(ctx, api.SubmitRequest{Job: large})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	for index, done := reply.Index, 0; done < 3*fairSlots; { // by now the node has its rate's lookahead
		s, m, err := server.api.Summary(ctx, string(reply.Run.ID), api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return fmt.Errorf("watch the large run: %w", err)
		}
		index, done = m.Index, s.Partitions.Succeeded
	}
	var waits []float64
	for range b.scaled(fairRuns) {
		wait, err := server.begun(ctx, api.SubmitRequest{Job: small})
		if err != nil {
			return err
		}
		waits = append(waits, milliseconds(wait))
	}
	slices.Sort(waits)
	b.add(Figure{What: "ten partitions behind a million, until the last has begun", Value: waits[len(waits)-1], Unit: "ms", Target: fairTarget, AtMost: true,
		Detail: fmt.Sprintf("the worst of %d, median %.0f ms, of %v each on %d slots", len(waits), quantile(waits, 0.5), fairTask, fairSlots)})
	if _, err := server.api.Stop(ctx, string(reply.Run.ID)); err != nil {
		return fmt.Errorf("stop the large run: %w", err)
	}
	return nil
}

// begun submits a run, waits for its end, and tells how long after the submission the last of
// its partitions began.
func (p *process) begun(ctx context.Context, req api.SubmitRequest) (time.Duration, error) {
	at := time.Now()
	reply, err := p.api.Submit(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("submit: %w", err)
	}
	id := string(reply.Run.ID)
	for index, over := reply.Index, false; !over; {
		s, m, err := p.api.Summary(ctx, id, api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return 0, fmt.Errorf("watch run %s: %w", id, err)
		}
		if index, over = m.Index, s.Status.Terminal(); over {
			if err := whole(s, req.Job.Count); err != nil {
				return 0, err
			}
		}
	}
	all, _, err := p.api.Partitions(ctx, id, api.Read{})
	if err != nil {
		return 0, fmt.Errorf("list partitions of %s: %w", id, err)
	}
	last := at
	for _, x := range all {
		if x.Started != nil && x.Started.After(last) {
			last = *x.Started
		}
	}
	return last.Sub(at), nil
}
