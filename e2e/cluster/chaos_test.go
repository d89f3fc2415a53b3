package cluster

import (
	"testing"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// TestLedger: a job over all clients, and its result, while nothing and while everything goes wrong.
func TestLedger(t *testing.T) {
	parallel(t)
	c := begin(t, shape{servers: 3, clients: 5})
	for _, campaign := range []struct {
		name string
		run  func(*cluster, *testing.T)
	}{
		{"undisturbed, gossip lossy", undisturbed},
		{"leader killed", leaderKilled},
		{"client killed", clientKilled},
		{"client frozen", clientFrozen},
		{"server cut off one way", serverCut},
	} {
		if !t.Run(campaign.name, func(t *testing.T) {
			c.use(t)
			campaign.run(c, t)
			c.whole()
			c.compareStates()
		}) {
			t.FailNow()
		}
	}
}

// records is how many the ledgers have.
func records() int { return either(400, 2000) }

// undisturbed: every client commits some of 2,000 partitions, the result is whole; and while 30 % of all gossip is
// lost, nobody takes a live agent for dead (G3, G20).
func undisturbed(c *cluster, t *testing.T) {
	for _, a := range c.all() {
		a.lose(30, gossipPort)
	}
	began := time.Now()
	l := newLedger(c, t, "undisturbed", 2000, 10*time.Millisecond)
	l.release()
	const leastLooks = 10
	for looks, lossy := 0, either(20*time.Second, 5*time.Minute); looks < leastLooks || time.Since(began) < lossy; looks++ {
		pause(time.Second)
		for _, a := range c.all() {
			members, err := ask(a, a.api.Members)
			if err != nil {
				continue // it is about what they say
			}
			if len(members) != len(c.all()) {
				t.Fatalf("after %s of lossy gossip %s knows of %d agents alive: %+v", time.Since(began), a.name, len(members), members)
			}
		}
		for name, n := range c.nodes() {
			if n.Status != sheaf.NodeReady {
				t.Fatalf("after %s of lossy gossip node %s is %s", time.Since(began), name, n.Status)
			}
		}
	}
	for _, a := range c.all() {
		if a.dropped() == 0 {
			t.Errorf("no gossip to %s was lost", a.name)
		}
		a.heal()
	}
	partitions := l.check()
	l.fetch(partitions)
	l.chain()
	by := l.committers(partitions)
	for _, a := range c.clients {
		if by[a.name] == 0 {
			t.Errorf("%s committed nothing: %v", a.name, by)
		}
	}
	for _, p := range partitions {
		if p.Failures != 0 || p.Losses != 0 { // what had not begun may have gone from a busy node to an idle one
			t.Errorf("undisturbed, partition %d is %+v", p.Index, p)
		}
	}
	if begun, _ := count(l.heard()); begun != len(l.nonces) {
		t.Errorf("undisturbed, %d partitions were begun %d times", len(l.nonces), begun)
	}
}

// leaderKilled: the run goes on under the next leader, and nothing is run again for it (G1 to G3).
func leaderKilled(c *cluster, t *testing.T) {
	l := newLedger(c, t, "leader-killed", records(), 800*time.Millisecond)
	l.midway()
	leader := c.leader()
	leader.kill()
	l.release()
	if next := c.leader(); next == leader {
		t.Fatalf("%s was killed and leads", leader.name)
	}
	leader.start()
	for _, p := range l.check() {
		if p.Losses != 0 || p.Failures != 0 {
			t.Errorf("the change of leader cost partition %d: %+v", p.Index, p)
		}
	}
}

// clientKilled: a client vanishes with all that it runs; others run it again (G4).
func clientKilled(c *cluster, t *testing.T) {
	l := newLedger(c, t, "client-killed", records(), 800*time.Millisecond)
	l.midway()
	victim := l.busiest()
	t.Logf("what the killed client held ran elsewhere after %s", c.lose(l, victim, false))
	victim.start() // with the outputs that it has committed
	l.check()
}

// clientFrozen: an agent and all that it started stand still past the lease; what they held is run
// elsewhere; then they go on, and what they report late changes nothing (G2, G3).
func clientFrozen(c *cluster, t *testing.T) {
	l := newLedger(c, t, "client-frozen", records(), 800*time.Millisecond)
	victim := l.busiest()
	victim.group.freeze()
	l.release()
	held := holding(l.heard(), victim.name)
	if len(held) == 0 {
		t.Fatalf("%s had just ended all that it ran: the fault did not hit", victim.name)
	}
	await(t, "what the frozen client held has begun elsewhere", func() bool {
		for _, s := range l.heard() {
			if _, was := held[s.partition]; was && s.node != victim.name {
				return true
			}
		}
		return false
	})
	victim.group.thaw()
	l.check()
	begun, ended := 0, 0
	await(t, "the frozen tasks have ended too", func() bool {
		begun, ended = count(l.heard())
		return len(holding(l.heard(), victim.name)) == 0 || victim.ready()
	})
	t.Logf("%d partitions were begun %d times and ended %d times", len(l.nonces), begun, ended)
	if begun <= len(l.nonces) {
		t.Errorf("%d partitions were begun %d times: nothing was executed twice", len(l.nonces), begun)
	}
}

// serverCut: a server that only hears, or is only heard, neither stops the others nor commits anything by itself (G3, G7, G17).
func serverCut(c *cluster, t *testing.T) {
	type cut struct {
		name   string
		leader bool
		way    direction
	}
	for _, cut := range either(
		[]cut{{"leader-unheard", true, outbound}},
		[]cut{{"leader-unheard", true, outbound}, {"leader-deaf", true, inbound}, {"follower-unheard", false, outbound}, {"follower-deaf", false, inbound}},
	) {
		l := newLedger(c, t, cut.name, records(), 800*time.Millisecond)
		l.midway()
		victim := c.leader()
		if !cut.leader {
			victim = c.besides(victim)[0]
		}
		victim.cut(cut.way)
		l.release()
		rest := c.besides(victim)
		await(t, "another server leads", func() bool { return c.leads(rest...) != nil })
		l.until(l.run+" goes on without it", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded >= len(l.nonces)*3/4 })
		if victim.dropped() == 0 {
			t.Errorf("nothing of %s was dropped", victim.name)
		}
		victim.heal()
		for _, p := range l.check() {
			if p.Failures != 0 {
				t.Errorf("%s cost partition %d a try: %+v", cut.name, p.Index, p)
			}
		}
		c.whole()
	}
}
