package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// TestLostNodes: what a killed client ran is begun by others, also when the leader dies with it (G4).
func TestLostNodes(t *testing.T) {
	parallel(t)
	c := begin(t, shape{servers: 3, clients: 3})
	for _, f := range []struct {
		what      string
		leaderToo bool
		rounds    int
		promised  time.Duration
	}{
		{"a killed client's partitions run elsewhere", false, either(1, 20), 15 * time.Second},
		{"the same with the leader killed", true, either(1, 20), 30 * time.Second},
	} {
		var took []time.Duration
		for i := range f.rounds {
			l := newLedger(c, t, fmt.Sprintf("lost-%v-%d", f.leaderToo, i), 120, time.Second)
			took = append(took, c.lose(l, l.busiest(), f.leaderToo))
			c.whole()
			l.check()
			c.compareStates()
		}
		measured(t, figure{f.what, took, "worst", f.promised})
	}
}

// lose kills a client while it runs partitions of the run, and with it the leader where asked, and gives
// how long it took until all that it ran was begun by others.
func (c *cluster) lose(l *ledger, victim *agent, leaderToo bool) time.Duration {
	l.t.Helper()
	var held map[int]uint32
	leader := c.leader()
	killed := time.Now()
	if leaderToo {
		leader.crash()
	}
	victim.crash()
	l.release()
	held = holding(l.heard(), victim.name)
	if len(held) == 0 {
		l.t.Fatalf("%s had just ended all that it ran: the fault did not hit", victim.name)
	}
	var last time.Time
	await(l.t, "others have begun what the killed client held", func() bool {
		begun := map[int]time.Time{}
		for _, t := range l.heard() {
			if attempt, was := held[t.partition]; was && !t.ended && t.node != victim.name && t.attempt > attempt && begun[t.partition].IsZero() {
				begun[t.partition] = t.at
			}
		}
		for _, at := range begun {
			if at.After(last) {
				last = at
			}
		}
		// What ended just before the client was killed may have been committed.
		for p := range held {
			if !begun[p].IsZero() {
				continue
			}
			if got := c.partition(l.run, p); got.State != sheaf.PartitionSucceeded || got.Attempt != held[p] {
				return false
			}
		}
		return true
	})
	return last.Sub(killed)
}
