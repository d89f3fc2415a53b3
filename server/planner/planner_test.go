package planner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/planner"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// log is a state machine without a cluster around it.
type log struct {
	t       testing.TB
	mu      sync.Mutex
	machine *fsm.Machine
	index   uint64
	plans   int
}

func newLog(t testing.TB) *log {
	return &log{t: t, machine: fsm.New(state.New(new(state.MemoryChunks)))}
}

func (l *log) Apply(_ context.Context, c *fsm.Command) (fsm.Reply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	c.TimeMs = int64(l.index)
	b, err := fsm.Encode(c)
	if err != nil {
		return fsm.Reply{}, err
	}
	if c.GetApplyPlan() != nil {
		l.plans++
	}
	return l.machine.Apply(l.index, b)
}

func (l *log) must(c *fsm.Command) fsm.Reply {
	l.t.Helper()
	r, err := l.Apply(l.t.Context(), c)
	if err != nil || r.Err != nil {
		l.t.Fatalf("apply %v: %v, %v", c, err, r.Err)
	}
	return r
}

func (l *log) node(id string) uint64 {
	return l.must(&fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: []byte(`{"id":"` + id + `"}`), BootId: "b"}}}).Session
}

func (l *log) run(id string, partitions int) {
	b, err := json.Marshal(sheaf.Job{Name: "j", Count: partitions, Retry: sheaf.Retry{Attempts: 3}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.must(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: id, JobJson: b}}})
}

// start runs a planner over l until the test ends, and gives what it placed.
func start(t testing.TB, l *log) (*planner.Planner, func() map[sheaf.NodeID]int) {
	var mu sync.Mutex
	placed := map[sheaf.NodeID]int{}
	p := planner.New(l, l.machine.Store().Snapshot, func(n sheaf.NodeID, e *wire.Executions) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range e.Count {
			placed[n] += int(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p, func() map[sheaf.NodeID]int {
		mu.Lock()
		defer mu.Unlock()
		return placed
	}
}

func TestPlanLargerThanACommand(t *testing.T) {
	l := newLog(t)
	a, b := l.node("a"), l.node("b")
	l.run("r", 1_000_000)
	p, placed := start(t, l)
	var odd sheaf.Ranges // every second partition: as many ranges as partitions
	for i := 600_000; i < 660_000; i += 2 {
		odd = odd.Add(i)
	}
	got, err := p.Submit(t.Context(), planner.Plan{Run: "r", Placements: []scheduler.Placement{
		{Node: "a", Session: a, Partitions: sheaf.Ranges{{First: 0, Last: 499_999}}},
		{Node: "b", Session: b, Partitions: odd},
	}})
	if err != nil || got.Placed != 530_000 || got.Refused != 0 {
		t.Fatalf("result %+v, %v", got, err)
	}
	if s := fmt.Sprint(placed()); s != "map[a:500000 b:30000]" {
		t.Errorf("handed on: %s", s)
	}
	if c := l.machine.Store().Snapshot().Run("r").Counts(); c.Assigned != 530_000 {
		t.Errorf("counts %+v", c)
	}
}

func TestStalePlacementsAreRefused(t *testing.T) {
	l := newLog(t)
	a := l.node("a")
	l.run("r", 10)
	l.run("over", 10)
	l.must(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "over"}}})
	p, placed := start(t, l)
	all := sheaf.Ranges{{First: 0, Last: 9}}
	for _, c := range []struct {
		run  sheaf.RunID
		node sheaf.NodeID
		n    uint64
		want int // placed
	}{
		{"r", "a", a + 1, 0},
		{"r", "x", 1, 0},
		{"over", "a", a, 0},
		{"nope", "a", a, 0},
		{"r", "a", a, 10},
		{"r", "a", a, 0}, // again: nothing is pending any more
	} {
		got, err := p.Submit(t.Context(), planner.Plan{Run: c.run, Placements: []scheduler.Placement{{Node: c.node, Session: c.n, Partitions: all}}})
		if err != nil || got.Placed != c.want || got.Placed+got.Refused != 10 || c.want == 0 && got.Reason == "" {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
	if s := fmt.Sprint(placed()); s != "map[a:10]" {
		t.Errorf("handed on: %s", s)
	}
}

// Many plans at once share commands.
func TestPlansAreFolded(t *testing.T) {
	l := newLog(t)
	a := l.node("a")
	for i := range 200 {
		l.run(fmt.Sprint("r", i), 1)
	}
	p, placed := start(t, l)
	var all sync.WaitGroup
	l.mu.Lock() // the first is under way while the others come
	for i := range 200 {
		all.Go(func() {
			got, err := p.Submit(t.Context(), planner.Plan{Run: sheaf.RunID(fmt.Sprint("r", i)), Placements: []scheduler.Placement{{Node: "a", Session: a, Partitions: sheaf.Ranges{{}}}}})
			if err != nil || got.Placed != 1 {
				t.Errorf("plan %d: %+v, %v", i, got, err)
			}
		})
	}
	l.mu.Unlock()
	all.Wait()
	if placed()["a"] != 200 {
		t.Errorf("placed %v", placed())
	}
}

func BenchmarkMillionPlaced(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		l := newLog(b)
		l.run("r", 1_000_000)
		var plan planner.Plan
		plan.Run = "r"
		for i := range 1000 {
			id := fmt.Sprintf("n%04d", i)
			plan.Placements = append(plan.Placements, scheduler.Placement{Node: sheaf.NodeID(id), Session: l.node(id), Partitions: sheaf.Ranges{{First: i * 1000, Last: i*1000 + 999}}})
		}
		p, _ := start(b, l)
		b.StartTimer()
		if got, err := p.Submit(b.Context(), plan); err != nil || got.Placed != 1_000_000 {
			b.Fatalf("%+v, %v", got, err)
		}
	}
}
