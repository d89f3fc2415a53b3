package leader

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// ended is a history of runs r0, r1, … that ended a second after the other, from second 0 on.
func ended(n int) *history {
	h := newHistory(state.New(new(state.MemoryChunks)).Snapshot())
	for i := range n {
		h.add(&state.Run{ID: sheaf.RunID(fmt.Sprint("r", i)), Status: sheaf.RunSucceeded, EndedMs: int64(i) * 1000})
	}
	return h
}

func TestDue(t *testing.T) {
	for name, c := range map[string]struct {
		at         int64 // seconds
		keep       int
		age, least time.Duration
		most       int
		want       string
		next       time.Duration
	}{
		"few and young":     {at: 10, keep: 5, age: time.Hour, most: 9, want: "[]", next: time.Hour - 10*time.Second},
		"too many":          {at: 10, keep: 3, age: time.Hour, most: 9, want: "[r0 r1]", next: time.Hour - 8*time.Second},
		"too old":           {at: 12, keep: 9, age: 10 * time.Second, most: 9, want: "[r0 r1 r2]", next: time.Second},
		"too many at once":  {at: 10, keep: 1, age: time.Hour, most: 2, want: "[r0 r1]"},
		"too many, too new": {at: 10, keep: 1, age: time.Hour, least: 9 * time.Second, most: 9, want: "[r0 r1]", next: time.Second},
		"all":               {at: 10, keep: 9, age: time.Second, most: 9, want: "[r0 r1 r2 r3 r4]"},
	} {
		runs, next := ended(5).due(c.at*1000, c.keep, c.age, c.least, c.most)
		if got := fmt.Sprint(runs); got != c.want || next != c.next {
			t.Errorf("%s: %s and again in %v; want %s and %v", name, got, next, c.want, c.next)
		}
	}
	h := ended(3)
	h.again("r0") // retried
	if runs, _ := h.due(1e9, 9, time.Second, 0, 9); fmt.Sprint(runs) != "[r1 r2]" {
		t.Errorf("with r0 under way again %v are due", runs)
	}
}

// TestOrderOfHistory: runs that come back, since they could not be deleted or are held no more, are due in the
// order in which they ended, once each.
func TestOrderOfHistory(t *testing.T) {
	h := ended(6)
	run := func(i int64) *state.Run {
		return &state.Run{ID: sheaf.RunID(fmt.Sprint("r", i)), Status: sheaf.RunSucceeded, EndedMs: i * 1000}
	}
	due := func(most int) string {
		runs, _ := h.due(1e9, 0, time.Second, 0, most)
		return fmt.Sprint(runs)
	}
	if got := due(3); got != "[r0 r1 r2]" {
		t.Fatalf("%s are due", got)
	}
	h.add(run(1))
	h.hold([]sheaf.RunID{"r0", "r2"}, func(id sheaf.RunID) int64 { return map[sheaf.RunID]int64{"r2": 2000}[id] })
	h.hold([]sheaf.RunID{"r2"}, func(sheaf.RunID) int64 { return 2000 })
	h.add(run(2)) // it is looked at for another reason
	if got := due(2); got != "[r1 r3]" {
		t.Errorf("with r0 and r2 held %s are due", got)
	}
	h.bury(&state.Tombstone{Run: "r3"})
	if got := due(9); got != "[r0 r2 r4 r5]" {
		t.Errorf("with nothing held any more %s are due", got)
	}
}

// TestTombstones: a tombstone goes when it is old and every node that was told has deleted
// the run or has ended its session, and not before.
func TestTombstones(t *testing.T) {
	h := ended(0)
	for _, id := range []sheaf.RunID{"a", "b", "c"} {
		h.bury(&state.Tombstone{Run: id, DeletedMs: 0})
	}
	late := int64(time.Hour / time.Millisecond)
	if runs, _ := h.forgotten(late, time.Minute, 9); len(runs) != 0 {
		t.Errorf("%v are forgotten before any node was told", runs)
	}
	for _, g := range h.untold() {
		h.told(g, map[sheaf.NodeID]bool{})
		h.tell(g, "n1")
		h.tell(g, "n2")
	}
	if left := h.untold(); len(left) != 0 {
		t.Errorf("%d deletions are untold still", len(left))
	}
	h.confirmed("n1", []string{"a", "b", "c"})
	if runs, _ := h.forgotten(late, time.Minute, 9); len(runs) != 0 {
		t.Errorf("%v are forgotten before n2 has deleted them", runs)
	}
	h.confirmed("n2", []string{"b"})
	if runs, _ := h.forgotten(30_000, time.Minute, 9); len(runs) != 0 {
		t.Errorf("%v are forgotten while they are young", runs)
	}
	if runs, _ := h.forgotten(late, time.Minute, 9); fmt.Sprint(runs) != "[b]" {
		t.Errorf("%v are forgotten, want b", runs)
	}
	h.gone("n2")
	runs, _ := h.forgotten(late, time.Minute, 1)
	rest, _ := h.forgotten(late, time.Minute, 1)
	if got := append(runs, rest...); fmt.Sprint(got) != "[a c]" {
		t.Errorf("%v are forgotten one by one, want a and c", got)
	}
}

// TestRelief: of what a full node names, the oldest runs that are over go, and no more than it takes.
func TestRelief(t *testing.T) {
	kept := func(bytes uint64, runs ...int) (list []*wire.Kept) {
		for _, i := range runs {
			list = append(list, &wire.Kept{Run: fmt.Sprint("r", i), Bytes: bytes, Files: 2})
		}
		return list
	}
	for name, c := range map[string]struct {
		ask   *wire.Crowded
		least time.Duration
		most  int
		not   []sheaf.RunID // that the log does not know there
		want  string
	}{
		"one is enough":         {ask: &wire.Crowded{Bytes: 10, Runs: kept(10, 0, 1, 2)}, most: 9, want: "[r0]"},
		"a byte more":           {ask: &wire.Crowded{Bytes: 11, Runs: kept(10, 2, 1, 0)}, most: 9, want: "[r0 r1]"},
		"what it has":           {ask: &wire.Crowded{Bytes: 10, Runs: kept(10, 3)}, most: 9, want: "[r3]"},
		"what it says it has":   {ask: &wire.Crowded{Bytes: 10, Runs: kept(10, 0, 1)}, most: 9, not: []sheaf.RunID{"r0"}, want: "[r1]"},
		"inodes":                {ask: &wire.Crowded{Files: 3, Runs: kept(0, 0, 1, 2)}, most: 9, want: "[r0 r1]"},
		"bytes, and they weigh": {ask: &wire.Crowded{Bytes: 5, Runs: append(kept(0, 0, 1), kept(5, 2)...)}, most: 9, want: "[r2]"},
		"the young stay":        {ask: &wire.Crowded{Bytes: 99, Runs: kept(10, 0, 1, 2, 3, 4)}, least: 8 * time.Second, most: 9, want: "[r0 r1 r2]"},
		"not all at once":       {ask: &wire.Crowded{Bytes: 99, Runs: kept(10, 0, 1, 2, 3, 4)}, most: 2, want: "[r0 r1]"},
		"unknown":               {ask: &wire.Crowded{Bytes: 99, Runs: kept(10, 7, 8)}, most: 9, want: "[]"},
	} {
		h := ended(5)
		got := h.relief(10_000, c.least, c.ask, c.most, func(id sheaf.RunID) bool { return !slices.Contains(c.not, id) })
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
		for _, id := range got {
			if _, there := h.ended[id]; there {
				t.Errorf("%s: %s would be deleted again", name, id)
			}
		}
	}
	h := ended(2)
	h.again("r0")
	if got := h.relief(10_000, 0, &wire.Crowded{Bytes: 20, Runs: kept(10, 0, 1)}, 9, func(sheaf.RunID) bool { return true }); fmt.Sprint(got) != "[r1]" {
		t.Errorf("a run that is under way again was deleted: %v", got)
	}
}
