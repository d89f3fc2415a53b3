package blame_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server/blame"
	"github.com/sheaf-run/agent/sheaf"
)

var t0 = time.Unix(1_000_000, 0)

// script is a ledger and what happens to it, a line a step:
//
//	ok RUN NODE N        N partitions of RUN are committed on NODE
//	ok RUN NODE @P       partition P is
//	fail RUN NODE P KIND partition P fails there
//	lost NODE
//	over RUN
//	wait DURATION
type script struct {
	t   *testing.T
	l   *blame.Ledger
	now time.Time
}

var kinds = map[string]sheaf.FailureKind{
	"exit": sheaf.FailExit, "memory": sheaf.FailMemory, "stage": sheaf.FailStage, "driver": sheaf.FailDriver, "prepare": sheaf.FailPrepare,
}

func (s *script) run(steps string) {
	for line := range strings.Lines(steps) {
		var what, run, arg string
		var n uint32
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		what = f[0]
		var node sheaf.NodeID
		if len(f) > 1 {
			run = f[1]
		}
		if len(f) > 2 {
			node = sheaf.NodeID(f[2])
		}
		if len(f) > 3 {
			arg = f[3]
			if _, err := fmt.Sscan(strings.TrimPrefix(arg, "@"), &n); err != nil {
				s.t.Fatalf("%s: %v", line, err)
			}
		}
		switch what {
		case "ok":
			if strings.HasPrefix(arg, "@") {
				s.l.Succeeded(sheaf.RunID(run), node, 1, s.now)
				if s.l.Waits(sheaf.RunID(run)) {
					s.l.SucceededAt(sheaf.RunID(run), n, node, s.now)
				}
				continue
			}
			s.l.Succeeded(sheaf.RunID(run), node, int(n), s.now)
		case "fail":
			kind, known := kinds[f[4]]
			if !known {
				s.t.Fatalf("no kind %q", f[4])
			}
			s.l.Failed(sheaf.RunID(run), n, node, kind, s.now)
		case "lost":
			s.l.Lost(sheaf.NodeID(run), s.now)
		case "over":
			s.l.Forget(sheaf.RunID(run))
		case "wait":
			d, err := time.ParseDuration(run)
			if err != nil {
				s.t.Fatal(err)
			}
			s.now = s.now.Add(d)
		default:
			s.t.Fatalf("no step %q", what)
		}
	}
}

// avoided are the nodes that stand out, each with its share in percent, rounded to tens.
func (s *script) avoided() string {
	var list []string
	found := s.l.Avoided(s.now)
	for _, id := range []sheaf.NodeID{"a", "b", "c", "d"} {
		if r, ok := found[id]; ok {
			list = append(list, fmt.Sprintf("%s %.0f", id, 10*float64(int(10*r.Share+0.5))))
		}
	}
	return strings.Join(list, ", ")
}

// fails are n failures on a node, of different partitions from first on.
func fails(run, node string, first, n int, kind string) (steps string) {
	for i := range n {
		steps += fmt.Sprintf("fail %s %s %d %s\n", run, node, first+i, kind)
	}
	return steps
}

// succeed are n partitions that are committed one by one.
func succeed(run, node string, first, n int) (steps string) {
	for i := range n {
		steps += fmt.Sprintf("ok %s %s @%d\n", run, node, first+i)
	}
	return steps
}

const all = "ok r a 20\nok r b 20\nok r c 20\nok r d 20\n"

func TestWhoStandsOut(t *testing.T) {
	for _, c := range []struct{ name, steps, want string }{
		{"nobody at first", "", ""},
		{"nobody where all goes well", all, ""},
		{"a node that cannot stage", all + fails("r", "a", 0, 30, "stage"), "a 60"},
		{"one that does nothing else", "ok r b 20\nok r c 20\nok r d 20\n" + fails("r", "a", 0, 30, "driver"), "a 100"},
		{"two or three failures are chance", all + fails("r", "a", 0, 2, "stage"), ""},
		{"a tenth is not", "ok r a 60\n" + all + fails("r", "a", 0, 9, "driver"), "a 10"},
		{"exit codes where the same succeeds elsewhere", all + fails("r", "a", 0, 12, "exit") + succeed("r", "b", 0, 12), "a 40"},
		{"exit codes where it succeeds there too", all + fails("r", "a", 0, 12, "exit") + succeed("r", "a", 0, 12), ""},
		{"exit codes of which nothing is known", all + fails("r", "a", 0, 200, "exit"), ""},
		{"nor is when the run is over", all + fails("r", "a", 0, 12, "memory") + "over r\n" + succeed("r", "b", 0, 12), ""},
		{"a run that fails everywhere", fails("x", "a", 0, 50, "stage") + fails("x", "b", 50, 50, "stage") + fails("x", "c", 100, 50, "stage"), ""},
		{"a run that was on one node alone", all + fails("x", "a", 0, 50, "driver"), ""},
		{"four such runs", all + fails("v", "a", 0, 9, "driver") + fails("w", "a", 0, 9, "driver") + fails("x", "a", 0, 9, "driver") + fails("y", "a", 0, 9, "driver"), "a 20"},
		{"a run that turns out to do well elsewhere", all + fails("x", "a", 0, 50, "driver") + "ok x b 1\n", "a 70"},
		{"and before that on the same node alone", all + fails("x", "a", 0, 50, "driver") + "ok x a 1\n", ""},
		{"a task that fails by chance, everywhere", all + fails("r", "a", 0, 6, "exit") + fails("r", "b", 6, 5, "exit") + fails("r", "c", 11, 7, "exit") + fails("r", "d", 18, 6, "exit") +
			succeed("r", "d", 0, 18) + succeed("r", "a", 18, 6), ""},
		{"one of two nodes", "ok r b 20\n" + fails("r", "a", 0, 20, "stage"), "a 100"},
		{"a node that is alone", "ok r a 5\n" + fails("r", "a", 0, 20, "stage"), ""},
		{"not most nodes", "ok r d 20\n" + fails("r", "a", 0, 20, "stage") + fails("r", "b", 0, 20, "stage") + fails("r", "c", 0, 20, "stage"), ""},
		{"half of them at most", "ok r c 20\nok r d 20\n" + fails("r", "a", 0, 20, "stage") + fails("r", "b", 0, 20, "stage"), "a 100, b 100"},
		{"a restart", all + "lost a\n", ""},
		{"three restarts in a row", all + "lost a\nlost a\nlost a\n", "a 20"},
		{"restarts that are hours apart", all + "lost a\nwait 2h\nlost a\nwait 2h\nlost a\n", ""},
		{"it fades", all + fails("r", "a", 0, 30, "stage") + "wait 30m\n", ""},
		{"but not in a minute", all + fails("r", "a", 0, 30, "stage") + "wait 1m\n", "a 60"},
		{"and is outweighed", all + fails("r", "a", 0, 30, "stage") + "ok r a 5000\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := script{t, blame.New(), t0}
			s.run(c.steps)
			if got := s.avoided(); got != c.want {
				t.Errorf("%q stand out, not %q", got, c.want)
			}
		})
	}
}

// TestOneThatStoodOutDoesNotGoToAndFro: a node near the bounds is forgiven later than it is blamed.
func TestOneThatStoodOutDoesNotGoToAndFro(t *testing.T) {
	s := script{t, blame.New(), t0}
	s.run(all + fails("r", "a", 0, 4, "stage"))
	if s.avoided() == "" {
		t.Fatal("it does not stand out")
	}
	changes, was := 0, true
	for range 120 {
		s.run("wait 15s\nok r a 1\nok r b 1\nok r c 1\nok r d 1\n")
		if is := s.avoided() != ""; is != was {
			was = is
			changes++
		}
	}
	if was || changes != 1 {
		t.Errorf("it changed %d times, and stands out: %t", changes, was)
	}
}

func TestRecordSaysWhy(t *testing.T) {
	for _, c := range []struct{ steps, want string }{
		{fails("r", "a", 0, 30, "stage"), "of about 50 executions of all runs that ended there lately, 30 failed by its doing, against 0 % on most nodes; the last time inputs could not be laid out there"},
		{fails("r", "a", 0, 12, "exit") + succeed("r", "b", 0, 12), "12 failed by its doing, against 0 % on most nodes; the last time what failed there (exit) succeeded elsewhere"},
		{"lost a\nlost a\n", "it was lost, or came back without what it ran"},
	} {
		s := script{t, blame.New(), t0}
		s.run(all + c.steps)
		if got := s.l.Avoided(s.now)["a"].Why; !strings.HasSuffix(got, c.want) {
			t.Errorf("%q does not end with %q", got, c.want)
		}
	}
}

// TestRestEndsAfterTheLastFailure: what mostly fails rests, from its last failure on.
func TestRestEndsAfterTheLastFailure(t *testing.T) {
	s := script{t, blame.New(), t0}
	s.run(all + fails("r", "a", 0, 40, "stage") + "wait 3s\nfail r a 41 stage\nwait 1s\n")
	if got := s.l.Avoided(s.now)["a"].Until.Sub(t0); got != 3*time.Second+blame.Rest {
		t.Errorf("it rests until %v", got)
	}
	s = script{t, blame.New(), t0}
	s.run("ok r a 60\n" + all + fails("r", "a", 0, 9, "driver"))
	if r := s.l.Avoided(s.now)["a"]; r.Share == 0 || !r.Until.IsZero() {
		t.Errorf("one that fails a little rests: %+v", r)
	}
}

// TestWhatIsRememberedIsBounded: however much ends and fails.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := script{t, blame.New(), t0}
	s.run(all)
	for p := range uint32(200_000) {
		s.l.Failed("r", p, "a", sheaf.FailExit, s.now)
	}
	for p := range uint32(200_000) {
		s.l.SucceededAt("r", p, "b", s.now)
	}
	if r := s.l.Avoided(s.now)["a"]; r.Failed > 300 || r.Failed < 200 || s.l.Waits("r") {
		t.Errorf("%+v, and failures wait: %t", r, s.l.Waits("r"))
	}
}

// BenchmarkAvoided looks at a thousand nodes of which a tenth fail.
func BenchmarkAvoided(b *testing.B) {
	l := blame.New()
	for i := range 1000 {
		id := sheaf.NodeID(fmt.Sprintf("n%04d", i))
		l.Succeeded("r", id, 100, t0)
		if i%10 == 0 {
			for p := range uint32(20) {
				l.Failed("r", p, id, sheaf.FailStage, t0)
			}
		}
	}
	now := t0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		if len(l.Avoided(now)) != 100 {
			b.Fatal(len(l.Avoided(now)))
		}
	}
}
