package worker

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/sheaf"
)

// saver writes the checkpoint beside the loop, in the order of its calls:
// what is saved before it is removed stays removed.
type saver struct {
	file *checkpoint.File
	log  *slog.Logger

	mu    sync.Mutex
	queue []func() error
	wake  chan struct{} // of size 1
}

func newSaver(file *checkpoint.File, log *slog.Logger) *saver {
	return &saver{file: file, log: log, wake: make(chan struct{}, 1)}
}

func (s *saver) add(f func() error) {
	s.mu.Lock()
	s.queue = append(s.queue, f)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *saver) remove(id string)         { s.add(func() error { return s.file.Remove([]string{id}) }) }
func (s *saver) removeRun(id sheaf.RunID) { s.add(func() error { return s.file.RemoveRun(id) }) }

// run writes until ctx ends, and then what is left. A checkpoint that cannot
// be written costs a rerun after a restart, no more.
func (s *saver) run(ctx context.Context) {
	for {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, f := range queue {
			if err := f(); err != nil {
				s.log.Error("checkpoint not written", "error", err)
			}
		}
		if len(queue) > 0 {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// save writes executions to the checkpoint, and their logs so far to the disk, so
// that both are there for the next process.
func (w *Worker) save(list []*execution.Execution) {
	if len(list) == 0 {
		return
	}
	var saved []checkpoint.Execution
	var logs []*store.Logs
	specs := map[sheaf.RunID][]byte{}
	for _, x := range list {
		x.Saved = true
		d := dataOf(x.Run)
		if base := w.core.Run(x.Run.Of()); base != nil { // the spec of a reduce is its run's
			d = dataOf(base)
		}
		e := checkpoint.Execution{
			Run: x.Run.Of(), Partition: x.Partition, Attempt: x.Attempt, Generation: x.Generation,
			Driver: x.Run.Driver, State: x.State, Started: x.Started.Round(0),
		}
		t := taskOf(x)
		if t.space != nil {
			e.Outputs = t.space.Outputs
		}
		if w.openLogs(x, t) {
			logs = append(logs, t.logs)
		}
		saved = append(saved, e)
		if !d.specSaved {
			d.specSaved = true
			b, err := proto.Marshal(d.spec)
			if err != nil {
				w.log.Error("run not written to the checkpoint", "run", x.Run.ID, "error", err)
				continue
			}
			specs[x.Run.Of()] = b
		}
	}
	w.saver.add(func() error {
		for _, l := range logs {
			if err := l.Sync(); err != nil {
				w.log.Warn("log not synced", "error", err)
			}
		}
		return w.saver.file.Save(saved, specs)
	})
}
