package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

func never(work) sheaf.Outcome { return 0 }

func (h *host) adjust(t *testing.T, id sheaf.RunID, c server.RunChange) {
	t.Helper()
	if _, err := h.Change(t.Context(), id, c); err != nil {
		t.Fatal(err)
	}
}

// explains fails unless a run's explanation says something.
func (h *host) explains(t *testing.T, id sheaf.RunID, what string) {
	t.Helper()
	e, err := h.Explain(id, -1)
	if err != nil || !strings.Contains(strings.Join(e.Summary, "\n"), what) {
		t.Errorf("the explanation of %s does not say %q: %+v, %v", id, what, e, err)
	}
}

func is[T any](v T) *T { return &v }

// TestHoldTakesBackWhatHasNotBegun: what runs goes on, what waits at the node comes back, and
// nothing more is placed before the release.
func TestHoldTakesBackWhatHasNotBegun(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", never)
	f.queues = func(w work) bool { return w.partition >= 4 }
	f.connect(nil)
	h.submit(t, "r", job(count(1000)))
	f.await("work", func() bool { return len(f.begun) > 10 })
	h.adjust(t, "r", server.RunChange{Held: is(true)})
	r := h.awaitRun(t, "r", "what waits is back", func(r *state.Run) bool { return r.Counts().Assigned == 4 })
	if c := r.Counts(); c.Pending != 996 || !r.Stub().Held {
		t.Errorf("counts %+v, held %v", c, r.Stub().Held)
	}
	h.explains(t, "r", "it is held")
	was := 0
	f.await("", func() bool { was = len(f.begun); return true })
	h.adjust(t, "r", server.RunChange{Held: is(false)})
	f.await("more work", func() bool { return len(f.begun) > was })

	got, err := h.SubmitWith(t.Context(), "s", job(), server.SubmitOptions{Held: true})
	if err != nil || !got.Run.Held {
		t.Errorf("submitted held: %+v, %v", got, err)
	}
	h.explains(t, "s", "agent job release s")
	h.adjust(t, "s", server.RunChange{Held: is(false)})
	f.await("the other", func() bool { return f.begun[work{run: "s", generation: 1, attempt: 1}] == 1 })
}

// TestChangesReachClients: a live run's priority is told to those who have work of it, and its
// evaluations count by it.
func TestChangesReachClients(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", never).connect(nil)
	h.submit(t, "r", job(count(1000)))
	f.await("work", func() bool { return len(f.begun) > 0 && f.specs["r"].Priority == 50 })
	h.adjust(t, "r", server.RunChange{Priority: is(90)})
	f.await("the newer priority", func() bool { return f.specs["r"].Priority == 90 })
	if got := h.Snapshot().Run("r").Stub().Priority; got != 90 {
		t.Errorf("the priority is %d", got)
	}
	for _, c := range []server.RunChange{{Priority: is(0)}, {Priority: is(101)}, {Parallelism: is(-1)}, {Parallelism: is(sheaf.MaxPartitions + 1)}} {
		if _, err := h.Change(t.Context(), "r", c); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%+v is taken: %v", c, err)
		}
	}
	if _, err := h.Change(t.Context(), "nope", server.RunChange{Priority: is(1)}); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Error(err)
	}
}

// TestParallelismIsNeverExceeded: on several nodes, with room for far more, while partitions fail and
// are tried again, and when it is lowered.
func TestParallelismIsNeverExceeded(t *testing.T) {
	h := startHost(t, "", "")
	most := 0
	decide := func(w work) sheaf.Outcome {
		r := h.Snapshot().Run(w.run)
		most = max(most, r.UnderWay())
		if w.partition%3 == 0 && w.attempt == 1 {
			return sheaf.OutcomeFailed
		}
		return sheaf.OutcomeSucceeded
	}
	newFake(t, h, "a", decide).connect(nil)
	h.submit(t, "r", job(count(60), func(j *sheaf.Job) { j.Parallelism = &sheaf.Parallelism{Constant: 3} }))
	h.awaitStatus(t, "r", sheaf.RunSucceeded)
	if most < 1 || most > 3 {
		t.Errorf("%d were under way at once", most)
	}
	b := newFake(t, h, "b", never)
	b.queues = func(w work) bool { return w.partition > 0 }
	b.connect(nil)
	c := newFake(t, h, "c", never)
	c.queues = b.queues
	c.connect(nil)
	if _, err := h.SetEligible(t.Context(), "a", false); err != nil {
		t.Fatal(err)
	}
	h.submit(t, "s", job(count(60), func(j *sheaf.Job) { j.Parallelism = &sheaf.Parallelism{Coefficient: 2.6} }))
	h.awaitRun(t, "s", "five are under way, twice and a half of two nodes", func(r *state.Run) bool { return r.Counts().Assigned == 5 })
	h.explains(t, "s", "its parallelism allows 5")
	h.adjust(t, "s", server.RunChange{Parallelism: is(1)})
	h.awaitRun(t, "s", "what has not begun is back", func(r *state.Run) bool { return r.Counts().Assigned == 1 })
	h.adjust(t, "s", server.RunChange{Parallelism: is(0)})
	h.awaitRun(t, "s", "there is no bound any more", func(r *state.Run) bool { return r.Counts().Assigned > 20 })
}

// TestOpsRunsOnceOnEveryNode: on all that are there when it is submitted, and on no other.
func TestOpsRunsOnceOnEveryNode(t *testing.T) {
	h := startHost(t, "", "")
	ops := func(j *sheaf.Job) { j.Type, j.Count = sheaf.JobOps, 0 }
	if _, err := h.Submit(t.Context(), "none", job(ops)); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("without a node: %v", err)
	}
	fakes := []*fake{newFake(t, h, "a", never).connect(nil), newFake(t, h, "b", succeed).connect(nil)}
	h.submit(t, "r", job(ops))
	for _, f := range fakes {
		f.await("its one partition", func() bool { return len(f.begun) == 1 })
	}
	late := newFake(t, h, "late", succeed).connect(nil)
	h.submit(t, "after", job(count(1), func(j *sheaf.Job) {
		j.Constraints = []sheaf.Constraint{{Attribute: "${node.name}", Operator: "=", Value: "late"}}
	}))
	h.awaitStatus(t, "after", sheaf.RunSucceeded)
	late.await("", func() bool {
		for w := range late.begun {
			if w.run == "r" {
				t.Errorf("a node that came later has %+v", w)
			}
		}
		return true
	})
	fakes[0].await("", func() bool {
		for w := range fakes[0].begun {
			if w.partition != 0 {
				t.Errorf("the first node by ID has %+v", w)
			}
		}
		return true
	})
	h.awaitRun(t, "r", "one of two has succeeded", func(r *state.Run) bool { c := r.Counts(); return c.Total == 2 && c.Succeeded == 1 })
}

// TestAfterWaitsForSuccess: and fails with what fails.
func TestAfterWaitsForSuccess(t *testing.T) {
	h := startHost(t, "", "")
	go1 := make(chan struct{})
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.run == "first" {
			select {
			case <-go1:
			case <-time.After(patience):
			}
		}
		if w.run == "bad" {
			return sheaf.OutcomeFailed
		}
		return sheaf.OutcomeSucceeded
	})
	f.connect(nil)
	after := func(names ...string) func(*sheaf.Job) { return func(j *sheaf.Job) { j.After = names } }
	h.submit(t, "first", job(func(j *sheaf.Job) { j.Name = "one" }))
	h.submit(t, "second", job(after("one")))
	h.explains(t, "second", "first (")
	if c := h.Snapshot().Run("second").Counts(); c.Pending != 1 {
		t.Errorf("it has begun: %+v", c)
	}
	close(go1)
	h.awaitStatus(t, "first", sheaf.RunSucceeded)
	h.awaitStatus(t, "second", sheaf.RunSucceeded)
	h.submit(t, "bad", job())
	h.submit(t, "third", job(after("bad")))
	if r := h.awaitStatus(t, "third", sheaf.RunFailed); !strings.Contains(r.Error, "run bad, which it comes after, failed") || !strings.Contains(r.Error, "it broke") {
		t.Errorf("its error is %q", r.Error)
	}
	if _, err := h.Submit(t.Context(), "fourth", job(after("nobody"))); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("what is not there is waited for: %v", err)
	}
}

// TestSmallBehindLarge: a run of ten behind a run of a million is placed whole, although the nodes have
// all of the million that they may; in which order the node begins is in client/execution.
func TestSmallBehindLarge(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", never).connect(nil)
	h.submit(t, "million", job(count(1_000_000)))
	f.await("its share", func() bool { return len(f.begun) >= 20 })
	h.submit(t, "ten", job(count(10)))
	f.await("the ten", func() bool {
		n := 0
		for w := range f.begun {
			if w.run == "ten" {
				n++
			}
		}
		return n == 10
	})
}

// TestPendingRunsSayWhy: with the number of nodes for each reason.
func TestPendingRunsSayWhy(t *testing.T) {
	h := startHost(t, "", "")
	h.submit(t, "r", job())
	h.explains(t, "r", "there is no node yet")
	for i := range 3 {
		newFake(t, h, fmt.Sprint("n", i), succeed).connect(nil)
	}
	for id, c := range map[sheaf.RunID]struct {
		job  func(*sheaf.Job)
		says string
	}{
		"driver":     {func(j *sheaf.Job) { j.Task.Driver = "x" }, `none of 3 nodes can take it: 3 nodes: has no driver "x"`},
		"datacenter": {func(j *sheaf.Job) { j.Datacenters = []string{"eu-*"} }, `3 nodes: is in datacenter "dc1"`},
		"constraint": {func(j *sheaf.Job) {
			j.Constraints = []sheaf.Constraint{{Attribute: "${node.attr.cpu.arch}", Operator: "=", Value: "arm64"}}
		}, `3 nodes: has no node.attr.cpu.arch, and the job asks for = "arm64"`},
		"size":  {func(j *sheaf.Job) { j.Task.Resources.Memory = 5 << 30 }, "3 nodes: one execution needs 5GiB of memory, the node has 1GiB"},
		"input": {func(j *sheaf.Job) { j.Inputs = []sheaf.Input{{Name: "in", Source: "s3://b/x", Mount: "/in"}} }, "3 nodes: cannot read s3://"},
	} {
		h.submit(t, id, job(c.job))
		h.explains(t, id, c.says)
	}
	h.submit(t, "slow", job(func(j *sheaf.Job) {
		j.Retry.Delay, j.Retry.MaxDelay = sheaf.Duration(time.Hour), sheaf.Duration(time.Hour)
	}))
	h.awaitStatus(t, "slow", sheaf.RunSucceeded)
	f := newFake(t, h, "z", func(work) sheaf.Outcome { return sheaf.OutcomeFailed })
	f.connect(nil)
	h.submit(t, "later", job(func(j *sheaf.Job) {
		j.Retry.Delay, j.Retry.MaxDelay = sheaf.Duration(time.Hour), sheaf.Duration(time.Hour)
		j.Constraints = []sheaf.Constraint{{Attribute: "${node.id}", Operator: "=", Value: "z"}}
	}))
	h.awaitRun(t, "later", "a failure", func(r *state.Run) bool { return r.Row(0).Failures == 1 })
	h.explains(t, "later", "before it is tried again")
	found := false
	for deadline := time.Now().Add(patience); !found && time.Now().Before(deadline); {
		for _, e := range h.Evaluations() {
			found = found || e.Run == "later" && e.Status == sheaf.EvaluationWaiting && e.Due != nil
		}
	}
	if !found {
		t.Errorf("no evaluation waits: %+v", h.Evaluations())
	}
}
