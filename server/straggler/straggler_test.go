package straggler_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

// took is a sketch of durations in ms of class 0.
func took(ms ...uint32) *straggler.Sketch {
	s := &straggler.Sketch{}
	for _, d := range ms {
		s.Add(0, d)
	}
	return s
}

func times(n int, ms uint32) []uint32 { return slices.Repeat([]uint32{ms}, n) }

func running(node string, partition int, age time.Duration) straggler.Running {
	return straggler.Running{Partition: partition, Attempt: 1, Node: sheaf.NodeID(node), Age: age}
}

// paired has run on node a for so long, and its second attempt on b, after so many that were given up.
func paired(first, second time.Duration, tried int) straggler.Running {
	x := running("a", 1, first)
	x.Doubled, x.Second = true, straggler.Second{Node: "b", Age: second, Tried: tried}
	return x
}

// idle are nodes with so many slots and nothing of the run, busy ones with all they can have and as much again.
func idle(names ...string) (list []straggler.Node) {
	for _, n := range names {
		list = append(list, straggler.Node{ID: sheaf.NodeID(n), Able: true, Slots: 1})
	}
	return list
}

func busy(names ...string) (list []straggler.Node) {
	for _, n := range names {
		list = append(list, straggler.Node{ID: sheaf.NodeID(n), Able: true, Slots: 1, Assigned: 2, Load: 2})
	}
	return list
}

func TestWhatIsSlowGetsABackup(t *testing.T) {
	tenSeconds := took(times(200, 10_000)...)
	longTail := took(append(times(190, 1000), times(10, 60_000)...)...)
	for _, c := range []struct {
		name  string
		r     straggler.Request
		nodes []straggler.Node
		want  string
	}{
		{"nothing is slow", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, 11*time.Second)}}, idle("b"), ""},
		{"far beyond all others", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, 50*time.Second)}}, idle("b"), "1@b"},
		{"not on its own node", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, 50*time.Second)}}, idle("a"), ""},
		{"its second is slow too", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{paired(20*time.Minute, 2*time.Minute, 0)}, Doubles: 1}, idle("a", "b", "c"), "1@c instead"},
		{"its second is not slow yet", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{paired(20*time.Minute, 15*time.Second, 0)}, Doubles: 1}, idle("c"), ""},
		{"its second is not known to run", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{paired(20*time.Minute, 0, 0)}, Doubles: 1}, idle("c"), ""},
		{"three nodes were slow with it", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{paired(20*time.Minute, 2*time.Minute, 2)}, Doubles: 1}, idle("c"), ""},
		{"no third node", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{paired(20*time.Minute, 2*time.Minute, 0)}, Doubles: 1}, idle("a", "b"), ""},
		{"a second is given up within the bound only", straggler.Request{Durations: took(times(20, 10_000)...), Running: []straggler.Running{paired(3*time.Minute, 2*time.Minute, 0)}, Doubles: 1, Extra: 2 * time.Minute}, idle("c"), ""},
		{"it has one", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{{Partition: 1, Node: "a", Age: time.Minute, Doubled: true}}, Doubles: 1}, idle("b"), ""},
		{"no slot is free", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, time.Minute)}}, busy("b"), ""},
		{"hopeless, and no slot is free", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, time.Hour)}}, busy("a", "b"), "1@b"},
		{"there is other work", straggler.Request{Durations: tenSeconds, Pending: 5, Running: []straggler.Running{running("a", 1, time.Minute)}}, idle("b"), ""},
		{"hopeless, and there is other work", straggler.Request{Durations: tenSeconds, Pending: 5, Running: []straggler.Running{running("a", 1, time.Hour)}}, busy("a", "b"), "1@b"},
		{"among those that are known to be long", straggler.Request{Durations: longTail, Running: []straggler.Running{running("a", 1, 3*time.Second)}}, idle("b"), "1@b"},
		{"the slowest first", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, time.Minute), running("b", 2, 2*time.Minute)}}, idle("c"), "2@c"},
		{"most of the run still runs", straggler.Request{Durations: took(times(4, 1000)...), Under: 4, Running: []straggler.Running{running("a", 1, time.Minute)}}, idle("b"), ""},
		{"a larger shard takes longer", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{{Partition: 1, Node: "a", Age: 50 * time.Second, Class: straggler.Class(1 << 20)}}}, idle("b"), "1@b"},
		{"nothing ended yet", straggler.Request{Durations: took(), Running: []straggler.Running{running("a", 1, time.Hour)}}, idle("b"), ""},
		{"too short to matter", straggler.Request{Durations: took(times(100, 3)...), Running: []straggler.Running{running("a", 1, 600*time.Millisecond)}}, idle("b"), ""},
		{"a node that failed is the last choice", straggler.Request{Durations: tenSeconds, Running: []straggler.Running{running("a", 1, time.Minute)}},
			[]straggler.Node{{ID: "b", Able: true, Slots: 1, Failed: 1}, {ID: "c", Able: true, Slots: 1, Slowness: 3}, {ID: "d", Able: true, Slots: 1, Load: 0}}, "1@d"},
	} {
		c.r.Backups = true
		c.r.Under = max(c.r.Under, len(c.r.Running)+c.r.Doubles)
		c.r.Nodes = func() []straggler.Node { return c.nodes }
		p := straggler.Decide(c.r)
		var got []string
		for _, b := range p.Backups {
			at, why := fmt.Sprintf("%d@%s", b.Partition, b.Node), "it had been running for"
			if b.Instead {
				at, why = at+" instead", "the second attempt before this one had been running for 2m0s on node b"
			}
			got = append(got, at)
			if !strings.Contains(b.Why, why) {
				t.Errorf("%s: why: %q", c.name, b.Why)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: backups %v, want %q", c.name, got, c.want)
		}
		c.r.Backups = false
		if p := straggler.Decide(c.r); p.Backups != nil || p.Again != 0 {
			t.Errorf("%s: the job allows none, and %+v", c.name, p)
		}
	}
}

// TestSizeIsHeeded: what is a straggler among small shards is none among large ones.
func TestSizeIsHeeded(t *testing.T) {
	s := &straggler.Sketch{}
	small, large, larger := straggler.Class(10<<10), straggler.Class(1<<30), straggler.Class(16<<30)
	for range 100 {
		s.Add(small, 1000)
		s.Add(large, 60_000)
	}
	for class, want := range map[uint8]int{small: 1, large: 0, larger: 0} {
		p := straggler.Decide(straggler.Request{Backups: true, Durations: s, Under: 1, Nodes: func() []straggler.Node { return idle("b") },
			Running: []straggler.Running{{Partition: 1, Node: "a", Age: 50 * time.Second, Class: class}}})
		if len(p.Backups) != want {
			t.Errorf("class %d: %+v, want %d backups", class, p.Backups, want)
		}
	}
	if straggler.Class(0) != 0 || straggler.Class(1) != 1 || straggler.Class(4<<10) != 1 || straggler.Class(4<<10+1) != 2 || straggler.Class(16<<10) != 2 || straggler.Class(1<<62) != 17 {
		t.Error("classes are not factors of four from 4 KiB")
	}
}

func TestWaitingWorkGoesToIdleNodes(t *testing.T) {
	durations := took(times(50, 2000)...)
	slower := busy("slow", "quick")
	slower[0].Slowness, slower[0].Assigned, slower[1].Assigned = 4, 5, 5
	for _, c := range []struct {
		name    string
		pending int
		took    *straggler.Sketch
		nodes   []straggler.Node
		want    string
	}{
		{"one idle, one waits", 0, durations, append(busy("a"), idle("b")...), "[{a 1}]"},
		{"nobody is idle", 0, durations, busy("a", "b"), "[]"},
		{"nothing waits", 0, durations, idle("a", "b"), "[]"},
		{"the run has work that is not placed", 1, durations, append(busy("a"), idle("b")...), "[]"},
		{"from the slow one first", 0, durations, append(slower, idle("b", "c", "d")...), "[{slow 3}]"},
		{"from both", 0, durations, append(slower, idle("b", "c", "d", "e", "f")...), "[{slow 4} {quick 1}]"},
		{"it is short", 0, took(times(50, 5)...), append(busy("a"), idle("b")...), "[]"},
		{"an idle node that may not", 0, durations, append(busy("a"), straggler.Node{ID: "b", Slots: 4}), "[]"},
		{"an idle node with work of other runs", 0, durations, append(busy("a"), straggler.Node{ID: "b", Able: true, Slots: 4, Load: 1}), "[]"},
	} {
		p := straggler.Decide(straggler.Request{Pending: c.pending, Durations: c.took, Under: 2, Nodes: func() []straggler.Node { return c.nodes }})
		if got := fmt.Sprint(p.TakeBack); got != c.want {
			t.Errorf("%s: taken back %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDecisionsKeepTheirBounds holds whatever the run looks like.
func TestDecisionsKeepTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []straggler.Node
		free := 0
		for i := range rapid.IntRange(0, 12).Draw(t, "nodes") {
			n := straggler.Node{ID: sheaf.NodeID(fmt.Sprint("n", i)), Able: rapid.Bool().Draw(t, "able"), Slots: rapid.IntRange(0, 4).Draw(t, "slots"),
				Assigned: rapid.IntRange(0, 8).Draw(t, "assigned"), Failed: rapid.IntRange(0, 2).Draw(t, "failed"), Slowness: rapid.Float64Range(0, 4).Draw(t, "slowness")}
			if n.Able {
				free += max(0, n.Slots-n.Assigned)
			}
			nodes = append(nodes, n)
		}
		s := took(rapid.SliceOfN(rapid.Uint32Range(0, 1<<20), 0, 200).Draw(t, "durations")...)
		r := straggler.Request{Backups: true, Pending: rapid.IntRange(0, 2).Draw(t, "pending"), Durations: s, Nodes: func() []straggler.Node { return nodes },
			Extra: time.Duration(rapid.IntRange(0, 1<<20).Draw(t, "extra")) * time.Millisecond}
		work := s.SumMs()
		for i := range rapid.IntRange(0, 20).Draw(t, "running") {
			x := running(fmt.Sprint("n", rapid.IntRange(0, 12).Draw(t, "at")), i, time.Duration(rapid.IntRange(0, 1<<24).Draw(t, "age"))*time.Millisecond)
			if x.Doubled = rapid.IntRange(0, 9).Draw(t, "doubled") == 0; x.Doubled {
				r.Doubles++
				x.Second = straggler.Second{Node: sheaf.NodeID(fmt.Sprint("n", rapid.IntRange(0, 12).Draw(t, "second at"))),
					Age: time.Duration(rapid.IntRange(0, 1<<24).Draw(t, "second age")) * time.Millisecond, Tried: rapid.IntRange(0, 3).Draw(t, "tried")}
			}
			work += float64(x.Age.Milliseconds())
			r.Running = append(r.Running, x)
		}
		slices.SortStableFunc(r.Running, func(a, b straggler.Running) int { return int(b.Age - a.Age) })
		r.Under = len(r.Running) + r.Doubles
		p := straggler.Decide(r)
		if again := straggler.Decide(r); !reflect.DeepEqual(p, again) {
			t.Fatalf("twice the same request, two plans:\n%+v\n%+v", p, again)
		}
		if len(p.Backups)+r.Doubles > 1 && float64(r.Extra.Milliseconds()) > straggler.MaxExtra*work && len(p.Backups) > 0 {
			t.Fatalf("%v of %v ms were done twice, and there are %d backups more", r.Extra, work, len(p.Backups))
		}
		seen := map[int]bool{}
		for _, b := range p.Backups {
			at := slices.IndexFunc(r.Running, func(x straggler.Running) bool { return x.Partition == b.Partition })
			x := r.Running[at]
			to := nodes[slices.IndexFunc(nodes, func(n straggler.Node) bool { return n.ID == b.Node })]
			if seen[b.Partition] || x.Doubled != b.Instead || b.Node == x.Node || !to.Able || x.Age < time.Second ||
				b.Instead && (b.Node == x.Second.Node || x.Second.Age < time.Second || x.Second.Tried > 1) {
				t.Fatalf("%+v for %+v on %+v", b, x, to)
			}
			seen[b.Partition] = true
		}
		taken := 0
		for _, x := range p.TakeBack {
			n := nodes[slices.IndexFunc(nodes, func(n straggler.Node) bool { return n.ID == x.Node })]
			taken += x.Most
			if x.Most <= 0 || x.Most > n.Assigned-n.Slots {
				t.Fatalf("%+v from %+v", x, n)
			}
		}
		if taken > free || taken > 0 && r.Pending > 0 {
			t.Fatalf("%d are taken back for %d slots, with %d pending", taken, free, r.Pending)
		}
	})
}

func TestETA(t *testing.T) {
	even := took(times(100, 10_000)...)
	for _, c := range []struct {
		name      string
		a         straggler.Ahead
		low, high time.Duration // around the range
		none      bool
	}{
		{"nothing is known", straggler.Ahead{Durations: took(), Waiting: 5}, 0, 0, true},
		{"a thousand of ten seconds on ten slots", straggler.Ahead{Durations: even, Waiting: 1000, Slots: 10, Ends: 9, Within: 10 * time.Second}, 900 * time.Second, 1200 * time.Second, false},
		{"a thousand a second", straggler.Ahead{Durations: took(times(5000, 1)...), Waiting: 10_000, Ends: 10_000, Within: 10 * time.Second}, 9 * time.Second, 11 * time.Second, false},
		{"the last one runs", straggler.Ahead{Durations: even, Running: []straggler.Running{running("a", 1, 2*time.Second)}}, time.Second, 13 * time.Second, false},
		{"the last one hangs", straggler.Ahead{Durations: even, Running: []straggler.Running{running("a", 1, 100*time.Second)}}, 5 * time.Second, 700 * time.Second, false},
	} {
		low, high, ok := straggler.ETA(c.a)
		if ok == c.none || low < c.low || high > c.high || low > high {
			t.Errorf("%s: %v to %v (%t), want it within %v to %v", c.name, low, high, ok, c.low, c.high)
		}
	}
}
