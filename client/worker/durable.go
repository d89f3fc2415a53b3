package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/sheaf"
)

// noRoomPause is the wait before a batch for which there was no room is tried again.
const noRoomPause = time.Second

// durable makes records durable in batches: what ends while one batch is being
// synced is the next. Under light load a batch is one record, at once.
type durable struct {
	w *Worker

	mu      sync.Mutex
	ended   []*execution.Execution
	acks    map[*runData][]store.Key
	deletes []deletion
	jobs    []func()
	wake    chan struct{} // of size 1; of run
	more    chan struct{} // of size 1; of runJobs
}

type deletion struct {
	run *store.Run
	key store.Key
}

func newDurable(w *Worker) *durable {
	return &durable{w: w, acks: map[*runData][]store.Key{}, wake: make(chan struct{}, 1), more: make(chan struct{}, 1)}
}

// add queues records to be written, and answers to be marked. The loop calls it.
func (d *durable) add(ended []*execution.Execution, keep, drop []*execution.Result) {
	if len(ended)+len(keep)+len(drop) == 0 {
		return
	}
	d.mu.Lock()
	d.ended = append(d.ended, ended...)
	for _, r := range keep {
		if r.Stray {
			continue
		}
		run := dataOf(r.Run)
		d.acks[run] = append(d.acks[run], keyOf(r.Partition, r.Attempt))
	}
	for _, r := range drop {
		run := dataOf(r.Run)
		if !r.Stray { // which has no record
			d.acks[run] = append(d.acks[run], keyOf(r.Partition, r.Attempt))
		}
		if len(run.job.Outputs) > 0 || run.spec == nil || r.Stray {
			d.deletes = append(d.deletes, deletion{run.store, keyOf(r.Partition, r.Attempt)})
		}
	}
	d.mu.Unlock()
	signal(d.wake)
}

// later has job run beside the writing, one after the other.
func (d *durable) later(job func()) {
	d.mu.Lock()
	d.jobs = append(d.jobs, job)
	d.mu.Unlock()
	signal(d.more)
}

func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// runJobs does what may take long, such as deleting the files of a run: no
// result waits for it. It ends when ctx does and nothing is left.
func (d *durable) runJobs(ctx context.Context) {
	for {
		d.mu.Lock()
		jobs := d.jobs
		d.jobs = nil
		d.mu.Unlock()
		for _, job := range jobs {
			job()
		}
		if len(jobs) > 0 {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-d.more:
		case <-ctx.Done():
		}
	}
}

// run writes until ctx ends, and then what is left. An error says that the
// disk cannot be trusted any more.
func (d *durable) run(ctx context.Context) error {
	var ended []*execution.Execution
	acks := map[*runData][]store.Key{}
	var deletes []deletion
	for {
		d.mu.Lock()
		ended, d.ended = d.ended, ended[:0]
		acks, d.acks = d.acks, acks
		deletes, d.deletes = d.deletes, deletes[:0]
		d.mu.Unlock()
		if len(ended)+len(acks)+len(deletes) == 0 {
			if ctx.Err() != nil {
				return nil
			}
			select {
			case <-d.wake:
				continue
			default:
			}
			d.w.cfg.Store.Tidy()
			select {
			case <-d.wake:
			case <-ctx.Done():
			}
			continue
		}
		if err := d.write(ctx, ended); err != nil {
			if ctx.Err() == nil {
				d.w.post(func() { d.w.fail(err) })
			}
			return err
		}
		// Before the answers are marked: what a crash leaves of it is asked about again.
		for _, x := range deletes {
			if err := x.run.DeleteOutput(x.key); err != nil {
				d.w.log.Warn("output not deleted", "partition", x.key.Partition, "attempt", x.key.Attempt, "error", err)
			}
		}
		for run, keys := range acks {
			if err := run.store.Ack(keys); err != nil {
				d.w.log.Warn("answers not marked", "error", err)
			}
		}
		clear(acks)
		clear(ended)
		clear(deletes)
	}
}

// write makes a batch durable, and waits for room where there is none.
func (d *durable) write(ctx context.Context, ended []*execution.Execution) error {
	if len(ended) == 0 {
		return nil
	}
	full := false
	again := func(step func() error) error {
		for {
			err := step()
			if err == nil || sheaf.ClassOf(err) != sheaf.Unavailable {
				return err
			}
			if !full {
				full = true
				d.w.post(func() { d.w.refuse(err) })
			}
			select {
			case <-ctx.Done():
				return nil // what is not durable is not sent, and is run again
			case <-time.After(noRoomPause):
			}
		}
	}
	for _, x := range ended {
		t, _ := x.Data.(*task)
		if err := again(func() error { return appendRecord(x, t) }); err != nil {
			return fmt.Errorf("keep the record of %s: %w", x.ID, err)
		}
	}
	if err := again(d.w.cfg.Store.Sync); err != nil {
		return fmt.Errorf("make %d records durable: %w", len(ended), err)
	}
	list := append([]*execution.Execution(nil), ended...)
	d.w.post(func() {
		if full {
			d.w.refuse(nil)
		}
		for _, x := range list {
			if x.Saved {
				d.w.saver.remove(x.ID)
			}
			d.w.core.Stored(x)
		}
	})
	return nil
}

// appendRecord writes the record of x. The loop does not touch x meanwhile,
// but for its Stop and Unwanted, which are not read here.
func appendRecord(x *execution.Execution, t *task) error {
	r := x.Result
	rec := store.Record{
		Partition: int(r.Partition), Attempt: r.Attempt, Generation: r.Generation,
		Outcome: r.Outcome, Failure: r.Failure, ExitCode: r.ExitCode,
		Started: time.UnixMilli(r.StartedMs), Duration: time.Duration(r.DurationMs) * time.Millisecond,
		CPU: time.Duration(r.CPUMs) * time.Millisecond, PeakMemory: int64(r.PeakKiB) << 10,
		Digest: r.Digest,
	}
	if r.Text != nil {
		rec.Message = r.Text.Message
	}
	var logs *store.Logs
	if t != nil {
		rec.Manifest, logs = t.manifest, t.logs
	}
	return dataOf(x.Run).store.Append(rec, logs)
}
