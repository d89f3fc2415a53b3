package broker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/server/broker"
	"github.com/sheaf-run/agent/sheaf"
)

var t0 = time.Unix(1000, 0)

func share(ns string, priority int) broker.Share {
	return broker.Share{Namespace: ns, Priority: priority}
}

// next leases, or fails the test.
func next(t *testing.T, q *broker.Queue, now time.Time) broker.Lease {
	t.Helper()
	l, ok, wake := q.Next(now)
	if !ok {
		t.Fatalf("nothing to evaluate at %v, next at %v", now, wake)
	}
	return l
}

func TestOneEvaluationARun(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("a", share("x", 50))
	q.Enqueue("a", share("x", 50))
	l := next(t, q, t0)
	if _, ok, _ := q.Next(t0); ok {
		t.Fatal("a run was evaluated twice at once")
	}
	q.Enqueue("a", share("x", 50)) // it changed meanwhile
	q.Ack(l, 1)
	l = next(t, q, t0)
	q.Ack(l, 1)
	if _, ok, _ := q.Next(t0); ok {
		t.Fatal("a run that nothing happened to was evaluated again")
	}
}

// A run that asks to be looked at later, while it is looked at, must not come
// back at once: that would be a busy loop.
func TestLaterIsNotNow(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("a", share("x", 50))
	l := next(t, q, t0)
	q.EnqueueAt("a", share("x", 50), t0.Add(time.Minute))
	q.EnqueueAt("a", share("x", 50), t0.Add(time.Second))
	q.EnqueueAt("a", share("x", 50), t0.Add(time.Hour))
	q.Ack(l, 0)
	if _, ok, wake := q.Next(t0); ok || !wake.Equal(t0.Add(time.Second)) {
		t.Fatalf("handed out now: %t, else at %v, want the earliest time asked for", ok, wake)
	}
	next(t, q, t0.Add(time.Second))
}

func TestLeaseExpiresUnlessExtended(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("a", share("x", 50))
	l := next(t, q, t0)
	if !q.Extend(l, t0.Add(20*time.Second)) {
		t.Fatal("a valid lease was not extended")
	}
	if _, ok, wake := q.Next(t0.Add(40 * time.Second)); ok || !wake.Equal(t0.Add(50*time.Second)) {
		t.Fatalf("extended to 50 s, but at 40 s: %t, next at %v", ok, wake.Sub(t0))
	}
	if _, ok, _ := q.Next(t0.Add(51 * time.Second)); ok {
		t.Fatal("an evaluation whose evaluator vanished came back without a pause")
	}
	again := next(t, q, t0.Add(52*time.Second))
	if q.Extend(l, t0) {
		t.Error("the expired lease still holds")
	}
	q.Ack(l, 5) // of the expired lease: void
	if _, ok, _ := q.Next(t0.Add(53 * time.Second)); ok {
		t.Error("a void ack ended another's lease")
	}
	q.Ack(again, 0)
}

func TestNacksBackOffAndAreLaidAside(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("a", share("x", 50))
	now := t0
	var pauses []time.Duration
	for range 8 {
		l := next(t, q, now)
		q.Nack(l, now, "no quorum")
		q.Enqueue("a", share("x", 50)) // news does not shorten the pause
		_, ok, wake := q.Next(now)
		if ok {
			if len(q.Dead()) != 0 {
				t.Fatal("laid aside and handed out")
			}
			break
		}
		pauses = append(pauses, wake.Sub(now))
		now = wake
	}
	if got := fmt.Sprint(pauses); got != "[250ms 500ms 1s 2s 4s 8s 16s]" {
		t.Errorf("pauses %s", got)
	}
}

func TestLaidAsideComesBackWithNews(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("a", share("x", 50))
	now := t0
	for len(q.Dead()) == 0 {
		l := next(t, q, now)
		q.Nack(l, now, "no quorum")
		_, _, now = q.Next(now)
	}
	if d := q.Dead(); d[0].Run != "a" || d[0].Nacks != 8 || d[0].Cause != "no quorum" || q.Failing("a") != "no quorum" {
		t.Errorf("laid aside: %+v", d)
	}
	q.Enqueue("a", share("x", 50))
	next(t, q, t0)
}

// rounds lets every run place ten executions whenever it is its turn, for n turns.
func rounds(q *broker.Queue, n int) map[sheaf.RunID]int {
	turns := map[sheaf.RunID]int{}
	for range n {
		l, ok, _ := q.Next(t0)
		if !ok {
			break
		}
		turns[l.Run]++
		q.Enqueue(l.Run, share("", 0)) // it has more to place
		q.Ack(l, 10)
	}
	return turns
}

func TestFairByNamespaceThenRun(t *testing.T) {
	q := broker.NewQueue()
	for _, r := range []sheaf.RunID{"a1", "a2", "a3"} {
		q.Enqueue(r, share("a", 0))
	}
	q.Enqueue("b1", share("b", 0))
	turns := rounds(q, 600)
	if got := fmt.Sprint(turns); got != "map[a1:100 a2:100 a3:100 b1:300]" {
		t.Errorf("turns %s: namespaces share equally, whatever their runs", got)
	}
	// A newcomer takes its share from now on, not what it missed.
	q.Enqueue("c1", share("c", 0))
	if got := rounds(q, 300)["c1"]; got < 99 || got > 101 {
		t.Errorf("the newcomer got %d of 300 turns, want a third", got)
	}
}

func TestPriorityWeighs(t *testing.T) {
	q := broker.NewQueue()
	q.Enqueue("low", share("a", 1))
	q.Enqueue("high", share("a", 100))
	turns := map[sheaf.RunID]int{}
	for range 1210 {
		l := next(t, q, t0)
		turns[l.Run]++
		q.Enqueue(l.Run, share("a", map[sheaf.RunID]int{"low": 1, "high": 100}[l.Run]))
		q.Ack(l, 10)
	}
	if turns["low"] < 100 || turns["low"] > 120 {
		t.Errorf("turns %v: priority 100 weighs ten times priority 1", turns)
	}
}

// However it is used: no run is leased twice at once, and nothing asked for is lost.
func TestQueueProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := broker.NewQueue()
		now := t0
		leases := map[sheaf.RunID]broker.Lease{}
		since := map[sheaf.RunID]time.Time{}
		wanted := map[sheaf.RunID]bool{}
		run := rapid.SampledFrom([]sheaf.RunID{"a", "b", "c", "d"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				r := run.Draw(t, "run")
				q.Enqueue(r, share(string(r[0]&1), 10))
				wanted[r] = true
			case 2:
				l, ok, _ := q.Next(now)
				if ok {
					if _, twice := leases[l.Run]; twice && now.Before(since[l.Run].Add(30*time.Second)) {
						t.Fatalf("%s leased twice", l.Run)
					}
					leases[l.Run], since[l.Run] = l, now
					delete(wanted, l.Run)
				}
			case 3:
				r := run.Draw(t, "run")
				if l, ok := leases[r]; ok {
					q.Ack(l, 3)
					delete(leases, r)
				}
			case 4:
				r := run.Draw(t, "run")
				if l, ok := leases[r]; ok {
					q.Nack(l, now, "x")
					wanted[r] = true
					delete(leases, r)
				}
			case 5:
				now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
			}
		}
		for r, l := range leases {
			q.Ack(l, 0)
			delete(leases, r)
		}
		now = now.Add(time.Hour)
		for {
			l, ok, _ := q.Next(now)
			if !ok {
				break
			}
			delete(wanted, l.Run)
			q.Ack(l, 0)
		}
		if len(wanted) > 0 {
			t.Fatalf("asked for and never handed out: %v", wanted)
		}
	})
}

func TestBrokerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := broker.New()
		got := make(chan sheaf.RunID, 3)
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			go func() {
				for {
					l, err := b.Next(ctx)
					if err != nil {
						return
					}
					got <- l.Run
					b.Ack(l, 0)
				}
			}()
		}
		synctest.Wait()
		start := time.Now()
		b.EnqueueAfter("later", share("a", 1), time.Minute)
		b.Enqueue("now", share("a", 1))
		if r := <-got; r != "now" || time.Since(start) != 0 {
			t.Errorf("first came %s after %v", r, time.Since(start))
		}
		if r := <-got; r != "later" || time.Since(start) != time.Minute {
			t.Errorf("then came %s after %v", r, time.Since(start))
		}
		cancel()
		synctest.Wait()
	})
}

func BenchmarkTenThousandRuns(b *testing.B) {
	q := broker.NewQueue()
	for i := range 10_000 {
		q.Enqueue(sheaf.RunID(fmt.Sprint("run", i)), share(fmt.Sprint("ns", i%10), i%100+1))
	}
	for b.Loop() {
		l, ok, _ := q.Next(t0)
		if !ok {
			b.Fatal("empty")
		}
		q.Enqueue(l.Run, share("", 50))
		q.Ack(l, 100)
	}
}
