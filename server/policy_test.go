package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

func TestRunTimesOut(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 }).connect(nil)
	begun := 0
	for timeout := 50 * time.Millisecond; begun < 3; timeout *= 2 { // a busy machine may not have begun by then
		id := sheaf.RunID(fmt.Sprint("r", timeout.Milliseconds()))
		h.submit(t, id, job(count(3), func(j *sheaf.Job) { j.Timeout = sheaf.Duration(timeout) }))
		r := h.awaitStatus(t, id, sheaf.RunFailed)
		if !strings.Contains(r.Error, "timeout") {
			t.Errorf("error %q", r.Error)
		}
		f.await("what it had being killed", func() bool {
			begun = 0
			killed := 0
			for w := range f.begun {
				if w.generation = 0; w.run == id { // a kill names none
					begun++
					if f.kills[w] {
						killed++
					}
				}
			}
			return begun < 3 || killed == 3
		})
	}
}

func TestRetryWaitsForItsDelay(t *testing.T) {
	h := startHost(t, "", "")
	newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.attempt < 3 {
			return sheaf.OutcomeFailed
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	h.submit(t, "r", job(func(j *sheaf.Job) {
		j.Retry = sheaf.Retry{Attempts: 3, Delay: sheaf.Duration(30 * time.Millisecond), Backoff: sheaf.BackoffConstant, MaxDelay: sheaf.Duration(time.Second)}
	}))
	if r := h.awaitStatus(t, "r", sheaf.RunSucceeded); r.EndedMs-r.SubmittedMs < 60 {
		t.Errorf("three tries with 30 ms between them took %d ms of cluster time", r.EndedMs-r.SubmittedMs)
	}
}

func TestPrepareFails(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 })
	f.connect(nil)
	h.submit(t, "r", job(count(4)))
	f.await("work", func() bool { return len(f.begun) == 4 })
	f.out <- &wire.FromClient{Body: &wire.FromClient_Prepared{Prepared: &wire.PrepareResult{Run: "r", Error: "no such image", Invalid: true}}}
	r := h.awaitStatus(t, "r", sheaf.RunFailed)
	if !strings.Contains(r.Error, "no such image") {
		t.Errorf("error %q", r.Error)
	}
	for p := range 4 {
		if row := r.Row(p); row.Failures != 0 {
			t.Errorf("partition %d paid for it: %+v", p, row)
		}
	}
}

func TestIneligibleNodeGetsNothingNew(t *testing.T) {
	h := startHost(t, "", "")
	a := newFake(t, h, "a", succeed).connect(nil)
	if _, err := h.SetEligible(t.Context(), "a", false); err != nil {
		t.Fatal(err)
	}
	h.submit(t, "r", job(count(5)))
	b := newFake(t, h, "b", succeed).connect(nil)
	h.awaitStatus(t, "r", sheaf.RunSucceeded)
	if len(a.begun) != 0 || len(b.begun) != 5 {
		t.Errorf("a got %d, b %d", len(a.begun), len(b.begun))
	}
}

// A small run that comes behind a large one must not wait for it.
func TestSmallRunStartsBehindALargeOne(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.run == "large" {
			return 0
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	h.submit(t, "large", job(count(1_000_000)))
	f.await("work of the large run", func() bool { return len(f.begun) >= 10 })
	h.submit(t, "small", job(count(10)))
	h.awaitStatus(t, "small", sheaf.RunSucceeded)
}

func TestOldRunsAreDeleted(t *testing.T) {
	h := startHost(t, "", "", func(c *server.Config) {
		c.Retention = server.Retention{Runs: 100, Least: time.Millisecond}
	})
	f := newFake(t, h, "a", succeed).connect(nil)
	var ids []sheaf.RunID
	for i := range 103 {
		id := sheaf.RunID("r" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
		ids = append(ids, id)
		h.submit(t, id, job())
		h.awaitStatus(t, id, sheaf.RunSucceeded)
	}
	f.await("the oldest's deletion", func() bool { return f.ended[ids[0]] && f.ended[ids[1]] && f.ended[ids[2]] })
	kept := 0
	for range h.Snapshot().Runs() {
		kept++
	}
	if kept != 100 || h.Snapshot().Run(ids[0]) != nil || h.Snapshot().Tombstone(ids[0]) == nil {
		t.Errorf("%d runs are kept, the oldest is %v", kept, h.Snapshot().Run(ids[0]))
	}
	if _, err := h.Submit(t.Context(), ids[0], job()); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("the ID of a deleted run was given again: %v", err)
	}
}

// Work of a run that is lost again and again ends by its losses, not by its tries.
func TestLostFiveTimes(t *testing.T) {
	h := startHost(t, "", "")
	newFake(t, h, "a", func(work) sheaf.Outcome { return sheaf.OutcomeLost }).connect(nil)
	h.submit(t, "r", job())
	r := h.awaitRun(t, "r", "the end", func(r *state.Run) bool { return r.Status.Terminal() })
	if row := r.Row(0); r.Status != sheaf.RunFailed || row.Losses != 5 || row.Failures != 0 || row.Failure != sheaf.FailLosses {
		t.Errorf("run %s, partition %+v", r.Status, row)
	}
}
