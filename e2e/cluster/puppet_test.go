package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// puppet is a node that speaks the clients' protocol with a certificate of its own, and runs nothing: what it
// reports, and how often, is the test's to say.
type puppet struct {
	c      *cluster
	name   string
	dialer wire.Dialer
	// react is told of each execution when it is assigned, and gives what to report of it.
	react func(execution) []sheaf.Outcome

	mu       sync.Mutex
	reported map[execution][]sheaf.Outcome
	verdicts map[execution][]wire.Verdict
	sessions int

	stop func() // ends it without a farewell, and waits
}

// execution is one of a partition.
type execution struct {
	run                            string
	generation, partition, attempt uint32
}

// newPuppet gives it a certificate.
func newPuppet(c *cluster, name string) *puppet {
	c.t.Helper()
	cert, key := c.trust.issue(c, "client", name, c.net.subnet+".1")
	keys, err := pki.LoadKeys(pki.Files{CA: c.trust.ca(), Cert: cert, Key: key})
	if err != nil {
		c.t.Fatal(err)
	}
	return &puppet{c: c, name: name, dialer: wire.Dialer{Keys: keys}, reported: map[execution][]sheaf.Outcome{}, verdicts: map[execution][]wire.Verdict{}}
}

// start begins its sessions, one after another, and with each reports all again that it ever did.
func (p *puppet) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p.stop = func() {
		cancel()
		<-ended
	}
	p.c.t.Cleanup(p.stop)
	go func() {
		defer close(ended)
		for i := 0; ctx.Err() == nil; i++ {
			_ = p.session(ctx, p.c.servers[i%len(p.c.servers)]) // most are not the leader
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery):
			}
		}
	}()
}

// session is one stream to a server, until it ends.
func (p *puppet) session(ctx context.Context, server *agent) error {
	conn, err := p.dialer.Server(server.address + ":7611")
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	servers := wire.NewServersClient(conn)
	node, err := json.Marshal(sheaf.Node{
		ID: sheaf.NodeID(p.name), Name: p.name, Class: p.name, Region: "global", Datacenter: "dc1", Address: p.c.net.subnet + ".1:1",
		Resources: sheaf.Resources{CPU: slots * taskCPU, Memory: 64 << 30, Disk: 64 << 30, Pids: 100000},
		Drivers:   []sheaf.NodeDriver{{Name: "mock", Healthy: true}},
	})
	if err != nil {
		return err
	}
	registered, err := servers.Register(ctx, &wire.RegisterRequest{NodeJson: node, BootId: p.name})
	if err != nil {
		return err
	}
	st, err := servers.Session(ctx)
	if err != nil {
		return err
	}
	// Both ends of a stream may wait for each other, unless one of them goes on reading.
	out := make(chan *wire.FromClient, 1<<16)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer stop()
	sender.Go(func() { p.send(ctx, st, out) })
	hello := &wire.Hello{Node: p.name, Session: registered.Session, BootId: p.name}
	again := p.again()
	for x := range again {
		hello.Finished = append(hello.Finished, x.named())
	}
	out <- &wire.FromClient{Body: &wire.FromClient_Hello{Hello: hello}}
	for x, outcomes := range again {
		p.tell(out, x, registered.Session, outcomes)
	}
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		switch b := m.Body.(type) {
		case *wire.FromServer_Assign:
			for i, first := range b.Assign.First {
				for n := range b.Assign.Count[i] {
					x := execution{b.Assign.Run, b.Assign.Generation, first + n, b.Assign.Attempt[i]}
					p.tell(out, x, registered.Session, p.decide(x))
				}
			}
		case *wire.FromServer_Answers:
			p.note(b.Answers)
		}
	}
}

// send sends what is to go out, and keeps the lease.
func (p *puppet) send(ctx context.Context, st wire.Servers_SessionClient, out <-chan *wire.FromClient) {
	pulse := time.NewTicker(time.Second)
	defer pulse.Stop()
	greeted := false
	for {
		m := &wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: &wire.Pulse{}}}
		select {
		case <-ctx.Done():
			return
		case m = <-out:
			greeted = true
		case <-pulse.C:
			if !greeted {
				continue
			}
		}
		if st.Send(m) != nil {
			return // and the reader hears why
		}
	}
}

// decide asks what to report of an execution, and remembers it.
func (p *puppet) decide(x execution) []sheaf.Outcome {
	outcomes := p.react(x)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reported[x] = outcomes
	return outcomes
}

// again is what was reported in earlier sessions; a new one begins.
func (p *puppet) again() map[execution][]sheaf.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions++
	all := map[execution][]sheaf.Outcome{}
	for x, outcomes := range p.reported {
		if len(outcomes) > 0 {
			all[x] = outcomes
		}
	}
	return all
}

// change has the puppet report otherwise, from the next session on, of what it was assigned.
func (p *puppet) change(outcomes ...sheaf.Outcome) (of []execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.reported {
		p.reported[x] = outcomes
		of = append(of, x)
	}
	return of
}

// note keeps the servers' verdicts.
func (p *puppet) note(a *wire.Answers) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, v := range a.Verdict {
		x := execution{a.Run, a.Generation, a.Partition[i], a.Attempt[i]}
		p.verdicts[x] = append(p.verdicts[x], wire.Verdict(v))
	}
}

// verdict is what was last said of an execution, and how often each was.
func (p *puppet) verdict(x execution) (last wire.Verdict, counts map[wire.Verdict]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts = map[wire.Verdict]int{}
	for _, v := range p.verdicts[x] {
		last = v
		counts[v]++
	}
	return last, counts
}

// replays is how often the servers have said of an execution that it is committed already.
func (p *puppet) replays() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.verdicts {
		for _, v := range of {
			if v == wire.Verdict_VERDICT_ALREADY {
				n++
			}
		}
	}
	return n
}

// held is how many executions it was assigned so far.
func (p *puppet) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.reported)
}

// begun is how many sessions it had so far.
func (p *puppet) begun() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions
}

func (x execution) named() *wire.Executions {
	return &wire.Executions{Run: x.run, Generation: x.generation, First: []uint32{x.partition}, Count: []uint32{1}, Attempt: []uint32{x.attempt}}
}

// tell reports that an execution runs, and how it ended, in the order of outcomes.
func (p *puppet) tell(out chan<- *wire.FromClient, x execution, session uint64, outcomes []sheaf.Outcome) {
	for _, o := range outcomes {
		r := &wire.Results{
			Run: x.run, Generation: x.generation, Node: p.name, Session: session,
			Partition: []uint32{x.partition}, Attempt: []uint32{x.attempt}, Outcome: []byte{byte(o)}, Failure: []byte{byte(sheaf.FailNone)},
			ExitCode: []int32{0}, StartedMs: []int64{1}, DurationMs: []uint32{1}, CpuMs: []uint32{1}, PeakMemoryKib: []uint32{1}, Digest: make([]byte, 32),
		}
		if o == sheaf.OutcomeFailed {
			r.Failure[0], r.ExitCode[0] = byte(sheaf.FailExit), 7
		} else {
			copy(r.Digest, fmt.Sprint(x))
		}
		out <- &wire.FromClient{Body: &wire.FromClient_Running{Running: x.named()}}
		out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: r}}
	}
}

// replayed: a node says everything two and three times, also to the next leader, and says late that what it committed
// has failed. Each success is committed once, each failure counted once (G19).
func replayed(c *cluster, t *testing.T) {
	const total, everyTenth = 400, 10
	p := newPuppet(c, "stutterer")
	failed := map[uint32]bool{}
	p.react = func(x execution) []sheaf.Outcome {
		if x.partition%everyTenth == 0 && !failed[x.partition] {
			failed[x.partition] = true
			return []sheaf.Outcome{sheaf.OutcomeFailed, sheaf.OutcomeFailed, sheaf.OutcomeFailed}
		}
		return []sheaf.Outcome{sheaf.OutcomeSucceeded, sheaf.OutcomeSucceeded, sheaf.OutcomeFailed}
	}
	p.start()
	defer p.stop()
	job := c.job(fmt.Sprintf(`job "replayed" {
  count   = %d
  backups = false
  constraint {
    attribute = "${node.class}"
    value     = %q
  }
  task "noop" {
    driver = "mock"
    resources {
      cpu = %d
    }
  }
  retry {
    attempts   = 2
    other_node = false
  }
}`, total, p.name, taskCPU))
	c.take("replayed", job)
	await(t, "a quarter of the run is reported", func() bool { return p.held() >= total/4 })
	leader := c.leader()
	leader.crash()
	await(t, "all is reported to the next leader", func() bool { return p.begun() > 1 })
	s := c.ended("replayed")
	leader.start()
	if s.Status != sheaf.RunSucceeded || s.Partitions != (sheaf.PartitionCounts{Total: total, Succeeded: total}) {
		t.Errorf("of %d partitions that were reported thrice the run says %+v", total, s)
	}
	for i, got := range c.partitions("replayed") {
		failures := 0
		if i%everyTenth == 0 {
			failures = 1
		}
		// What the old leader placed and never sent is placed anew, at no cost.
		if got.Index != i || got.Failures != failures || got.Losses != 0 || int(got.Attempt) <= failures || got.State != sheaf.PartitionSucceeded {
			t.Errorf("partition %d, of which each report was sent thrice, is %+v", i, got)
		}
		x := execution{"replayed", 1, uint32(i), got.Attempt}
		await(t, fmt.Sprintf("partition %d is answered", i), func() bool {
			last, counts := p.verdict(x)
			return counts[wire.Verdict_VERDICT_COMMITTED]+counts[wire.Verdict_VERDICT_ALREADY] > 0 && last != wire.Verdict_VERDICT_RESEND
		})
		_, counts := p.verdict(x)
		if counts[wire.Verdict_VERDICT_COMMITTED] > 1 {
			t.Errorf("partition %d was committed anew: %v", i, counts)
		}
	}
	replays := 0
	await(t, "enough replays are answered", func() bool {
		replays = p.replays()
		return replays >= total
	})
	t.Logf("%d commits were reported again, in %d sessions", replays, p.begun())
}

// oldAttempt: a node that was lost comes back and reports, under a new session, what it was once assigned. Its
// work is somebody else's by now: every report is refused (G7).
func oldAttempt(c *cluster, t *testing.T) {
	p := newPuppet(c, "latecomer")
	p.react = func(execution) []sheaf.Outcome { return nil }
	p.start()
	node := func() sheaf.Node { return c.nodes()[p.name] }
	await(t, "the puppet is ready", func() bool { return node().Status == sheaf.NodeReady })
	job := c.job(fmt.Sprintf(`job "old-attempt" {
  count   = %d
  backups = false
  task "slow" {
    driver = "mock"
    config {
      duration = "6s"
    }
    resources {
      cpu = %d
    }
  }
}`, (len(c.clients)+1)*slots, taskCPU))
	c.take("old-attempt", job)
	await(t, "the puppet holds work", func() bool { return p.held() > 0 })
	p.stop()
	await(t, "the puppet counts as lost", func() bool { return node().Status != sheaf.NodeReady })
	p.react = func(execution) []sheaf.Outcome { return []sheaf.Outcome{sheaf.OutcomeSucceeded} }
	old := p.change(sheaf.OutcomeSucceeded)
	for _, x := range old {
		await(t, fmt.Sprintf("partition %d is tried anew", x.partition), func() bool { return c.partition(x.run, int(x.partition)).Attempt > x.attempt })
	}
	p.start()
	defer p.stop()
	for _, x := range old {
		await(t, fmt.Sprintf("partition %d is answered", x.partition), func() bool { last, _ := p.verdict(x); return last != 0 })
		if last, counts := p.verdict(x); last != wire.Verdict_VERDICT_SUPERSEDED || len(counts) != 1 {
			t.Errorf("the old attempt %+v was answered %v", x, counts)
		}
	}
	if s := c.ended("old-attempt"); s.Status != sheaf.RunSucceeded {
		t.Errorf("the run ended as %+v", s)
	}
	all := c.partitions("old-attempt")
	for _, x := range old {
		if got := all[x.partition]; got.Attempt <= x.attempt || got.Failures != 0 || got.Losses != 1 {
			t.Errorf("partition %d, which an old attempt was reported of, is %+v", x.partition, got)
		}
	}
	t.Logf("%d reports of old attempts were refused", len(old))
}
