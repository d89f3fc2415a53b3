package server_test

import (
	"strings"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// runs reports that an execution runs.
func (f *fake) runs(w work) {
	f.out <- &wire.FromClient{Body: &wire.FromClient_Running{Running: &wire.Executions{
		Run: string(w.run), Generation: w.generation, First: []uint32{w.partition}, Count: []uint32{1}, Attempt: []uint32{w.attempt}}}}
}

// TestASlowPartitionGetsABackup: on another node, and the first to end counts, whichever that is; what the
// other reports after it is superseded, and it is told to stop.
func TestASlowPartitionGetsABackup(t *testing.T) {
	for name, second := range map[string]sheaf.Outcome{"the second wins": sheaf.OutcomeSucceeded, "the first wins": 0, "the second fails": sheaf.OutcomeFailed} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, "", "")
			decide := func(w work) sheaf.Outcome {
				switch {
				case w.partition == 9 || w.partition == 7 && w.attempt == 1:
					return 0
				case w.partition == 7:
					return second
				}
				return sheaf.OutcomeSucceeded
			}
			fakes := map[sheaf.NodeID]*fake{"a": newFake(t, h, "a", decide).connect(nil), "b": newFake(t, h, "b", decide).connect(nil)}
			h.submit(t, "r", job(count(40), func(j *sheaf.Job) { j.Backups = true }))
			r := h.awaitRun(t, "r", "two are left", func(r *state.Run) bool { return r.Counts().Succeeded == 38 })
			first := work{run: "r", generation: 1, partition: 7, attempt: 1}
			at := h.Snapshot().NodeByNumber(r.Row(7).Node).ID
			slow := fakes[at]
			slow.runs(first)
			other := fakes[map[sheaf.NodeID]sheaf.NodeID{"a": "b", "b": "a"}[at]]
			backup := first
			backup.attempt = 2
			other.await("the second attempt", func() bool { return other.begun[backup] == 1 })
			finish := func(f *fake, w work) {
				res := &wire.Results{Run: "r", Generation: 1, Node: f.id, Session: f.session}
				add(res, w, sheaf.OutcomeSucceeded)
				f.out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: res}}
			}
			last := func() *state.Run {
				w := first
				w.partition = 9
				finish(fakes[h.Snapshot().NodeByNumber(r.Row(9).Node).ID], w)
				return h.awaitStatus(t, "r", sheaf.RunSucceeded)
			}
			loser, lost := slow, first
			switch second {
			case sheaf.OutcomeFailed:
				h.awaitRun(t, "r", "the first goes on alone", func(r *state.Run) bool { return r.Backups == 0 && r.Row(7).Attempt == 1 })
				finish(slow, first)
				if row := last().Row(7); row.Attempt != 1 || row.Failures != 1 {
					t.Errorf("committed is %+v", row)
				}
				return
			case 0:
				e, err := h.Explain("r", 7)
				if err != nil || !strings.Contains(strings.Join(e.Summary, "; "), "is a backup on node "+other.id) || !strings.Contains(strings.Join(e.Summary, "; "), "had been running for") {
					t.Errorf("the partition is explained by %q, %v", e.Summary, err)
				}
				loser, lost = other, backup
				finish(slow, first)
			}
			lost.generation = 0 // a kill names none
			loser.await("the end of the loser", func() bool { return loser.kills[lost] })
			if loser == slow {
				finish(slow, first)
				slow.await("its answer", func() bool { return slow.answered[wire.Verdict_VERDICT_SUPERSEDED] == 1 })
			}
			r = last()
			if row := r.Row(7); row.Attempt == lost.attempt || r.Backups != 0 || row.Failures+row.Losses != 0 {
				t.Errorf("committed is %+v, with %d backups", row, r.Backups)
			}
		})
	}
}

// TestNoBackupWithoutLeave: a job that does not say so has none.
func TestNoBackupWithoutLeave(t *testing.T) {
	h := startHost(t, "", "")
	decide := func(w work) sheaf.Outcome {
		if w.run == "r" && w.partition == 7 || w.partition == 8 && w.attempt == 1 {
			return 0
		}
		return sheaf.OutcomeSucceeded
	}
	fakes := map[sheaf.NodeID]*fake{"a": newFake(t, h, "a", decide).connect(nil), "b": newFake(t, h, "b", decide).connect(nil)}
	for _, id := range []sheaf.RunID{"r", "s"} { // s shows that the time has come
		h.submit(t, id, job(count(40), func(j *sheaf.Job) { j.Backups = id == "s" }))
		p := map[sheaf.RunID]int{"r": 7, "s": 8}[id]
		r := h.awaitRun(t, id, "few are left", func(r *state.Run) bool {
			return r.Counts().Succeeded >= 38 && r.Row(p).State == sheaf.PartitionAssigned
		})
		fakes[h.Snapshot().NodeByNumber(r.Row(p).Node).ID].runs(work{run: id, generation: 1, partition: uint32(p), attempt: 1})
	}
	h.awaitStatus(t, "s", sheaf.RunSucceeded)
	if r := h.Snapshot().Run("r"); r.Backups != 0 || r.Row(7).Fence != 1 {
		t.Errorf("a backup was made: %+v", r.Row(7))
	}
}

// TestWhatWaitsGoesToAnIdleNode: at the end of a run, what a busy node has not begun goes to one that
// comes with nothing to do.
func TestWhatWaitsGoesToAnIdleNode(t *testing.T) {
	h := startHost(t, "", "")
	a := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.partition < 10 {
			return sheaf.OutcomeSucceeded
		}
		return 0
	})
	a.took = 60_000
	a.queues = func(w work) bool { return w.partition >= 20 }
	a.connect(nil)
	h.submit(t, "r", job(count(30)))
	h.awaitRun(t, "r", "all is placed", func(r *state.Run) bool { return r.Counts().Succeeded == 10 && r.Counts().Assigned == 20 })
	b := newFake(t, h, "b", succeed).connect(nil)
	b.await("the half that waited", func() bool { return len(b.begun) == 10 })
	h.awaitRun(t, "r", "they are done", func(r *state.Run) bool { return r.Counts().Succeeded == 20 && r.Counts().Assigned == 10 })
}
