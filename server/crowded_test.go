package server_test

import (
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/sheaf"
)

// TestCrowdedNode: a node whose disk is too full is relieved of its oldest run that is over; of runs that
// are another node's, or under way, it can have nothing deleted. What it still has of a deleted run goes, and counts.
func TestCrowdedNode(t *testing.T) {
	h := startHost(t, "", "", func(c *server.Config) {
		c.Retention = server.Retention{Least: time.Millisecond}
	})
	newFake(t, h, "b", succeed).connect(nil)
	h.submit(t, "elsewhere", job())
	h.awaitStatus(t, "elsewhere", sheaf.RunSucceeded)
	if _, err := h.SetEligible(t.Context(), "b", false); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.run == "live" && w.partition == 1 {
			return 0
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	h.submit(t, "live", job(count(2)))
	f.await("work of the live run", func() bool { return len(f.begun) == 2 })
	for _, id := range []sheaf.RunID{"first", "second"} {
		h.submit(t, id, job())
		h.awaitStatus(t, id, sheaf.RunSucceeded)
	}
	ask := &wire.Crowded{Bytes: 2} // of which the run that is deleted gives one
	for _, run := range []string{"elsewhere", "live", "second", "first", "unheard-of"} {
		ask.Runs = append(ask.Runs, &wire.Kept{Run: run, Bytes: 1, Files: 1})
	}
	f.out <- &wire.FromClient{Body: &wire.FromClient_Crowded{Crowded: ask}}
	f.await("the deletion", func() bool { return f.ended["first"] && f.ended["unheard-of"] })
	snap := h.Snapshot()
	if snap.Run("first") != nil || snap.Tombstone("first") == nil {
		t.Errorf("the oldest run is %v, its tombstone %v", snap.Run("first"), snap.Tombstone("first"))
	}
	for _, id := range []sheaf.RunID{"elsewhere", "live", "second"} {
		if snap.Run(id) == nil {
			t.Errorf("run %s was deleted", id)
		}
	}
	// Asked for everything, only the other run of its own that is over goes.
	ask.Bytes = 1 << 60
	f.out <- &wire.FromClient{Body: &wire.FromClient_Crowded{Crowded: ask}}
	f.await("the second deletion", func() bool { return f.ended["second"] })
	for _, id := range []sheaf.RunID{"elsewhere", "live"} {
		if h.Snapshot().Run(id) == nil {
			t.Errorf("run %s was deleted", id)
		}
	}
}
