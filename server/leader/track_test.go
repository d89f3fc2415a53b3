package leader

import (
	"math"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func TestWindowMeasuresRates(t *testing.T) {
	t0 := time.Unix(1_000_000, 0)
	var w window
	if w.over(t0, 10) != 0 {
		t.Error("a window of nothing has a rate")
	}
	for i := range 300 { // 100 a second for three seconds
		w.add(t0.Add(time.Duration(i)*10*time.Millisecond), 1)
	}
	at := t0.Add(3 * time.Second)
	for _, c := range []struct {
		after time.Duration
		over  int64
		want  float64
	}{{0, 10, 100}, {0, 3, 100}, {2 * time.Second, 10, 60}, {2 * time.Second, 1, 0}, {7 * time.Second, 10, 30}, {time.Minute, 10, 0}} {
		if got := w.over(at.Add(c.after), c.over); math.Abs(got-c.want) > c.want*0.05+0.01 {
			t.Errorf("after %v over %d s: %v a second, want %v", c.after, c.over, got, c.want)
		}
	}
}

func TestTrackerFollowsWhatRuns(t *testing.T) {
	tr := newTracker()
	t0 := time.Unix(1_000_000, 0)
	start := func(node sheaf.NodeID, first uint32, at time.Time) {
		tr.started(node, &wire.Executions{Run: "r", First: []uint32{first}, Count: []uint32{2}, Attempt: []uint32{1}}, at)
	}
	start("a", 10, t0.Add(3*time.Second))
	start("b", 4, t0)
	start("a", 20, t0.Add(time.Second))
	// Of an older attempt: what runs now is not touched.
	end := func(p, attempt uint32, v wire.Verdict) {
		tr.ended(&wire.Results{Run: "r", Node: "a", Partition: []uint32{p}, Attempt: []uint32{attempt}}, &wire.Answers{Verdict: []byte{byte(v)}}, t0)
	}
	end(10, 0, wire.Verdict_VERDICT_SUPERSEDED)
	end(11, 1, wire.Verdict_VERDICT_COMMITTED)
	m := tr.measures("r", t0.Add(5*time.Second))
	if m.Running.String() != "4-5,10,20-21" {
		t.Errorf("running %s", m.Running)
	}
	if len(m.Slowest) != 3 || m.Slowest[0].Partition != 4 || m.Slowest[1].Partition != 5 || m.Slowest[2].Partition != 20 {
		t.Errorf("slowest %+v", m.Slowest)
	}
	tr.lost("b")
	if m := tr.measures("r", t0); m.Running.String() != "10,20-21" {
		t.Errorf("with b lost: running %s", m.Running)
	}
	tr.forget("r")
	if m := tr.measures("r", t0); m.Running != nil || len(tr.runs) != 0 {
		t.Errorf("forgotten, and there is %+v", m)
	}
}

func TestPulseSaysWhatChanged(t *testing.T) {
	tr := newTracker()
	for i, c := range []struct {
		pulse  *wire.Pulse
		anew   bool
		larger int
	}{
		{&wire.Pulse{}, false, 0},
		{&wire.Pulse{Error: "disk is full"}, true, 0},
		{&wire.Pulse{Error: "disk is full"}, false, 0},
		{&wire.Pulse{Runs: []*wire.RunRate{{Run: "r", Slots: 4, Rate: 10}}}, true, 1},
		{&wire.Pulse{Runs: []*wire.RunRate{{Run: "r", Slots: 4, Rate: 11}}}, false, 0},
		{&wire.Pulse{Runs: []*wire.RunRate{{Run: "r", Slots: 4, Rate: 20}}}, false, 1},
		{&wire.Pulse{Runs: []*wire.RunRate{{Run: "r", Slots: 5, Rate: 20}}}, false, 1},
	} {
		if anew, larger := tr.pulse("a", c.pulse); anew != c.anew || len(larger) != c.larger {
			t.Errorf("pulse %d: %t, %v", i, anew, larger)
		}
	}
}
