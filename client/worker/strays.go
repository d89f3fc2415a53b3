package worker

import (
	"fmt"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxStrays bounds the strays of one start: 24 MiB of them. There are about as
	// many as slots, unless a disk lost records. The rest waits for the next start.
	maxStrays = 1 << 20
	// straysAtOnce bounds those whose verdict is waited for: a message of results.
	straysAtOnce = 1024
)

// stray is an attempt that has output here and no record that can be read, and
// that does not run. It may have been killed half-way with its client; or its record
// was damaged, and it may stand committed.
type stray struct {
	run *store.Run
	id  sheaf.RunID
	key store.Key
}

// strays are those that were found at the start. Only the servers' log can
// tell whether they are committed, so it is asked, some at a time, and they are deleted when it says no.
type strays struct {
	waiting []stray
	asked   int // and not answered
}

// findStrays lists the strays, and has the first asked about with the first welcome.
func (w *Worker) findStrays() error {
	ids, err := w.cfg.Store.Runs()
	if err != nil {
		return fmt.Errorf("list the runs of the store: %w", err)
	}
	for _, id := range ids {
		st, err := w.cfg.Store.Run(id)
		if err != nil {
			return fmt.Errorf("open the store of run %s: %w", id, err)
		}
		err = st.Strays(func(k store.Key) error {
			if w.core.Find(string(sheaf.NewExecutionID(id, k.Partition, k.Attempt))) == nil && len(w.strays.waiting) < maxStrays {
				w.strays.waiting = append(w.strays.waiting, stray{st, id, k})
			}
			return nil
		})
		if err != nil {
			w.log.Warn("outputs without a record not listed", "run", id, "error", err)
		}
	}
	if n := len(w.strays.waiting); n > 0 {
		w.log.Info("outputs without a record are found; the servers are asked what is committed", "attempts", n)
	}
	if damage := w.cfg.Store.Damaged(); len(damage) > 0 {
		w.log.Error("the store is damaged: results that cannot be read are lost, outputs that are committed are kept", "places", len(damage), "first", damage[0].Error())
	}
	return w.askStrays()
}

// askStrays asks about the next. The question is a loss: of what is committed
// the servers say so first, and of nothing else is the output of any use.
func (w *Worker) askStrays() error {
	for len(w.strays.waiting) > 0 && w.strays.asked < straysAtOnce {
		s := w.strays.waiting[0]
		w.strays.waiting = w.strays.waiting[1:]
		r, err := w.bare(s.id)
		if err != nil {
			return err
		}
		w.strays.asked++
		w.core.AdoptResult(&execution.Result{
			Run: r, Partition: uint32(s.key.Partition), Attempt: s.key.Attempt, Generation: r.Generation,
			Outcome: sheaf.OutcomeLost, Failure: sheaf.FailDriver, ExitCode: -1, Stray: true,
			Text: &execution.Text{Message: "its client ended while it ran"},
		})
	}
	return nil
}

// straysAnswered counts answers, and asks about more once all have come.
func (w *Worker) straysAnswered(keep, drop []*execution.Result) {
	if w.strays.asked == 0 {
		return
	}
	for _, r := range keep {
		if r.Stray {
			w.strays.asked--
			w.log.Error("a committed output has no record here that can be read: its files are kept, but cannot be listed or merged; make it again with job retry -lost",
				"run", r.Run.ID, "partition", r.Partition, "attempt", r.Attempt)
		}
	}
	for _, r := range drop {
		if r.Stray {
			w.strays.asked--
		}
	}
	if w.strays.asked > 0 {
		return
	}
	if err := w.askStrays(); err != nil {
		w.log.Error("outputs without a record stay", "error", err)
	}
}
