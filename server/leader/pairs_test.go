package leader

import (
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// TestPairsAreFollowed: which of two attempts runs on, and how long both ran.
func TestPairsAreFollowed(t *testing.T) {
	t0 := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for _, c := range []struct {
		name    string
		attempt uint32 // whose result comes
		verdict wire.Verdict
		runs    string // then
		side    time.Duration
		won     int
	}{
		{"the first is committed", 1, wire.Verdict_VERDICT_COMMITTED, "", 5 * time.Second, 0},
		{"the second is committed", 2, wire.Verdict_VERDICT_COMMITTED, "", 5 * time.Second, 1},
		{"the first fails", 1, wire.Verdict_VERDICT_RECORDED, "4", 5 * time.Second, 0},
		{"the second fails", 2, wire.Verdict_VERDICT_RECORDED, "4", 5 * time.Second, 0},
		{"neither", 9, wire.Verdict_VERDICT_SUPERSEDED, "4", 5 * time.Second, 0},
	} {
		tr := newTracker()
		start := func(node sheaf.NodeID, attempt uint32, when time.Time) {
			tr.started(node, &wire.Executions{Run: "r", First: []uint32{4}, Count: []uint32{1}, Attempt: []uint32{attempt}}, when)
		}
		start("a", 1, at(0))
		tr.paired("r", &state.Backup{Run: "r", Partition: 4, Attempt: 2}, "b", "it is slow")
		start("b", 2, at(10))
		tr.ended(&wire.Results{Run: "r", Node: "a", Partition: []uint32{4}, Attempt: []uint32{c.attempt}, DurationMs: []uint32{5000}},
			&wire.Answers{Verdict: []byte{byte(c.verdict)}}, at(15))
		r := tr.runs["r"]
		if got := tr.measures("r", at(15)).Running.String(); got != c.runs {
			t.Errorf("%s: %q runs, want %q", c.name, got, c.runs)
		}
		if got := r.side(at(15)); got != c.side || r.tail.won != c.won || r.tail.made != 1 {
			t.Errorf("%s: side by side %v, %d of %d won", c.name, got, r.tail.won, r.tail.made)
		}
		if got := r.tail.took.Len(); got != 0 != (c.verdict == wire.Verdict_VERDICT_COMMITTED) {
			t.Errorf("%s: %d durations", c.name, got)
		}
	}
}

// TestOrderForgetsWhatEnded: the order of what runs stays about as long as what runs.
func TestOrderForgetsWhatEnded(t *testing.T) {
	tr := newTracker()
	t0 := time.Unix(1_000_000, 0)
	for p := range uint32(10_000) {
		tr.started("a", &wire.Executions{Run: "r", First: []uint32{p}, Count: []uint32{1}, Attempt: []uint32{1}}, t0)
		if p%100 != 0 {
			tr.ended(&wire.Results{Run: "r", Node: "a", Partition: []uint32{p}, Attempt: []uint32{1}}, &wire.Answers{Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED)}}, t0)
		}
	}
	if r := tr.runs["r"]; len(r.running) != 100 || len(r.tail.order) > 300 {
		t.Errorf("%d run, and the order has %d", len(r.running), len(r.tail.order))
	}
}

// TestSecondsAreGivenUp: a second attempt that was slow too counts for what it cost, and the one in its place for itself.
func TestSecondsAreGivenUp(t *testing.T) {
	t0 := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	tr := newTracker()
	start := func(node sheaf.NodeID, attempt uint32, when time.Time) {
		tr.started(node, &wire.Executions{Run: "r", First: []uint32{4}, Count: []uint32{1}, Attempt: []uint32{attempt}}, when)
	}
	second := func(attempt uint32) *state.Backup {
		return &state.Backup{Run: "r", Partition: 4, Attempt: attempt}
	}
	start("a", 1, at(0))
	tr.paired("r", second(2), "b", "it is slow")
	tail := &tr.runs["r"].tail
	if got := tail.second(4, at(5)); got.Age != 0 {
		t.Errorf("a second attempt that does not run yet: %+v", got)
	}
	start("b", 2, at(10))
	if got := tail.second(4, at(15)); got.Node != "b" || got.Age != 5*time.Second+reportedAge || got.Tried != 0 {
		t.Errorf("the second attempt: %+v", got)
	}
	tr.gaveUp("r", second(7), at(20)) // another
	if tail.pairs[4] == nil {
		t.Fatal("one that was not given up is forgotten")
	}
	tr.gaveUp("r", second(2), at(20))
	if tail.pairs[4] != nil || tr.runs["r"].side(at(25)) != 10*time.Second {
		t.Errorf("given up, and side by side for %v", tr.runs["r"].side(at(25)))
	}
	tr.paired("r", second(3), "c", "that was slow too")
	start("c", 3, at(30))
	if got := tail.second(4, at(31)); got.Node != "c" || got.Tried != 1 {
		t.Errorf("the one in its place: %+v", got)
	}
	tr.ended(&wire.Results{Run: "r", Node: "c", Partition: []uint32{4}, Attempt: []uint32{3}, DurationMs: []uint32{5000}},
		&wire.Answers{Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED)}}, at(35))
	if got := tr.runs["r"].side(at(40)); got != 15*time.Second || tail.made != 2 || tail.won != 1 || len(tail.gaveUp)+len(tail.pairs)+len(tr.runs["r"].running) != 0 {
		t.Errorf("over, side by side for %v, %d made, %d won: %+v", got, tail.made, tail.won, tail)
	}
}
