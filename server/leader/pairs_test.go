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
