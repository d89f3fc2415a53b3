package execution

import (
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// These are rules of the protocol that the servers trust clients to keep.

func attempt(x *wire.Executions, n uint32) *wire.Executions {
	x.Attempt[0] = n
	return x
}

func answer(x *Execution, v wire.Verdict) *wire.Answers {
	return &wire.Answers{Run: string(x.Run.ID), Generation: 1, Partition: []uint32{x.Partition}, Attempt: []uint32{x.Attempt}, Verdict: []byte{byte(v)}, Index: 9}
}

// TestOneAttemptAtATime: while an attempt is not gone, no other one at the same partition begins,
// and those behind it do.
func TestOneAttemptAtATime(t *testing.T) {
	for name, shards := range map[string]bool{"without shards": false, "with shards": true} {
		t.Run(name, func(t *testing.T) {
			c := node(10)
			r := opened(c, spec("r"), 2, t0)
			first := effects(c, t0).Start
			if len(first) != 2 {
				t.Fatalf("%d began, want 2", len(first))
			}
			c.Kill(assign("r", 0, 2), t0)
			r.Shards = shards
			c.Assign(attempt(assign("r", 0, 4), 2), t0)
			if shards {
				f := effects(c, t0).Fetch[0]
				c.Fetched(r, Shards{First: f.First, Shards: make([]*sheaf.Shard, f.Count)})
				for i := range r.window {
					r.window[i].shard = &sheaf.Shard{}
				}
			}
			began := map[uint32]uint32{}
			for _, x := range effects(c, t0).Start {
				began[x.Partition] = x.Attempt
			}
			if len(began) != 2 || began[2] != 2 || began[3] != 2 {
				t.Fatalf("began %v beside attempts at 0 and 1, want 2 and 3", began)
			}
			if w := c.Waiting(); w != 2 {
				t.Fatalf("%d wait, want 2", w)
			}
			exit(c, first[1])
			if fx := effects(c, t0); len(fx.Start) != 0 {
				t.Fatal("the next attempt began before the end of the first was durable")
			}
			c.Stored(first[1])
			if s := effects(c, t0).Start; len(s) != 1 || s[0].Partition != 1 || s[0].Attempt != 2 {
				t.Fatalf("began %v after attempt 1 at partition 1 was gone", s)
			}
			if q := c.TakeBack("r", 1, 10); len(q.First) != 1 || q.First[0] != 0 || q.Count[0] != 1 {
				t.Fatalf("takes back %v, want partition 0", q)
			}
		})
	}
}

// TestKillSparesWhatMayBeCommitted guards that an output is deleted whose
// commit stands: its partition is no longer valid to execute, so a kill can
// name it while its answer is still on the way.
func TestKillSparesWhatMayBeCommitted(t *testing.T) {
	c := node(1)
	opened(c, spec("r"), 1, t0)
	x := effects(c, t0).Start[0]
	exit(c, x)
	effects(c, t0)
	c.Stored(x)
	effects(c, t0)
	c.Kill(assign("r", 0, 1), t0)
	if fx := effects(c, t0); len(fx.Drop) != 0 {
		t.Fatal("a result that was sent is dropped before its answer")
	}
	c.Answered(answer(x, wire.Verdict_VERDICT_COMMITTED))
	if fx := effects(c, t0); len(fx.Keep) != 1 || len(fx.Drop) != 0 {
		t.Fatalf("kept %d, dropped %d of what is committed", len(fx.Keep), len(fx.Drop))
	}
}

// TestKilledIsNeverSent: what is killed before its record is durable goes
// without a result.
func TestKilledIsNeverSent(t *testing.T) {
	c := node(1)
	opened(c, spec("r"), 1, t0)
	x := effects(c, t0).Start[0]
	exit(c, x)
	effects(c, t0)
	c.Kill(assign("r", 0, 1), t0)
	c.Stored(x)
	if fx := effects(c, t0); len(fx.Send) != 0 || len(fx.Drop) != 1 {
		t.Fatalf("sent %d, dropped %d", len(fx.Send), len(fx.Drop))
	}
}

// TestIgnoredFailure: an exit code that the job ignores is a failure with an
// output; whether it counts as succeeded is the servers' answer.
func TestIgnoredFailure(t *testing.T) {
	for verdict, kept := range map[wire.Verdict]bool{
		wire.Verdict_VERDICT_COMMITTED: true, wire.Verdict_VERDICT_ALREADY: true,
		wire.Verdict_VERDICT_RECORDED: false, wire.Verdict_VERDICT_SUPERSEDED: false,
	} {
		c := node(1)
		opened(c, spec("r", func(s *Spec) { s.Stages, s.Ignore = true, []int{7} }), 1, t0)
		x := effects(c, t0).Stage[0]
		c.Staged(x, t0)
		effects(c, t0)
		c.Exited(&driverpb.Exited{Execution: x.ID, ExitCode: 7})
		if h := effects(c, t0).Harvest; len(h) != 1 || !h[0].Result.Keeps() {
			t.Fatal("its output is not harvested")
		}
		c.Harvested(x, [32]byte{1})
		effects(c, t0)
		c.Stored(x)
		s := effects(c, t0).Send
		if len(s) != 1 || s[0].Outcome != sheaf.OutcomeFailed || s[0].Failure != sheaf.FailExit || s[0].ExitCode != 7 || s[0].Digest != [32]byte{1} {
			t.Fatalf("sent as %+v", s)
		}
		c.Answered(answer(x, verdict))
		if fx := effects(c, t0); (len(fx.Keep) == 1) != kept || (len(fx.Drop) == 1) == kept {
			t.Errorf("%v: kept %d, dropped %d", verdict, len(fx.Keep), len(fx.Drop))
		}
	}
}

func TestIgnoredFailureWithoutHarvest(t *testing.T) {
	c := node(1)
	opened(c, spec("r", func(s *Spec) { s.Stages, s.Ignore = true, []int{7} }), 1, t0)
	x := effects(c, t0).Stage[0]
	c.Staged(x, t0)
	effects(c, t0)
	c.Exited(&driverpb.Exited{Execution: x.ID, ExitCode: 7})
	effects(c, t0)
	c.HarvestFailed(x, sheaf.FailOutput, "not a file")
	if r := effects(c, t0).Store[0].Result; r.Failure != sheaf.FailOutput || r.Keeps() || r.Digest != [32]byte{} {
		t.Fatalf("reported as %+v", r)
	}
}

// TestSealSpeaksForItself: a split or merge that succeeded sends no result, so
// that none can come before its seal.
func TestSealSpeaksForItself(t *testing.T) {
	for _, kind := range []wire.Kind{wire.Kind_KIND_SPLIT, wire.Kind_KIND_MERGE} {
		c := node(1)
		c.AddRun(spec("r"), false)
		x := assign("r", 0, 1)
		x.Kind = kind
		c.Assign(x, t0)
		e := effects(c, t0).Own[0]
		if l := c.Hello(); len(l.Executing) != 1 || len(l.Finished) != 0 {
			t.Fatalf("%v lists %+v while it goes on", kind, l)
		}
		c.OwnSealed(e)
		c.Welcome(&wire.Welcome{LeaseMs: 1000}, t0)
		if fx := effects(c, t0); len(fx.Send) != 0 {
			t.Errorf("%v sends a result", kind)
		}
		if l := c.Hello(); len(l.Executing)+len(l.Finished)+len(l.Queued) != 0 {
			t.Errorf("%v lists %+v after its seal", kind, l)
		}
	}
}

// TestStrays: an output without a record is asked about, is not listed, is not
// touched by a kill, and goes only by an answer.
func TestStrays(t *testing.T) {
	for verdict, want := range map[wire.Verdict]string{
		wire.Verdict_VERDICT_ALREADY: "keep", wire.Verdict_VERDICT_RECORDED: "drop", wire.Verdict_VERDICT_SUPERSEDED: "drop",
		wire.Verdict_VERDICT_CANCELLED: "drop", wire.Verdict_VERDICT_RESEND: "send", wire.Verdict_VERDICT_UNKNOWN: "",
	} {
		c := New(NewAccountant(Need{}, 1))
		r := c.AddRun(Spec{ID: "r"}, false)
		c.AdoptResult(&Result{Run: r, Partition: 3, Attempt: 2, Outcome: sheaf.OutcomeLost, Stray: true})
		if l := c.Hello(); len(l.Executing)+len(l.Finished)+len(l.Queued) != 0 {
			t.Fatalf("lists %+v", l)
		}
		c.Welcome(&wire.Welcome{LeaseMs: 1000, Kill: []*wire.Executions{attempt(assign("r", 3, 1), 2)}}, t0)
		if fx := effects(c, t0); len(fx.Send) != 1 || len(fx.Drop) != 0 {
			t.Fatalf("asks %d times, drops %d", len(fx.Send), len(fx.Drop))
		}
		c.Answered(&wire.Answers{Run: "r", Partition: []uint32{3}, Attempt: []uint32{2}, Verdict: []byte{byte(verdict)}})
		fx := effects(c, t0)
		got := map[bool]string{len(fx.Keep) == 1: "keep", len(fx.Drop) == 1: "drop", len(fx.Send) == 1: "send"}[true]
		if got != want {
			t.Errorf("%v: %q, want %q", verdict, got, want)
		}
	}
}

// TestPreparedAnewAfterWelcome: that a run cannot be prepared may never have
// reached the servers; what they let stay queued must not wait for ever.
func TestPreparedAnewAfterWelcome(t *testing.T) {
	c := node(1)
	r := c.AddRun(spec("r"), false)
	c.Assign(assign("r", 0, 1), t0)
	effects(c, t0)
	c.PrepareFailed(r)
	if fx := effects(c, t0); len(fx.Prepare) != 0 {
		t.Fatal("prepared again at once")
	}
	c.Hello()
	c.Welcome(&wire.Welcome{LeaseMs: 1000}, t0)
	if fx := effects(c, t0); len(fx.Prepare) != 1 {
		t.Fatal("not prepared again for the next stream")
	}
}

// TestOverWhileItsDriverDies: a run that ends while it is prepared is let go of
// when the driver's process dies under it.
func TestOverWhileItsDriverDies(t *testing.T) {
	c := node(1)
	c.AddRun(spec("r"), false)
	c.Assign(assign("r", 0, 1), t0)
	effects(c, t0)
	c.RunEnd("r", false, t0)
	c.Unprepare("mock")
	if fx := effects(c, t0); len(fx.Forget) != 1 || c.Run("r") != nil {
		t.Fatal("the run is kept for ever")
	}
}
