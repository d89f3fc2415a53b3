package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// job has the agent read a job of count partitions with a driver's config.
func (p *process) job(ctx context.Context, driver string, count int, config string) (sheaf.Job, error) {
	j, err := p.api.Parse(ctx, api.ParseRequest{HCL: fmt.Sprintf(`
job "bench" {
  count = %d
  task "noop" {
    driver = %q
    config {
      %s
    }
  }
}`, count, driver, config)})
	if err != nil {
		return j, fmt.Errorf("read the job: %w", err)
	}
	return j, nil
}

// blockFor is how long a read waits for news; the agent's own limit is longer.
const blockFor = 10 * time.Second

// submit asks for a run and reads it until done says so, at most once a pause:
// a run that commits thousands of times a second has news at every read. It
// returns how long it took from the request to the reply that showed it.
func (p *process) submit(ctx context.Context, job sheaf.Job, pause time.Duration, each func(sheaf.RunSummary)) (time.Duration, error) {
	began := time.Now()
	reply, err := p.ask(ctx, job)
	if err != nil {
		return 0, err
	}
	id, index := string(reply.Run.ID), reply.Index
	for {
		s, m, err := p.look(ctx, id, index)
		if err != nil {
			return 0, fmt.Errorf("watch run %s: %w; the agent's log:\n%s", id, err, p.tail())
		}
		if each != nil {
			each(s)
		}
		if s.Status.Terminal() {
			took := time.Since(began)
			return took, whole(s, job.Count)
		}
		index = m.Index
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
	}
}

// leaderPause is how soon servers are asked again that have no leader.
const leaderPause = 50 * time.Millisecond

// again asks until there is a leader to answer. Several servers on one busy machine may change leaders by themselves: that costs
// time, which is measured, and is no reason to end.
func (p *process) again(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if class := sheaf.ClassOf(err); err == nil || class != sheaf.Unavailable && class != sheaf.NotLeader {
			return err
		}
		select {
		case <-p.exited:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(leaderPause):
		}
	}
}

// ask asks for a run. However often that is, it is one.
func (p *process) ask(ctx context.Context, job sheaf.Job) (reply api.SubmitReply, err error) {
	req := api.SubmitRequest{ID: api.NewRunID(job.Name), Job: job}
	if err := p.again(ctx, func() (err error) { reply, err = p.api.Submit(ctx, req); return err }); err != nil {
		return reply, fmt.Errorf("submit: %w", err)
	}
	return reply, nil
}

// look reads a run once there is news.
func (p *process) look(ctx context.Context, id string, index uint64) (s sheaf.RunSummary, m api.Meta, err error) {
	err = p.again(ctx, func() (err error) {
		s, m, err = p.api.Summary(ctx, id, api.Read{Index: index, Wait: blockFor})
		return err
	})
	return s, m, err
}

// whole checks that a run did all of its work: a figure for less would be none.
func whole(s sheaf.RunSummary, count int) error {
	if s.Status != sheaf.RunSucceeded || s.Partitions.Total != count || s.Partitions.Succeeded != count {
		return fmt.Errorf("run %s is %s with %d of %d partitions succeeded: %s", s.ID, s.Status, s.Partitions.Succeeded, count, s.Error)
	}
	return nil
}

// clientReady waits until the server has a node to place on.
func (p *process) clientReady(ctx context.Context) error {
	var index uint64
	for {
		nodes, m, err := p.api.Nodes(ctx, api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return fmt.Errorf("wait for the client: %w", err)
		}
		for _, n := range nodes {
			if n.Status == sheaf.NodeReady {
				return nil
			}
		}
		index = m.Index
	}
}
