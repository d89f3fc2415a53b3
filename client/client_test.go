package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func TestTenThousandPartitions(t *testing.T) {
	const n = 10_000
	l := newLeader(t)
	l.start(l.config())
	l.run("r", mockJob(nil), n)
	l.assign("r", 0, n/2, 1)
	l.assign("r", n/2, n/2, 1)
	l.until("all results", func() bool { return len(l.results) == n })
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.results {
		if r.outcome != sheaf.OutcomeSucceeded || r.exit != 0 {
			t.Fatalf("%s: outcome %v, exit %d, %v", id, r.outcome, r.exit, r.text)
		}
	}
	if l.repeats != 0 {
		t.Errorf("%d results came twice", l.repeats)
	}
	if len(l.prepared) != 1 || l.prepared[0].GetError() != "" {
		t.Errorf("prepared as %v, want once and well", l.prepared)
	}
}

// TestReconnect breaks the stream again and again under load: no partition is
// lost, none is run twice, and each Hello lists exactly what is open.
func TestReconnect(t *testing.T) {
	const n, early = 2000, 1750
	l := newLeader(t)
	l.start(l.config())
	l.run("r", mockJob(map[string]any{"duration": "2ms"}), n)
	l.assign("r", 0, early, 1)
	for cut := 1; cut <= 5; cut++ {
		l.until("some results", func() bool { return len(l.results) >= cut*n/8 })
		hello := l.disconnect()
		listed := map[uint32]bool{}
		for _, xs := range [][]*wire.Executions{hello.GetQueued(), hello.GetExecuting(), hello.GetFinished()} {
			for _, x := range xs {
				for i := range x.First {
					for p := x.First[i]; p < x.First[i]+x.Count[i]; p++ {
						if listed[p] {
							t.Errorf("partition %d is listed twice", p)
						}
						listed[p] = true
					}
				}
			}
		}
		l.mu.Lock()
		for p := range uint32(early) {
			if r := l.results[string(sheaf.NewExecutionID("r", int(p), 1))]; r == nil && !listed[p] {
				t.Errorf("partition %d has no result and is not listed", p)
			}
		}
		l.mu.Unlock()
	}
	// A run of which nothing was left at the last welcome is forgotten: it is described before more of it is assigned.
	l.run("r", mockJob(map[string]any{"duration": "2ms"}), n)
	l.assign("r", early, n-early, 1)
	l.until("all results", func() bool { return len(l.results) == n })
	l.mu.Lock()
	defer l.mu.Unlock()
	last := uint64(0)
	for _, r := range l.results {
		last = max(last, r.session)
	}
	if last < 6 {
		t.Errorf("the last session that results name is %d, want 6", last)
	}
}

func TestTakeBack(t *testing.T) {
	hold := filepath.Join(t.TempDir(), "go")
	l := newLeader(t)
	l.start(l.config(withSpy, func(c *Config) { c.Slots = 4 }))
	l.run("r", spyJob(map[string]any{"hold": hold}), 100)
	l.assign("r", 0, 100, 1)
	l.until("four run", func() bool { return l.running == 4 })
	l.send(&wire.FromServer{Body: &wire.FromServer_TakeBack{TakeBack: &wire.TakeBack{Id: 42, Run: "r", Generation: 1, Most: 50}}})
	l.until("it is confirmed", func() bool { return len(l.taken) == 1 })
	back := l.taken[0]
	if d := back.GetDropped(); back.GetId() != 42 || len(d.GetFirst()) != 1 || d.First[0] != 50 || d.Count[0] != 50 {
		t.Fatalf("confirmed %v, want 50 partitions from 50", back)
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.until("a result", func() bool { return len(l.results) > 0 })
	l.send(&wire.FromServer{Body: &wire.FromServer_TakeBack{TakeBack: &wire.TakeBack{Id: 43, Run: "r", Generation: 1, Most: 1000}}})
	l.until("it is confirmed", func() bool { return len(l.taken) == 2 })
	rest := 0
	for _, c := range l.taken[1].GetDropped().GetCount() {
		rest += int(c)
	}
	l.until("what began ends", func() bool { return len(l.results) == 50-rest })
	hello := l.disconnect()
	if len(hello.GetQueued())+len(hello.GetExecuting())+len(hello.GetFinished()) != 0 {
		t.Errorf("lists %v after everything was given back or answered", hello)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.results {
		if r.partition >= 50 {
			t.Errorf("%s ran after it was given back", id)
		}
	}
}

func TestKill(t *testing.T) {
	l := newLeader(t)
	l.start(l.config(func(c *Config) { c.Slots = 2 }))
	l.run("long", mockJob(map[string]any{"duration": "1h"}), 10)
	l.run("short", mockJob(nil), 3)
	l.assign("long", 0, 10, 1)
	l.until("two are reported running", func() bool { return l.running == 2 })
	l.assign("short", 0, 3, 1)
	l.send(&wire.FromServer{Body: &wire.FromServer_Kill{Kill: executions("long", wire.Kind_KIND_PARTITION, 0, 10, 1)}})
	l.until("freed slots are used", func() bool { return len(l.results) == 3 })
	hello := l.disconnect()
	if len(hello.GetQueued())+len(hello.GetExecuting())+len(hello.GetFinished()) != 0 {
		t.Errorf("lists %v after the kill", hello)
	}
}

// TestUnansweredSurviveRestart: results that were durable and sent, and never
// answered, are listed and sent again by the next process, under its session.
func TestUnansweredSurviveRestart(t *testing.T) {
	const n = 50
	l := newLeader(t)
	l.silent = true
	cfg := l.config()
	_, stop := l.start(cfg)
	l.run("r", mockJob(map[string]any{"fail_partitions": []any{"7"}, "stderr": "it broke\n"}), n)
	l.assign("r", 0, n, 1)
	l.until("all results", func() bool { return len(l.results) == n })
	stop()
	l.mu.Lock()
	before := l.results["r.7.1"]
	l.results = map[string]*result{}
	l.silent = false
	l.mu.Unlock()
	if before.outcome != sheaf.OutcomeFailed || before.text.GetStderr() != "it broke\n" {
		t.Fatalf("partition 7: %+v", before)
	}
	first, _ := l.start(cfg)
	l.mu.Lock()
	hello := l.hello
	l.mu.Unlock()
	if f := hello.GetFinished(); len(f) != 1 || len(f[0].First) != 1 || f[0].Count[0] != n || len(hello.GetExecuting()) != 0 {
		t.Errorf("lists %v, want %d finished", hello, n)
	}
	if hello.GetNode() != string(first.ID()) {
		t.Errorf("says hello as %q, is %q", hello.GetNode(), first.ID())
	}
	l.until("all results again", func() bool { return len(l.results) == n })
	again := l.result("r.7.1")
	if again.session != 2 || again.text.GetStderr() != "it broke\n" || again.text.GetMessage() != before.text.GetMessage() || again.digest != before.digest {
		t.Errorf("sent again as %+v %v, was %+v %v", again, again.text, before, before.text)
	}
}

// TestDriverCrash: what ran in the process that died is lost, says so, and the
// driver serves what comes after.
func TestDriverCrash(t *testing.T) {
	l := newLeader(t)
	l.start(l.config(func(c *Config) { c.Slots = 8 }))
	l.run("long", mockJob(map[string]any{"duration": "1h"}), 4)
	l.run("bad", mockJob(map[string]any{"crash": true, "fail_partitions": []any{"0"}, "fail_times": 1.0}), 1)
	l.assign("long", 0, 4, 1)
	l.until("four are reported running", func() bool { return l.running == 4 })
	l.assign("bad", 0, 1, 1)
	for _, id := range []string{"long.0.1", "long.3.1", "bad.0.1"} {
		if r := l.result(id); r.outcome != sheaf.OutcomeLost || !strings.Contains(r.text.GetMessage(), "process ended") {
			t.Errorf("%s: %v %v, want lost", id, r.outcome, r.text)
		}
	}
	l.assign("bad", 0, 1, 2)
	if r := l.result("bad.0.2"); r.outcome != sheaf.OutcomeSucceeded {
		t.Errorf("after the crash: %v %v", r.outcome, r.text)
	}
}

func TestLeaseExpiry(t *testing.T) {
	hold := filepath.Join(t.TempDir(), "go")
	l := newLeader(t)
	l.leaseMs = 1000
	l.start(l.config(withSpy, func(c *Config) { c.Slots = 1 }))
	l.run("r", spyJob(map[string]any{"hold": hold}), 2)
	l.assign("r", 0, 2, 1)
	l.until("the first runs", func() bool { return l.running == 1 })
	l.mu.Lock()
	l.silent = true
	l.mu.Unlock()
	pulses := func(n uint64) {
		l.mu.Lock()
		from := l.pulse.GetSequence()
		l.mu.Unlock()
		l.until("pulses", func() bool { return l.pulse.GetSequence() >= from+n })
	}
	// What was sent before the answer to this has been taken, and pulses are 200 ms apart at least.
	l.send(&wire.FromServer{Body: &wire.FromServer_TakeBack{TakeBack: &wire.TakeBack{Id: 1, Run: "nobody's"}}})
	l.until("it is confirmed", func() bool { return len(l.taken) == 1 })
	pulses(8)
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.result("r.0.1") // began under the lease and went on without it
	pulses(2)
	l.mu.Lock()
	began := l.results["r.1.1"] != nil || l.running > 1
	l.silent = false
	l.mu.Unlock()
	if began {
		t.Fatal("the second began without a lease")
	}
	l.result("r.1.1") // the next pulse brings a lease
}

func TestTimeoutAndExit(t *testing.T) {
	l := newLeader(t)
	l.start(l.config())
	l.run("slow", mockJob(map[string]any{"duration": "1h", "stderr": "working\n"}, func(j *sheaf.Job) { j.Task.Timeout = sheaf.Duration(300 * time.Millisecond) }), 1)
	l.run("exit", mockJob(map[string]any{"exit_code": 9.0}), 1)
	l.run("ignore", mockJob(map[string]any{"exit_code": 9.0}, func(j *sheaf.Job) {
		j.Failure.OnExit = []sheaf.ExitPolicy{{Codes: []int{9}, Action: sheaf.ActionIgnore}}
	}), 1)
	for _, run := range []string{"slow", "exit", "ignore"} {
		l.assign(run, 0, 1, 1)
	}
	if r := l.result("slow.0.1"); r.failure != sheaf.FailTimeout || r.text.GetMessage() != "killed: over its timeout of 300ms" || r.text.GetStderr() != "working\n" {
		t.Errorf("slow: %v %v", r.failure, r.text)
	}
	if r := l.result("exit.0.1"); r.failure != sheaf.FailExit || r.exit != 9 || r.text.GetMessage() != "exit code 9" {
		t.Errorf("exit: %v %d %v", r.failure, r.exit, r.text)
	}
	// What an exit code means is the servers' to say.
	if r := l.result("ignore.0.1"); r.outcome != sheaf.OutcomeFailed || r.exit != 9 || r.digest == [32]byte{} {
		t.Errorf("ignore: %v %d, digest %x", r.outcome, r.exit, r.digest)
	}
}

// TestPrepareFails: the servers hear why, and whether another node may do
// better, and nothing begins.
func TestPrepareFails(t *testing.T) {
	l := newLeader(t)
	l.start(l.config())
	l.run("bad", mockJob(map[string]any{"duration": "long"}), 1)
	l.run("none", mockJob(nil, func(j *sheaf.Job) { j.Task.Driver = "nosuch" }), 1)
	l.assign("bad", 0, 1, 1)
	l.assign("none", 0, 1, 1)
	l.until("both are refused", func() bool { return len(l.prepared) == 2 })
	for _, p := range l.prepared {
		switch p.GetRun() {
		case "bad":
			if !p.GetInvalid() || !strings.Contains(p.GetError(), "mock") {
				t.Errorf("bad config: %v", p)
			}
		case "none":
			if p.GetInvalid() || !strings.Contains(p.GetError(), `no driver "nosuch"`) {
				t.Errorf("missing driver: %v", p)
			}
		}
	}
	if hello := l.disconnect(); len(hello.GetQueued()) != 2 || len(hello.GetExecuting()) != 0 {
		t.Errorf("lists %v, want both queued", hello)
	}
}
