package execution

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

var t0 = time.Unix(1_800_000_000, 0)

// node is a core with capacity for slots executions, welcomed, with a minute's lease.
func node(slots int) *Core {
	c := New(NewAccountant(Need{}, slots))
	c.Welcome(&wire.Welcome{LeaseMs: 60_000}, t0)
	return c
}

func spec(id string, change ...func(*Spec)) Spec {
	s := Spec{ID: sheaf.RunID(id), Generation: 1, Driver: "mock", Weight: 50, Limits: sheaf.Resources{Memory: 128 << 20, Disk: 256 << 20, Pids: 256}}
	for _, f := range change {
		f(&s)
	}
	return s
}

func assign(run string, first, count uint32) *wire.Executions {
	return &wire.Executions{Run: run, Generation: 1, First: []uint32{first}, Count: []uint32{count}, Attempt: []uint32{1}}
}

// opened adds a run that is prepared, with partitions queued.
func opened(c *Core, s Spec, count uint32, now time.Time) *Run {
	r := c.AddRun(s, false)
	c.Assign(assign(string(s.ID), 0, count), now)
	var fx Effects
	c.Effects(now, &fx)
	c.Prepared(r, now)
	return r
}

func effects(c *Core, now time.Time) *Effects {
	fx := &Effects{}
	c.Effects(now, fx)
	return fx
}

func exit(c *Core, x *Execution) { c.Exited(&driverpb.Exited{Execution: x.ID}) }

func TestNothingBegins(t *testing.T) {
	for name, change := range map[string]func(*Core){
		"before it is prepared":        func(*Core) {},
		"between hello and welcome":    func(c *Core) { c.Prepared(c.Run("r"), t0); c.Hello() },
		"after the lease":              func(c *Core) { c.Prepared(c.Run("r"), t0); c.Lease(t0.Add(-time.Second)) },
		"while the node takes no work": func(c *Core) { c.Prepared(c.Run("r"), t0); c.Refuse(true) },
		"when preparing failed":        func(c *Core) { c.PrepareFailed(c.Run("r")) },
		"when all is taken back":       func(c *Core) { c.TakeBack("r", 1, 10); c.Prepared(c.Run("r"), t0) },
		"when all is killed":           func(c *Core) { c.Kill(assign("r", 0, 10), t0); c.Prepared(c.Run("r"), t0) },
		"when the run is over":         func(c *Core) { c.RunEnd("r", false, t0) },
	} {
		t.Run(name, func(t *testing.T) {
			c := node(4)
			c.AddRun(spec("r"), false)
			c.Assign(assign("r", 0, 10), t0)
			if fx := effects(c, t0); len(fx.Prepare) != 1 || len(fx.Start) != 0 {
				t.Fatalf("%d prepares and %d starts before the driver was asked", len(fx.Prepare), len(fx.Start))
			}
			change(c)
			if fx := effects(c, t0); len(fx.Start) != 0 {
				t.Fatalf("%d executions began", len(fx.Start))
			}
		})
	}
}

// A disk that hangs holds back what begins: what ends meanwhile must not pile up.
func TestNothingBeginsWhileTooMuchWaitsForTheDisk(t *testing.T) {
	c := node(64)
	opened(c, spec("r"), 3*maxStoring, t0)
	var storing []*Execution
	began := 0
	for {
		fx := effects(c, t0)
		storing = append(storing, fx.Store...)
		if len(fx.Start) == 0 {
			break
		}
		began += len(fx.Start)
		for _, x := range fx.Start {
			exit(c, x)
		}
	}
	if began < maxStoring || began > maxStoring+64 {
		t.Fatalf("%d executions began while none was durable, want %d and at most a slotful more", began, maxStoring)
	}
	for _, x := range storing {
		c.Stored(x)
	}
	if fx := effects(c, t0); len(fx.Start) == 0 {
		t.Error("nothing begins once all is durable")
	}
}

func TestLeaseStopsStartingOnly(t *testing.T) {
	c := node(2)
	opened(c, spec("r"), 10, t0)
	running := effects(c, t0).Start
	if len(running) != 2 {
		t.Fatalf("%d began, want 2", len(running))
	}
	late := t0.Add(2 * time.Minute)
	exit(c, running[0])
	fx := effects(c, late)
	if len(fx.Start) != 0 || len(fx.Stop) != 0 || len(fx.Store) != 1 {
		t.Fatalf("without a lease: %d began, %d ended, %d stored; want 0, 0, 1", len(fx.Start), len(fx.Stop), len(fx.Store))
	}
	c.Lease(late.Add(time.Minute))
	if fx := effects(c, late); len(fx.Start) != 1 {
		t.Fatalf("%d began with the new lease, want 1", len(fx.Start))
	}
}

func TestFairBetweenRuns(t *testing.T) {
	c := node(12)
	opened(c, spec("a", func(s *Spec) { s.Weight = 100 }), 1000, t0)
	opened(c, spec("b", func(s *Spec) { s.Weight = 50 }), 1000, t0)
	c.account = NewAccountant(Need{CPU: 1200}, 0)
	for _, r := range c.runs {
		r.Need = Need{CPU: 100}
	}
	began := map[sheaf.RunID]int{}
	for _, x := range effects(c, t0).Start {
		began[x.Run.ID]++
	}
	if began["a"] != 8 || began["b"] != 4 {
		t.Fatalf("weights 100 and 50 share 12 slots as %v, want 8 and 4", began)
	}
}

// TestLateRunStartsAtNextFreedSlots guards that a small run behind a large one
// does not wait for it.
func TestLateRunStartsAtNextFreedSlots(t *testing.T) {
	c := node(0)
	c.account = NewAccountant(Need{CPU: 400}, 0)
	big := func(s *Spec) { s.Need = Need{CPU: 100} }
	opened(c, spec("million", big), 1_000_000, t0)
	running := effects(c, t0).Start
	opened(c, spec("ten", big), 10, t0)
	if len(running) != 4 {
		t.Fatalf("%d run, want 4", len(running))
	}
	exit(c, running[0])
	exit(c, running[1])
	for _, x := range effects(c, t0).Start {
		if x.Run.ID != "ten" {
			t.Errorf("a freed slot went to %s", x.ID)
		}
	}
}

// TestPriorityCountsAtTheNextFreedSlots: a run's newer spec changes its share of what
// becomes free, and ends nothing.
func TestPriorityCountsAtTheNextFreedSlots(t *testing.T) {
	c := node(0)
	c.account = NewAccountant(Need{CPU: 1200}, 0)
	of := func(weight int) func(*Spec) {
		return func(s *Spec) { s.Need, s.Weight = Need{CPU: 100}, weight }
	}
	opened(c, spec("a", of(60)), 1000, t0)
	opened(c, spec("b", of(60)), 1000, t0)
	endAll := func(run sheaf.RunID) {
		for x := range c.live {
			if x.Run.ID == run && x.Phase == Running {
				exit(c, x)
			}
		}
	}
	shares := func(wantA, wantB int) {
		t.Helper()
		effects(c, t0)
		got := map[sheaf.RunID]int{}
		for x := range c.live {
			if x.Phase == Running {
				got[x.Run.ID]++
			}
		}
		if got["a"] != wantA || got["b"] != wantB {
			t.Fatalf("12 slots are shared as %v, want a: %d and b: %d", got, wantA, wantB)
		}
	}
	endAll("a") // it had all before b came
	shares(6, 6)
	c.AddRun(spec("b", of(180)), false)
	shares(6, 6)
	endAll("a")
	shares(3, 9)
}

// TestLargeIsNotStarved guards that small partitions stop passing a large one
// once it has waited long enough.
func TestLargeIsNotStarved(t *testing.T) {
	c := node(0)
	c.account = NewAccountant(Need{CPU: 400}, 0)
	opened(c, spec("small", func(s *Spec) { s.Need = Need{CPU: 100} }), 1000, t0)
	running := effects(c, t0).Start
	opened(c, spec("large", func(s *Spec) { s.Need = Need{CPU: 400} }), 1, t0)
	effects(c, t0)
	now := t0
	for i := 0; ; i++ {
		if i > 100 {
			t.Fatal("the large partition never began")
		}
		now = now.Add(100 * time.Millisecond)
		if len(running) == 0 {
			t.Fatal("nothing runs and the large partition does not begin")
		}
		exit(c, running[0])
		running = running[1:]
		for _, x := range effects(c, now).Start {
			if x.Run.ID == "large" {
				return
			}
			running = append(running, x)
		}
	}
}

func TestShardBytesCount(t *testing.T) {
	c := node(0)
	c.account = NewAccountant(Need{Disk: 1000}, 0)
	r := c.AddRun(spec("r", func(s *Spec) { s.Shards, s.Stages, s.Need = true, true, Need{Disk: 100} }), false)
	c.Assign(assign("r", 0, 3), t0)
	fx := effects(c, t0)
	c.Prepared(r, t0)
	if len(fx.Fetch) != 1 || fx.Fetch[0].First != 0 || fx.Fetch[0].Count != 3 {
		t.Fatalf("asked for shards %+v, want 0 to 2", fx.Fetch)
	}
	sized := func(n int64) *sheaf.Shard {
		return &sheaf.Shard{Data: []sheaf.Datum{{Atoms: []sheaf.Atom{{Size: n}}}}}
	}
	c.Fetched(r, Shards{First: 0, Shards: []*sheaf.Shard{sized(500), sized(500), sized(5000)}})
	staged := effects(c, t0).Stage
	if len(staged) != 1 {
		t.Fatalf("%d of 600 bytes each begin in 1000, want 1", len(staged))
	}
	c.Staged(staged[0], t0)
	effects(c, t0)
	exit(c, staged[0])
	c.Harvested(effects(c, t0).Harvest[0], [32]byte{})
	stored := effects(c, t0).Store
	c.Stored(stored[0])
	fx = effects(c, t0)
	if len(fx.Stage) != 1 {
		t.Fatalf("%d begin after the disk was given back, want 1", len(fx.Stage))
	}
	if len(fx.Store) != 1 || fx.Store[0].Result.Failure != sheaf.FailDisk || !strings.Contains(fx.Store[0].Result.Text.Message, "more than this node has") {
		t.Fatalf("a shard larger than the node is not refused: %+v", fx.Store)
	}
}

func TestTimeoutThenKill(t *testing.T) {
	c := node(1)
	opened(c, spec("r", func(s *Spec) { s.Timeout = time.Second }), 1, t0)
	x := effects(c, t0).Start[0]
	grace := func(*Run) time.Duration { return time.Second }
	c.Tick(t0.Add(900*time.Millisecond), grace)
	if fx := effects(c, t0); len(fx.Stop) != 0 {
		t.Fatal("stopped before its timeout")
	}
	c.Tick(t0.Add(time.Second), grace)
	if fx := effects(c, t0); len(fx.Stop) != 1 {
		t.Fatal("not stopped at its timeout")
	}
	c.Tick(t0.Add(2*time.Second), grace)
	if fx := effects(c, t0); len(fx.Stop)+len(fx.Hung) != 0 {
		t.Fatal("stopped twice")
	}
	c.Tick(t0.Add(33*time.Second), grace)
	if fx := effects(c, t0); len(fx.Hung) != 1 {
		t.Fatal("a driver that does not end it is not noticed")
	}
	c.Exited(&driverpb.Exited{Execution: x.ID, ExitCode: -1, Signal: "SIGTERM"})
	if r := effects(c, t0).Store[0].Result; r.Failure != sheaf.FailTimeout || r.Text.Message != "killed: over its timeout of 1s" {
		t.Fatalf("reported as %v: %q", r.Failure, r.Text.Message)
	}
}

func TestOutcomes(t *testing.T) {
	for _, tc := range []struct {
		exit *driverpb.Exited
		kind sheaf.FailureKind
		msg  string
	}{
		{&driverpb.Exited{}, sheaf.FailNone, ""},
		{&driverpb.Exited{ExitCode: 3}, sheaf.FailExit, "exit code 3"},
		{&driverpb.Exited{ExitCode: 7}, sheaf.FailExit, "exit code 7"}, // ignored by the job, which the servers say
		{&driverpb.Exited{ExitCode: -1, Signal: "SIGSEGV"}, sheaf.FailSignal, "ended by SIGSEGV"},
		{&driverpb.Exited{ExitCode: -1, Signal: "SIGKILL", OutOfMemory: true}, sheaf.FailMemory, "killed: over its memory limit of 128MiB"},
		{&driverpb.Exited{ExitCode: 0, OutOfMemory: true}, sheaf.FailNone, ""},
		{&driverpb.Exited{ExitCode: 2, OutOfPids: true}, sheaf.FailPids, "failed at its limit of 256 processes (exit code 2)"},
		{&driverpb.Exited{ExitCode: -1, NotStarted: true, Error: "no such program"}, sheaf.FailDriver, "could not be started: no such program"},
		{&driverpb.Exited{ExitCode: -1, Error: "lost its pipe"}, sheaf.FailDriver, "lost its pipe"},
	} {
		c := node(1)
		opened(c, spec("r", func(s *Spec) { s.Ignore = []int{7} }), 1, t0)
		tc.exit.Execution = effects(c, t0).Start[0].ID
		c.Exited(tc.exit)
		r := effects(c, t0).Store[0].Result
		msg := ""
		if r.Text != nil {
			msg = r.Text.Message
		}
		want := sheaf.OutcomeFailed
		if tc.kind == sheaf.FailNone {
			want = sheaf.OutcomeSucceeded
		}
		if ignored := tc.exit.ExitCode == 7; r.Ignored != ignored || (r.Digest != [32]byte{}) != (ignored || want == sheaf.OutcomeSucceeded) {
			t.Errorf("%v: ignored %v, digest %x", tc.exit, r.Ignored, r.Digest)
		}
		if r.Outcome != want || r.Failure != tc.kind || msg != tc.msg {
			t.Errorf("%v: outcome %v, %v, %q; want %v, %v, %q", tc.exit, r.Outcome, r.Failure, msg, want, tc.kind, tc.msg)
		}
	}
}

// TestDriverDiesWhileStaging: what is staged for a driver that has died waits
// until the run is prepared anew, and can be killed meanwhile.
func TestDriverDiesWhileStaging(t *testing.T) {
	c := node(4)
	r := opened(c, spec("r", func(s *Spec) { s.Stages = true }), 3, t0)
	staged := effects(c, t0).Stage
	c.Unprepare("mock")
	for _, x := range staged {
		c.Staged(x, t0)
	}
	fx := effects(c, t0)
	if len(fx.Start) != 0 || len(fx.Prepare) != 1 {
		t.Fatalf("%d started and %d prepared while the driver is gone", len(fx.Start), len(fx.Prepare))
	}
	c.Kill(assign("r", staged[0].Partition, 1), t0)
	if fx := effects(c, t0); len(fx.Harvest) != 1 || len(fx.Stop) != 0 {
		t.Fatalf("killed while it waits: %d cleaned up, %d stopped", len(fx.Harvest), len(fx.Stop))
	}
	c.Prepared(r, t0)
	if fx := effects(c, t0); len(fx.Start) != 2 {
		t.Fatalf("%d started when the driver was back, want 2", len(fx.Start))
	}
}

// TestLostWithItsDriver: what a dead driver ran counts as lost, not as failed.
func TestLostWithItsDriver(t *testing.T) {
	c := node(2)
	opened(c, spec("r"), 2, t0)
	running := effects(c, t0).Start
	c.Started(running[0].ID, []byte("state"))
	if !running[0].Outlives() || running[1].Outlives() {
		t.Fatal("what outlives its driver is mistaken")
	}
	c.Lost(running[1], "gone", t0.Add(3*time.Second))
	c.Lost(running[1], "gone", t0.Add(3*time.Second))
	c.Exited(&driverpb.Exited{Execution: running[1].ID}) // too late
	stored := effects(c, t0).Store
	if len(stored) != 1 || stored[0].Result.Outcome != sheaf.OutcomeLost || stored[0].Result.DurationMs != 3000 {
		t.Fatalf("stored %+v", stored)
	}
}

func TestVerdicts(t *testing.T) {
	for verdict, want := range map[wire.Verdict]string{
		wire.Verdict_VERDICT_COMMITTED:  "keep",
		wire.Verdict_VERDICT_ALREADY:    "keep",
		wire.Verdict_VERDICT_RECORDED:   "keep",
		wire.Verdict_VERDICT_SUPERSEDED: "drop",
		wire.Verdict_VERDICT_CANCELLED:  "drop",
		wire.Verdict_VERDICT_RESEND:     "send",
		wire.Verdict_VERDICT_UNKNOWN:    "",
	} {
		c := node(1)
		r := opened(c, spec("r"), 1, t0)
		exit(c, effects(c, t0).Start[0])
		c.Stored(effects(c, t0).Store[0])
		if fx := effects(c, t0); len(fx.Send) != 1 {
			t.Fatal("a durable result is not sent")
		}
		a := &wire.Answers{Run: "r", Generation: 1, Partition: []uint32{0}, Attempt: []uint32{1}, Verdict: []byte{byte(verdict)}, Index: 9}
		c.Answered(a)
		c.Answered(a) // a replay must not count twice
		fx := effects(c, t0)
		got := ""
		switch {
		case len(fx.Keep) == 1 && len(fx.Drop)+len(fx.Send) == 0:
			got = "keep"
		case len(fx.Drop) == 1 && len(fx.Keep)+len(fx.Send) == 0:
			got = "drop"
		case len(fx.Send) == 2 && len(fx.Keep)+len(fx.Drop) == 0:
			got = "send"
		}
		if got != want {
			t.Errorf("%v: %q, want %q", verdict, got, want)
		}
		if answered := len(r.ended) == 0; answered != (want == "keep" || want == "drop") {
			t.Errorf("%v: result is kept: %v", verdict, !answered)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, run := range []sheaf.RunID{"r", "a.b.c", "thumbs-1f3a"} {
		gotRun, p, a, ok := ParseID(string(sheaf.NewExecutionID(run, 17, 2)))
		if !ok || gotRun != run || p != 17 || a != 2 {
			t.Errorf("%s comes back as %s %d %d %v", run, gotRun, p, a, ok)
		}
	}
	for _, bad := range []string{"", "r", "r.1", ".1.2", "r.x.1", "r.1.x", "r.1.-1", "r.1.4294967296"} {
		if _, _, _, ok := ParseID(bad); ok {
			t.Errorf("%q is read as an ID", bad)
		}
	}
}

func TestLastLines(t *testing.T) {
	long := strings.Repeat("0123456789\n", 400)
	got := LastLines([]byte(long))
	if len(got) > MaxStderr || !strings.HasPrefix(got, "0123456789\n") || !strings.HasSuffix(long, got) {
		t.Errorf("of %d bytes %d are kept, beginning %q", len(long), len(got), got[:12])
	}
	if got := LastLines([]byte("bad \xff byte")); got != "bad \uFFFD byte" {
		t.Errorf("invalid bytes come as %q", got)
	}
	if got := Clip(strings.Repeat("é", 1000), MaxMessage); len(got) > MaxMessage || !strings.HasSuffix(got, "é…") {
		t.Errorf("clipped to %d bytes ending %q", len(got), got[len(got)-6:])
	}
}

// BenchmarkCore is the core's own cost of one execution, from assignment to answer.
func BenchmarkCore(b *testing.B) {
	c := node(50)
	opened(c, spec("r"), uint32(b.N), t0)
	var fx Effects
	a := &wire.Answers{Run: "r", Partition: []uint32{0}, Attempt: []uint32{1}, Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED)}}
	b.ReportAllocs()
	for done := 0; done < b.N; {
		c.Effects(t0, &fx)
		if fx.Empty() {
			b.Fatal(fmt.Sprint("stuck at ", done))
		}
		for _, x := range fx.Start {
			exit(c, x)
		}
		for _, x := range fx.Store {
			c.Stored(x)
		}
		for _, r := range fx.Send {
			a.Partition[0] = r.Partition
			c.Answered(a)
			done++
		}
	}
}

// TestResultsGoTogether: while more of a run waits here, or what was sent is not answered, its results are sent now
// and then; the first, and those after which nothing waits, at once.
func TestResultsGoTogether(t *testing.T) {
	for name, x := range map[string]struct {
		answers bool
		gather  time.Duration // 0 is not said
		want    string
	}{
		"each is answered before the next ends":   {answers: true, want: "[1 0 0 2 2 1]"},
		"none is answered":                        {want: "[1 0 0 2 0 0]"},
		"the servers ask for larger messages":     {answers: true, gather: 2 * sendEvery, want: "[1 0 0 0 4 1]"},
		"the servers ask for more than is useful": {gather: time.Hour, want: "[1 0 0 0 0 0]"},
	} {
		t.Run(name, func(t *testing.T) {
			c := node(1)
			opened(c, spec("r"), 6, t0)
			c.Gather(x.gather)
			now := t0
			running := effects(c, now).Start[0]
			var sent []int
			for running != nil {
				exit(c, running)
				fx := effects(c, now)
				ended := fx.Store[0]
				running = nil
				if len(fx.Start) > 0 {
					running = fx.Start[0]
				}
				n := 0
				told := func(list []*Result) {
					n += len(list)
					for _, r := range list {
						if x.answers {
							c.Answered(&wire.Answers{Run: "r", Partition: []uint32{r.Partition}, Attempt: []uint32{r.Attempt}, Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED)}})
						}
					}
				}
				told(fx.Send)
				c.Stored(ended)
				told(effects(c, now).Send)
				sent = append(sent, n)
				now = now.Add(sendEvery * 2 / 5)
			}
			if got := fmt.Sprint(sent); got != x.want {
				t.Errorf("results were sent %v, want %s", got, x.want)
			}
			c.Tick(now.Add(mostGather), func(*Run) time.Duration { return 0 })
			last := 0
			if x.want[len(x.want)-2] == '0' {
				last = 1
			}
			if got := len(effects(c, now.Add(mostGather)).Send); min(got, 1) != last {
				t.Errorf("%d are sent in the end; want all that are left", got)
			}
		})
	}
}

// TestReportsGoWithResults: what runs for a while is told of in the packet of results, and by itself where none go.
func TestReportsGoWithResults(t *testing.T) {
	c := node(2)
	opened(c, spec("r"), 6, t0)
	at := func(d time.Duration) (fx *Effects) {
		c.Tick(t0.Add(d), func(*Run) time.Duration { return 0 })
		return effects(c, t0.Add(d))
	}
	fx := at(0)
	first := fx.Start[0]
	if n := len(at(reportAge - 1).Reports); n != 0 {
		t.Errorf("%d young ones are reported", n)
	}
	if n := len(at(reportAge + sendEvery).Reports); n != 2 {
		t.Errorf("%d are reported, want both that run", n)
	}
	exit(c, first)
	fx = at(2 * time.Second)
	if len(fx.Start) != 1 {
		t.Fatalf("%d begin", len(fx.Start))
	}
	c.Stored(fx.Store[0])
	if fx := effects(c, t0.Add(2*time.Second+reportAge)); len(fx.Send) != 1 || len(fx.Reports) != 1 {
		t.Errorf("%d results and %d reports are sent, want one of each", len(fx.Send), len(fx.Reports))
	}
}

// TestWelcomeSendsOnce: what waited to be sent when the stream broke is sent once by the next.
func TestWelcomeSendsOnce(t *testing.T) {
	c := node(1)
	opened(c, spec("r"), 9, t0)
	fx := effects(c, t0)
	exit(c, fx.Start[0])
	fx = effects(c, t0) // the next begins
	next := fx.Start[0]
	c.Stored(fx.Store[0])
	exit(c, next)
	c.Stored(effects(c, t0).Store[0])
	c.Hello()
	c.Welcome(&wire.Welcome{LeaseMs: 60_000}, t0)
	if n := len(effects(c, t0).Send) + len(effects(c, t0.Add(sendEvery)).Send); n != 2 {
		t.Errorf("%d results were sent of 2", n)
	}
}
