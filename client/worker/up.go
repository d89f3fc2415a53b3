package worker

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// pulseSoonest is the least time between two pulses that a change of rate
	// brings; within it a rate is noise.
	pulseSoonest = 200 * time.Millisecond
	// rateChange is the relative change of a rate that is told at once.
	rateChange = 0.25
	// minPulse bounds a third of a lease from below, for leases of nothing.
	minPulse = 50 * time.Millisecond
)

// up is the way to the leader.
type up struct {
	out      *session.Outbox // nil without a stream
	number   uint64          // of the session
	welcomed bool            // Welcome has come on out
	lease    time.Duration
	prepared []*wire.PrepareResult // not sent yet
	deleted  []string              // runs, to be confirmed
	pulsed   time.Time
	sequence uint64
	rates    map[sheaf.RunID]float64 // as last told
	refused  string                  // why the node takes no work
	told     string                  // refused, as last told
}

func (w *Worker) send(m *wire.FromClient) {
	if w.up.out != nil && w.up.welcomed {
		w.up.out.Add(m)
	}
}

// sendResults sends durable results, a message a run. Without a stream it does
// nothing: after the next Welcome the core has them sent again.
func (w *Worker) sendResults(list []*execution.Result) {
	if len(list) == 0 || w.up.out == nil || !w.up.welcomed {
		return
	}
	for _, m := range execution.Columns(list, w.cfg.Place.NodeID, w.up.number) {
		w.send(&wire.FromClient{Body: &wire.FromClient_Results{Results: m}})
	}
}

// sendPrepared sends how preparing went.
func (w *Worker) sendPrepared() {
	if w.up.out == nil || !w.up.welcomed {
		return
	}
	for _, p := range w.up.prepared {
		w.send(&wire.FromClient{Body: &wire.FromClient_Prepared{Prepared: p}})
	}
	w.up.prepared = nil
}

// repeatPrepared tells again what images and modules were resolved to, of runs
// for which the servers have named no digest: what was told may have been lost
// with the last stream.
func (w *Worker) repeatPrepared() {
	told := map[string]bool{}
	for _, p := range w.up.prepared {
		told[p.GetRun()] = true
	}
	for r := range w.core.Runs {
		if d := dataOf(r); d.digest != "" && d.spec.GetImageDigest() == "" && r.Active() && !told[string(r.ID)] {
			w.up.prepared = append(w.up.prepared, &wire.PrepareResult{Run: string(r.Of()), Digest: d.digest, Kind: r.Kind()})
		}
	}
}

// report tells which executions run.
func (w *Worker) report(list []*execution.Execution) {
	byRun := map[*execution.Run]*wire.Executions{}
	for _, x := range list {
		if t := taskOf(x); dataOf(x.Run).store != nil {
			w.openLogs(x, t) // so that whoever follows its log finds it
		}
		m := byRun[x.Run]
		if m == nil || m.Generation != x.Generation {
			m = &wire.Executions{Run: string(x.Run.Of()), Generation: x.Generation, Kind: x.Kind}
			byRun[x.Run] = m
			defer w.send(&wire.FromClient{Body: &wire.FromClient_Running{Running: m}})
		}
		m.First, m.Count, m.Attempt = append(m.First, x.Partition), append(m.Count, 1), append(m.Attempt, x.Attempt)
	}
}

// refuse says that the node takes no work at present, or with nil that it does again.
func (w *Worker) refuse(err error) {
	w.core.Refuse(err != nil)
	w.up.refused = ""
	if err != nil {
		w.up.refused = execution.Clip(err.Error(), execution.MaxMessage)
		w.log.Error("no new work is begun", "error", err)
	} else {
		w.log.Info("work is begun again")
	}
	w.pulse(true)
}

// pulse tells rates and asks for the next lease: every third of one, and
// sooner when a rate changes by much.
func (w *Worker) pulse(now bool) {
	if w.up.out == nil || !w.up.welcomed {
		return
	}
	since := w.now.Sub(w.up.pulsed)
	due := since >= max(w.up.lease/3, minPulse) || w.up.told != w.up.refused
	if !now && !due && (since < pulseSoonest || !w.ratesChanged()) {
		return
	}
	w.up.sequence++
	p := &wire.Pulse{Sequence: w.up.sequence, Rate: w.core.Rate(), Error: w.up.refused, Held: w.held()}
	w.up.rates = map[sheaf.RunID]float64{}
	for r := range w.core.Runs {
		if !r.Active() || r.Kind() != wire.Kind_KIND_PARTITION {
			continue
		}
		p.Runs = append(p.Runs, &wire.RunRate{Run: string(r.ID), Rate: r.Rate(), Slots: uint32(w.core.Slots(r))})
		w.up.rates[r.ID] = r.Rate()
	}
	w.up.pulsed, w.up.told = w.now, w.up.refused
	w.send(&wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: p}})
}

// maxOrigins bounds the origins that a pulse names: those with the most bytes.
const maxOrigins = 64

// held is what lies here of data from elsewhere.
func (w *Worker) held() []*wire.Held {
	if w.cfg.Held == nil {
		return nil
	}
	var list []*wire.Held
	for origin, bytes := range w.cfg.Held() {
		list = append(list, &wire.Held{Origin: origin, Bytes: bytes})
	}
	slices.SortFunc(list, func(a, b *wire.Held) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Origin, b.Origin))
	})
	return list[:min(len(list), maxOrigins)]
}

func (w *Worker) ratesChanged() bool {
	for r := range w.core.Runs {
		told, known := w.up.rates[r.ID]
		if !r.Active() || r.Kind() != wire.Kind_KIND_PARTITION {
			continue
		}
		if !known || math.Abs(r.Rate()-told) > rateChange*max(r.Rate(), told, 1) {
			return true
		}
	}
	return false
}
