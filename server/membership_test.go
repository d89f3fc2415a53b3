package server_test

import (
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

// await waits for what an election, or autopilot, brings about.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if cond() {
			return
		}
		timer := time.NewTimer(20 * time.Millisecond) // an outside event
		<-timer.C
	}
	t.Fatal("in vain: ", what)
}

// voters are the IDs of those who vote, as h knows them.
func voters(h *host) map[string]bool {
	v := map[string]bool{}
	for _, m := range h.Members() {
		if m.Voter {
			v[m.ID] = true
		}
	}
	return v
}

// hasten makes a server vote as soon as it is healthy.
func hasten(t *testing.T, h *host) {
	t.Helper()
	a := sheaf.DefaultAutopilot()
	a.ServerStabilizationTime = 0
	if _, err := h.SetAutopilot(t.Context(), a, 0); err != nil {
		t.Fatal(err)
	}
}

func same(a, b *host) bool {
	x, y := a.Snapshot(), b.Snapshot()
	return x.Index() == y.Index() && x.Digest() == y.Digest()
}

// TestOneServerGrowsToThreeAndBack: a lone server takes in two more, which vote after a while; one leaves,
// and comes back; the leader hands on when it stops; nothing is lost on the way.
func TestOneServerGrowsToThreeAndBack(t *testing.T) {
	t.Parallel()
	first, pool := sit(t, seat{name: "a", id: "a", expect: 1})
	<-first.Ready()
	hasten(t, first)
	first.submit(t, "r", job(count(3)))
	if err := first.Leave(t.Context()); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("the only server left: %v", err)
	}
	join := []string{pool.Address()}
	second, _ := sit(t, seat{name: "b", id: "b", expect: 1, join: join}) // told to found alone, and finds a cluster
	third, _ := sit(t, seat{name: "c", id: "c", join: join})
	hosts := []*host{first, second, third}
	await(t, "three voters", func() bool { return len(voters(first)) == 3 })
	await(t, "one state", func() bool { return same(first, second) && same(first, third) })
	if first.Snapshot().Run("r") == nil || first.Tolerance() < 0 {
		t.Errorf("run %v, tolerance %d", first.Snapshot().Run("r"), first.Tolerance())
	}
	await(t, "health of all three", func() bool {
		healthy := 0
		for _, m := range first.Members() {
			if m.Health != nil && m.Health.Healthy {
				healthy++
			}
		}
		return healthy == 3 && first.Tolerance() == 1
	})
	if err := first.RemovePeer(t.Context(), "c", false); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("removed a server that is alive: %v", err)
	}
	if err := first.RemovePeer(t.Context(), "nobody", false); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("removed a server that is not there: %v", err)
	}

	if err := first.Transfer(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if leaderOf(t, hosts) != second {
		t.Error("another leads than was asked to")
	}
	if err := second.Leave(t.Context()); err != nil { // the leader itself
		t.Fatal(err)
	}
	rest := []*host{first, third}
	leader := leaderOf(t, rest)
	if v := voters(leader); len(v) != 2 || v["b"] {
		t.Errorf("after b left, %v vote", v)
	}
	if err := second.stop(); err != nil {
		t.Error(err)
	}
	leader.submit(t, "s", job(count(3)))
	if err := leader.stop(); err != nil { // it hands on; alone, the other would have no quorum
		t.Fatal(err)
	}
}

// TestReplacedServers: a server whose data are gone takes its old place under a new ID, by its
// address; one that is gone for good is removed.
func TestReplacedServers(t *testing.T) {
	t.Parallel()
	var hosts []*host
	var pools []*gossip.Pool
	var join []string
	for i := range 3 {
		h, pool := founding(t, i, join)
		hosts, pools = append(hosts, h), append(pools, pool)
		join = []string{pools[0].Address()}
	}
	leader := leaderOf(t, hosts)
	hasten(t, leader)
	leader.submit(t, "r", job(count(3)))
	var lost, other *host
	for _, h := range hosts {
		switch {
		case h == leader:
			join = []string{pools[index(hosts, h)].Address()}
		case lost == nil:
			lost = h
		default:
			other = h
		}
	}
	if err := lost.stop(); err != nil {
		t.Fatal(err)
	}
	anew, _ := sit(t, seat{name: "s9", id: "anew", expect: 3, join: join, address: lost.address})
	await(t, "the new server votes in the place of the old", func() bool {
		v := voters(leader)
		return len(v) == 3 && v["anew"]
	})
	await(t, "one state", func() bool { return same(leader, anew) })

	// Gone for good, at another address: removed after its time.
	a := leader.Snapshot().Operator().Autopilot
	a.DeadServerAfter = sheaf.Duration(time.Millisecond)
	if _, err := leader.SetAutopilot(t.Context(), a, 0); err != nil {
		t.Fatal(err)
	}
	if err := other.stop(); err != nil {
		t.Fatal(err)
	}
	await(t, "the dead server is removed", func() bool { return len(leader.Members()) == 2 && len(voters(leader)) == 2 })
	leader.submit(t, "s", job(count(1)))
}

func index(hosts []*host, h *host) int {
	for i, x := range hosts {
		if x == h {
			return i
		}
	}
	return -1
}
