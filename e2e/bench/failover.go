package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// fleet runs a million partitions on a thousand simulated clients, then more, in the midst of which the leader is killed.
func (b *bench) fleet(ctx context.Context) error {
	s, err := b.newSwarm(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	job, err := s.job(ctx, b.scaled(fleetPartitions))
	if err != nil {
		return err
	}
	var peak int64
	var last time.Time
	var failed error
	before := s.computed()
	took, err := s.servers[0].submit(ctx, job, watchPause, func(sheaf.RunSummary) {
		if time.Since(last) < fleetLook {
			return
		}
		last = time.Now()
		m, err := s.memory()
		failed = errors.Join(failed, err)
		peak = max(peak, m)
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	b.add(Figure{
		Key: "P5", What: fmt.Sprintf("mock partitions on %d simulated clients, %d servers", b.fleetSize(), fleetServers),
		Value: float64(job.Count) / took.Seconds(), Unit: "/s", Target: fleetTarget,
		Detail: fmt.Sprintf("%s in %.1f s; tasks take %v, exponentially distributed, %.0f %% fail; %d slots a client",
			amount(float64(job.Count), "partitions"), took.Seconds(), fleetMean, 100*fleetFailing, fleetSlots),
	})
	b.add(Figure{What: "processor time of servers and clients for a partition", Value: float64((s.computed() - before).Microseconds()) / float64(job.Count), Unit: "µs", AtMost: true})
	b.add(Figure{Key: "P5.memory", What: "memory of servers and clients together, at most", Value: megabytes(peak), Unit: "MB", Target: fleetMemoryTarget, AtMost: true})
	return b.failover(ctx, s)
}

// job is one whose tasks may fail a few times.
func (s *swarm) job(ctx context.Context, count int) (j sheaf.Job, err error) {
	text := api.ParseRequest{HCL: fmt.Sprintf(`
job "fleet" {
  count = %d
  task "wait" {
    driver = "mock"
  }
  retry {
    attempts = 10
    delay    = "100ms"
  }
}`, count)}
	if err := s.servers[0].again(ctx, func() (err error) { j, err = s.servers[0].api.Parse(ctx, text); return err }); err != nil {
		return j, fmt.Errorf("read the job: %w", err)
	}
	return j, nil
}

// failover kills the leader under a run, and takes the time until another has committed more of it.
func (b *bench) failover(ctx context.Context, s *swarm) error {
	job, err := s.job(ctx, b.fleetSize()*fleetSlots*int(failoverLength/fleetMean))
	if err != nil {
		return err
	}
	reply, err := s.servers[0].ask(ctx, job)
	if err != nil {
		return err
	}
	id := string(reply.Run.ID)
	for index, done := reply.Index, 0; done < job.Count/5; {
		sum, m, err := s.servers[0].look(ctx, id, index)
		if err != nil {
			return fmt.Errorf("watch the run: %w", err)
		}
		index, done = m.Index, sum.Partitions.Succeeded
	}
	address := ""
	for address == "" { // nobody leads while another is elected
		if err := s.servers[0].again(ctx, func() (err error) { address, err = s.servers[0].api.Leader(ctx); return err }); err != nil {
			return fmt.Errorf("ask for the leader: %w", err)
		}
	}
	var survivor *process
	for i, p := range s.servers {
		if s.rpc[i] != address {
			survivor = p
		}
	}
	for i, p := range s.servers {
		if s.rpc[i] == address {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	}
	killed := time.Now()
	first := -1 // what the next leader found
	for {
		sum, _, err := survivor.api.Summary(ctx, id, api.Read{})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil: // there is no leader yet
		case sum.Status.Terminal():
			return errors.New("the run was over before another leader committed more of it: it is too short")
		case first < 0:
			first = sum.Partitions.Succeeded
		case sum.Partitions.Succeeded > first:
			b.add(Figure{Key: "P13", What: "work goes on after the leader's SIGKILL", Value: milliseconds(time.Since(killed)), Unit: "ms", Target: failoverTarget, AtMost: true,
				Detail: "until the next leader has committed partitions that it placed or that went on"})
			return s.unnoticed(ctx, survivor, id, job.Count)
		}
	}
}

// unnoticed waits for the end of a run, and checks that no partition was lost.
func (s *swarm) unnoticed(ctx context.Context, p *process, id string, count int) error {
	for index := uint64(1); ; {
		sum, m, err := p.look(ctx, id, index)
		if err != nil {
			return fmt.Errorf("watch the run: %w", err)
		}
		if index = m.Index; !sum.Status.Terminal() {
			continue
		}
		if err := whole(sum, count); err != nil {
			return err
		}
		break
	}
	var lost []sheaf.Partition
	if err := p.again(ctx, func() (err error) {
		lost, _, err = p.api.Partitions(ctx, id, api.Read{Params: map[string][]string{"filter": {"losses > 0"}, "per_page": {"10"}}})
		return err
	}); err != nil {
		return fmt.Errorf("look for partitions that were lost: %w", err)
	}
	if len(lost) > 0 {
		return fmt.Errorf("a leader's end cost executions, of partition %d for one; the log of a server that went on:\n%s", lost[0].Index, p.tail())
	}
	return nil
}
