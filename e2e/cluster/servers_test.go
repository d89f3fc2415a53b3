package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// TestServers: servers are killed, stopped and frozen; what they acknowledged is there.
func TestServers(t *testing.T) {
	parallel(t)
	c := begin(t, shape{servers: 3, clients: 2, server: "retention {\n runs = 1000000\n }"})
	for _, campaign := range []struct {
		name string
		run  func(*cluster, *testing.T)
	}{
		{"elections", elections},
		{"no quorum", noQuorum},
		{"all killed at once", allKilled},
		{"leader frozen", leaderFrozen},
		{"all reported twice", replayed},
		{"old attempts", oldAttempt},
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

// put asks one agent to take a run.
func (a *agent) put(run string) (api.SubmitReply, error) {
	return ask(a, func(ctx context.Context) (api.SubmitReply, error) {
		return a.api.Submit(ctx, api.SubmitRequest{ID: sheaf.RunID(run), Job: a.c.small})
	})
}

// accepted waits until one of the agents has taken a run, and gives how long that took.
func accepted(t testing.TB, run string, by ...*agent) time.Duration {
	t.Helper()
	began := time.Now()
	if !promptly(patience, func() bool {
		for _, a := range by {
			if _, err := a.put(run); err == nil {
				return true
			}
		}
		return false
	}) {
		t.Fatalf("waited %s in vain until run %s is accepted", patience, run)
	}
	return time.Since(began)
}

// elections: from the leader's death to a run that the next one has accepted.
func elections(c *cluster, t *testing.T) {
	var took []time.Duration
	for i := range either(3, 10) {
		leader := c.leader()
		rest := c.besides(leader)
		leader.crash()
		took = append(took, accepted(t, fmt.Sprintf("elected-%d", i), rest...))
		leader.start()
		c.whole()
		c.compareStates()
	}
	measured(t, figure{"from SIGKILL of the leader to a job that the next one accepted", took, "median", 3 * time.Second})
}

// noQuorum: with two of three servers dead writes fail and say why, reads say that they are stale, and what
// was acknowledged before is there afterwards, as is what clients did meanwhile (G5).
func noQuorum(c *cluster, t *testing.T) {
	l := newLedger(c, t, "no-quorum", 100, time.Second)
	l.busiest()
	const known = "before-the-loss"
	accepted(t, known, c.servers...)
	leader := c.leader()
	followers := c.besides(leader)
	left := followers[1]
	stale := func() (m api.Meta, err error) {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		_, m, err = left.api.Run(ctx, known, api.Read{Stale: true})
		return m, err
	}
	await(t, left.name+" has heard of "+known, func() bool { _, err := stale(); return err == nil })
	for _, v := range []*agent{followers[0], leader} {
		v.crash()
	}
	l.release()
	var failing []time.Duration
	alone := false // it takes the server that is left a while to find that out
	for began := time.Now(); time.Since(began) < either(8*time.Second, time.Minute) || !alone && time.Since(began) < patience; {
		for _, a := range []*agent{left, c.clients[0]} {
			asked := time.Now()
			ctx, stop := context.WithTimeout(context.Background(), patience)
			_, err := a.api.Submit(ctx, api.SubmitRequest{ID: "without-quorum", Job: a.c.small})
			stop()
			if err == nil {
				t.Fatalf("%s took a run without a quorum", a.name)
			}
			if sheaf.ClassOf(err) != sheaf.Unavailable {
				t.Errorf("without a quorum %s answers %v, of class %s", a.name, err, sheaf.ClassOf(err))
			}
			failing = append(failing, time.Since(asked))
		}
		m, err := stale()
		if err != nil || alone && m.KnownLeader {
			t.Errorf("a stale read without a quorum: %v, knows of a leader: %v", err, m.KnownLeader)
		}
		alone = alone || !m.KnownLeader
		pause(time.Second)
	}
	if !alone {
		t.Errorf("%s knows of a leader %s after two of three servers were killed", left.name, patience)
	}
	if len(failing) < either(2, 12) { // each waits a while for a leader to come
		t.Errorf("only %d writes were tried", len(failing))
	}
	measured(t, figure{"until a write without a quorum has failed", failing, "worst", 5 * time.Second})
	c.whole()
	c.acknowledged(map[string]bool{known: true})
	for _, p := range l.check() {
		if p.Failures != 0 {
			t.Errorf("the loss of the quorum cost partition %d a try: %+v", p.Index, p)
		}
	}
	accepted(t, "after-the-loss", c.servers...)
}

// acknowledged waits until the runs are there and done; each is one run with one partition.
func (c *cluster) acknowledged(runs map[string]bool) {
	c.t.Helper()
	var open []sheaf.RunStub
	look := func() (string, bool) {
		open = anyone(c, "which runs are not over", func(ctx context.Context, a *agent) ([]sheaf.RunStub, error) {
			list, _, err := a.api.Runs(ctx, api.Read{Params: map[string][]string{"filter": {`status != "succeeded"`}, "per_page": {"10"}}})
			return list, err
		})
		for _, r := range open {
			if r.Status.Terminal() {
				c.t.Fatalf("run %s is %+v", r.ID, r)
			}
		}
		ids := ""
		for _, r := range open {
			ids += string(r.ID) + " "
		}
		return ids, len(open) == 0
	}
	if !moving(look) {
		for _, r := range open {
			why := anyone(c, "why "+string(r.ID)+" waits", func(ctx context.Context, a *agent) (api.Explanation, error) {
				return a.api.Explain(ctx, string(r.ID), -1)
			})
			c.t.Errorf("run %+v is not over: %+v; its partition is %+v", r, why, c.partition(string(r.ID), 0))
		}
		c.t.FailNow()
	}
	found := map[string]sheaf.RunStub{}
	for _, r := range pages(c, "the runs", func(ctx context.Context, a *agent, r api.Read) ([]sheaf.RunStub, api.Meta, error) {
		return a.api.Runs(ctx, r)
	}) {
		found[string(r.ID)] = r
	}
	for id := range runs {
		if r, ok := found[id]; !ok {
			c.t.Errorf("run %s was acknowledged and is not there", id)
		} else if r.Status != sheaf.RunSucceeded || r.Partitions.Total != 1 || r.Partitions.Succeeded != 1 {
			c.t.Errorf("run %s is %+v", id, r)
		}
	}
}

// allKilled: all servers are killed at once while they take runs, and resume (G6).
func allKilled(c *cluster, t *testing.T) {
	var took []time.Duration
	for i := range either(3, 50) {
		acked, count, stop := c.storm(fmt.Sprintf("together-%d", i), 4, 0)
		await(t, "a run is acknowledged", func() bool { return count() > 0 })
		pause(time.Duration(200+rand.IntN(1500)) * time.Millisecond)
		for _, s := range c.servers {
			s.group.kill()
		}
		for _, s := range c.servers {
			<-s.exited
		}
		stop()
		for _, s := range c.servers {
			s.start()
		}
		took = append(took, accepted(t, fmt.Sprintf("resumed-%d", i), c.servers...))
		c.whole()
		c.acknowledged(acked)
		c.compareStates()
	}
	measured(t, figure{"from the start of all servers to a job accepted", took, "worst", 20 * time.Second})
}

// storm submits runs from so many submitters until stopped, each run until it is acknowledged or the storm
// is over. perSecond bounds the rate; 0 does not. count is how many are acknowledged so far; acked is to be read once stopped.
func (c *cluster) storm(name string, submitters, perSecond int) (acked map[string]bool, count func() int, stop func()) {
	acked = map[string]bool{}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var all sync.WaitGroup
	for s := range submitters {
		all.Go(func() {
			var pace <-chan time.Time
			if perSecond > 0 {
				tick := time.NewTicker(time.Second * time.Duration(submitters) / time.Duration(perSecond))
				defer tick.Stop()
				pace = tick.C
			}
			for n := 0; ctx.Err() == nil; n++ {
				run := fmt.Sprintf("%s-%d-%d", name, s, n)
				created := c.insist(ctx, run)
				if created == 0 {
					return
				}
				mu.Lock()
				acked[run] = true
				mu.Unlock()
				if pace != nil {
					select {
					case <-pace:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	count = func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	return acked, count, func() { cancel(); all.Wait() }
}

// insist asks for a run until it is acknowledged, and in one of ten cases once more: a
// second acknowledgement must be for the same run. It gives how often an answer came.
func (c *cluster) insist(ctx context.Context, run string) (answers int) {
	for again := false; ctx.Err() == nil; {
		a := c.servers[rand.IntN(len(c.servers))]
		if rand.IntN(4) == 0 {
			a = c.clients[rand.IntN(len(c.clients))]
		}
		reply, err := ask(a, func(context.Context) (api.SubmitReply, error) {
			short, stop := context.WithTimeout(ctx, askFor)
			defer stop()
			return a.api.Submit(short, api.SubmitRequest{ID: sheaf.RunID(run), Job: a.c.small})
		})
		if err != nil {
			continue
		}
		answers++
		if again && reply.Created || string(reply.Run.ID) != run {
			c.t.Errorf("the second submission of %s made %+v (created %v)", run, reply.Run, reply.Created)
		}
		if again || rand.IntN(10) > 0 {
			return answers
		}
		again = true
	}
	return answers
}

// leaderFrozen: the leader stands still for ten seconds, another is elected, and when the first goes on nothing
// that it meant to decide counts (G7).
func leaderFrozen(c *cluster, t *testing.T) {
	l := newLedger(c, t, "leader-frozen", either(200, 2000), 500*time.Millisecond)
	l.midway()
	acked, _, stop := c.storm("frozen", 4, 100)
	leader := c.leader()
	rest := c.besides(leader)
	leader.group.freeze()
	l.release()
	frozen := time.Now()
	await(t, "another leads", func() bool { return c.leads(rest...) != nil })
	t.Logf("the next leader was there %s after the first had been frozen", time.Since(frozen).Round(time.Millisecond))
	pause(10*time.Second - time.Since(frozen))
	leader.group.thaw()
	// What it now acknowledges must be in the log of the others.
	for i := range 20 {
		run := fmt.Sprintf("deposed-%d", i)
		if _, err := leader.put(run); err != nil {
			continue
		}
		var got api.SubmitReply
		await(t, "another answers for "+run, func() (answered bool) {
			for _, a := range rest {
				var err error
				if got, err = a.put(run); err == nil {
					return true
				}
			}
			return false
		})
		if got.Created {
			t.Errorf("the deposed leader acknowledged %s and the others had never heard of it", run)
		}
	}
	stop()
	c.whole()
	c.acknowledged(acked)
	for _, p := range l.check() {
		if p.Failures != 0 {
			t.Errorf("the frozen leader cost partition %d a try: %+v", p.Index, p)
		}
	}
}
