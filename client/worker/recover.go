package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// recover brings back what a process before this one left: results that were
// not answered, and executions that still run. Everything else of it is ended
// before this returns, so that nothing runs twice at once when it is placed again.
func (w *Worker) recover(ctx context.Context) ([]sheaf.NodeDriver, error) {
	w.now = time.Now()
	if err := w.recoverResults(); err != nil {
		return nil, err
	}
	saved, specs, err := w.cfg.Checkpoint.Load()
	if err != nil {
		return nil, err
	}
	var stale []string
	byDriver := map[string][]checkpoint.Execution{}
	for _, e := range saved {
		id := string(sheaf.NewExecutionID(e.Run, int(e.Partition), e.Attempt))
		if w.recorded(e) || w.engines[e.Driver] == nil || specs[e.Run] == nil {
			stale = append(stale, id)
			continue
		}
		byDriver[e.Driver] = append(byDriver[e.Driver], e)
	}
	drivers, adopted, gone := w.recoverDrivers(ctx, byDriver, specs)
	if ctx.Err() != nil {
		return nil, nil
	}
	stale = append(stale, gone...)
	if err := w.cfg.Spaces.Clean(func(run sheaf.RunID, attempt string) bool { return adopted[string(run)+"."+attempt] }); err != nil {
		w.log.Warn("directories of earlier executions not removed", "error", err)
	}
	if err := w.cfg.Secrets.Clean(func(run sheaf.RunID) bool { return w.core.Run(run) != nil && dataOf(w.core.Run(run)).spec != nil }); err != nil {
		w.log.Warn("files of earlier secrets not removed", "error", err)
	}
	w.saver.add(func() error { return w.saver.file.Remove(stale) })
	for id := range specs {
		if w.core.Run(id) == nil || dataOf(w.core.Run(id)).spec == nil {
			w.saver.removeRun(id)
		}
	}
	return drivers, w.findStrays()
}

// recorded reports whether an execution of the checkpoint has its record
// already: it ended between the two.
func (w *Worker) recorded(e checkpoint.Execution) bool {
	st, err := w.cfg.Store.Run(e.Run)
	if err != nil {
		return false
	}
	_, err = st.Record(int(e.Partition), e.Attempt)
	return err == nil
}

// recoverDrivers asks every driver what it is, and has it re-attach to what it had.
func (w *Worker) recoverDrivers(ctx context.Context, saved map[string][]checkpoint.Execution, specs map[sheaf.RunID][]byte) (list []sheaf.NodeDriver, adopted map[string]bool, gone []string) {
	type answer struct {
		engine  *engine
		node    sheaf.NodeDriver
		running []string
		err     error
	}
	var mu sync.Mutex
	var answers []answer
	var wg sync.WaitGroup
	for name, e := range w.engines {
		wg.Go(func() {
			a := answer{engine: e, node: w.fingerprint(ctx, e)}
			var known []*driverpb.Known
			for _, x := range saved[name] {
				known = append(known, &driverpb.Known{Execution: string(sheaf.NewExecutionID(x.Run, int(x.Partition), x.Attempt)), State: x.State})
			}
			a.running, a.err = e.driver.Recover(w.ctx, known)
			if a.err == nil && len(a.running) == 0 {
				e.driver.Rest()
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, a)
		})
	}
	wg.Wait()
	w.now = time.Now()
	slices.SortFunc(answers, func(a, b answer) int { return strings.Compare(a.engine.driver.Name, b.engine.driver.Name) })
	adopted = map[string]bool{}
	for _, a := range answers {
		list = append(list, a.node)
		running := map[string]bool{}
		for _, id := range a.running {
			running[id] = true
		}
		switch {
		case a.err != nil && ctx.Err() == nil:
			w.log.Warn("driver does not recover", "driver", a.engine.driver.Name, "error", a.err)
		case len(a.running) > 0:
			a.engine.state, a.engine.used = engineOpen, w.now
		}
		for _, x := range saved[a.engine.driver.Name] {
			id := string(sheaf.NewExecutionID(x.Run, int(x.Partition), x.Attempt))
			// A driver that could not look may have it running still.
			if a.err == nil && !running[id] {
				gone = append(gone, id)
				continue
			}
			if err := w.adopt(x, specs[x.Run]); err != nil {
				w.log.Error("execution not re-attached", "execution", id, "error", err)
				gone = append(gone, id)
				continue
			}
			adopted[string(x.Run)+"."+sandbox.AttemptName(x.Partition, x.Attempt)] = true
			w.log.Info("re-attached", "execution", id)
		}
		if a.err != nil && len(saved[a.engine.driver.Name]) > 0 && ctx.Err() == nil {
			w.open(a.engine)
		}
	}
	return list, adopted, gone
}

// adopt takes over one execution that goes on.
func (w *Worker) adopt(e checkpoint.Execution, spec []byte) error {
	s := &wire.RunSpec{}
	if err := proto.Unmarshal(spec, s); err != nil {
		return fmt.Errorf("read the run's spec: %w", err)
	}
	r, err := w.addRun(s)
	if err != nil {
		return err
	}
	dataOf(r).specSaved = true
	if dataOf(r).job.Reduce != nil && e.Partition == s.GetPartitions() {
		r = w.addReduce(e.Run)
	}
	d := dataOf(r)
	if d.engine == nil {
		return d.taskErr
	}
	x := w.core.Adopt(r, e.Partition, e.Attempt, e.Generation, e.Started, e.State)
	t := taskOf(x)
	if r.Stages {
		t.space = w.cfg.Spaces.Found(e.Run, e.Partition, e.Attempt, e.Outputs)
	}
	w.openLogs(x, t)
	w.recoverSecrets(r)
	return nil
}

// recoverResults takes over durable results that were not answered.
func (w *Worker) recoverResults() error {
	return w.cfg.Store.Unanswered(func(id sheaf.RunID, rec store.Record) error {
		r, err := w.bare(id)
		if err != nil {
			return err
		}
		res := &execution.Result{
			Run: r, Partition: uint32(rec.Partition), Attempt: rec.Attempt, Generation: rec.Generation,
			Outcome: rec.Outcome, Failure: rec.Failure, ExitCode: rec.ExitCode,
			StartedMs: rec.Started.UnixMilli(), DurationMs: uint32(rec.Duration.Milliseconds()),
			CPUMs: uint32(rec.CPU.Milliseconds()), PeakKiB: uint32(rec.PeakMemory >> 10), Digest: rec.Digest,
			Ignored: rec.Outcome == sheaf.OutcomeFailed && rec.Digest != [32]byte{},
		}
		if rec.Outcome != sheaf.OutcomeSucceeded {
			res.Text = &execution.Text{Message: rec.Message, Stderr: w.stderrOf(dataOf(r).store, rec)}
		}
		w.core.AdoptResult(res)
		return nil
	})
}

// stderrOf reads the last lines of a record's stderr.
func (w *Worker) stderrOf(st *store.Run, rec store.Record) string {
	if rec.Stderr.Size == 0 {
		return ""
	}
	l, err := st.OpenLog(w.ctx, rec.Partition, rec.Attempt, true, false)
	if err != nil {
		return ""
	}
	defer func() { _ = l.Close() }()
	l.SeekTo(max(0, rec.Stderr.Size-2*execution.MaxStderr))
	var tail []byte
	for {
		p, err := l.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.log.Warn("stderr not read", "partition", rec.Partition, "error", err)
			}
			return execution.LastLines(tail)
		}
		tail = append(tail, p.Data...)
	}
}

// leave writes what outlives this process to the checkpoint; the loop has ended.
func (w *Worker) leave() {
	var list []*execution.Execution
	for x := range w.core.Executions {
		if x.Phase == execution.Running && x.Outlives() && x.Stop == execution.StopNone {
			list = append(list, x)
		}
	}
	w.save(list)
}

// Follow makes the logs of an execution readable that runs here, whether it
// has printed yet or not, and reports whether there is one; attempt 0 is any.
func (w *Worker) Follow(ctx context.Context, run sheaf.RunID, partition, attempt uint32) (running bool) {
	_ = w.ask(ctx, func() { // an error says that nothing runs any more
		for _, kind := range [...]wire.Kind{wire.Kind_KIND_PARTITION, wire.Kind_KIND_REDUCE} {
			r := w.core.Run(execution.RunKey(run, kind))
			if r == nil {
				continue
			}
			for x := range r.Executions {
				if x.Partition == partition && (attempt == 0 || x.Attempt == attempt) {
					running = true
					w.openLogs(x, taskOf(x))
				}
			}
		}
	})
	return running
}
