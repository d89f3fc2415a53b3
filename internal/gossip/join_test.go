package gossip

import (
	"log/slog"
	"slices"
	"testing"
	"time"
)

// TestAbsent: who should be there and is not is looked for, at an address each.
func TestAbsent(t *testing.T) {
	p, err := New(Config{Self: Member{Name: "self"}, Bind: "127.0.0.1:1", Join: []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "no port"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want ...string) {
		t.Helper()
		if got := p.absent(t.Context(), "127.0.0.1:1"); !slices.Equal(got, want) {
			t.Errorf("%s: %v are absent, want %v", what, got, want)
		}
	}
	p.set("two", Member{Gossip: "127.0.0.1:2"}, true)
	p.set("four", Member{Gossip: "127.0.0.1:4"}, true)
	check("one of those to join is not there", "127.0.0.1:3")
	p.set("four", Member{}, false)
	p.miss("four", "127.0.0.1:4", false)
	check("another was lost", "127.0.0.1:3", "127.0.0.1:4")
	p.set("five", Member{Gossip: "127.0.0.1:4"}, true)
	check("another has its address now", "127.0.0.1:3")
	p.set("five", Member{}, false)
	p.miss("four", "", true)
	check("it said farewell after all", "127.0.0.1:3")
	p.lost["old"] = absence{"127.0.0.1:5", time.Now().Add(-2 * rejoinFor)}
	check("one was lost long ago", "127.0.0.1:3")
	if len(p.lost) != 0 {
		t.Errorf("%v are still looked for", p.lost)
	}
}
