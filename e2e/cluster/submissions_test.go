package cluster

import (
	"math/rand/v2"
	"testing"
	"time"
)

// offered is how many submissions a second are made; promised is that 200 are taken.
func offered() int { return either(80, 300) }

// leastKills and leastRuns are what the campaign must have done to say anything.
const leastKills, leastRuns = 3, 500

// TestSubmissions: a server, any, is killed every three to eight seconds while hundreds of runs a second are
// submitted. What was acknowledged is there, once, and is done (G1).
func TestSubmissions(t *testing.T) {
	parallel(t)
	c := begin(t, shape{servers: 3, clients: either(3, 8), server: "retention {\n runs = 1000000\n }", client: "slots = 64"})
	length := either(20*time.Second, 5*time.Minute)
	began := time.Now()
	acked, count, stop := c.storm("storm", 64, offered())
	kills := 0
	// On a machine that is busy with other things it goes on until something can be said.
	for time.Since(began) < length || (kills < leastKills || count() < leastRuns) && time.Since(began) < patience {
		pause(3*time.Second + time.Duration(rand.Int64N(int64(5*time.Second))))
		victim := c.servers[rand.IntN(len(c.servers))]
		victim.crash()
		kills++
		victim.start()
		victim.await()
	}
	stop()
	rate := float64(len(acked)) / time.Since(began).Seconds()
	t.Logf("%d runs acknowledged, %.0f a second, under %d kills of a server", len(acked), rate, kills)
	if kills < leastKills || len(acked) < leastRuns {
		t.Errorf("%d kills and %d acknowledged runs are too few to say anything", kills, len(acked))
	}
	if *long && rate < 200 {
		t.Errorf("%.0f runs a second were acknowledged, and 200 is promised", rate)
	}
	c.whole()
	c.acknowledged(acked)
	c.compareStates()
}
