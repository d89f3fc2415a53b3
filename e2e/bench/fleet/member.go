// Package fleet is simulated clients, many in one process. Each is a node of its own to the servers: it registers,
// holds a session by a connection of its own, renews its lease, keeps what it is assigned in the clients' own core, merges,
// and commits. What is not real is its driver, which only waits, and its disk, which it has none of.
package fleet

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// tickEvery is how often a member looks at what time alone brings. A client does so more often; a thousand
// of them on two processors would do little else.
const tickEvery = 250 * time.Millisecond

// Work is how a member's tasks go.
type Work struct {
	Mean    time.Duration // of a task's duration, which is exponentially distributed around it
	Failing float64       // the part of the tasks that fail
	Slots   int           // tasks at once
}

// member is one simulated client.
type member struct {
	id   sheaf.NodeID
	work Work
	rng  *rand.Rand
	log  *slog.Logger
	dir  string // for merges

	session *session.Session
	inbox   chan func()
	jobs    sync.WaitGroup

	// Of the loop.
	ctx   context.Context
	now   time.Time
	core  *execution.Core
	fx    execution.Effects
	ends  ends
	out   *session.Outbox // nil without a welcomed stream
	num   uint64          // of the session
	lease time.Duration
	pulse time.Time // the last
	seq   uint64

	cluster  string
	welcomed chan struct{} // closed at the first
	once     sync.Once
}

// newMember makes the member of that number; servers are addresses of RPC listeners.
func newMember(number int, work Work, servers []string, dir string, log *slog.Logger) *member {
	m := &member{
		id: sheaf.NodeID(fmt.Sprintf("fleet-%04d", number)), work: work, rng: rand.New(rand.NewPCG(uint64(number), 1)), log: log, dir: dir,
		inbox: make(chan func(), 64), welcomed: make(chan struct{}),
		core: execution.New(execution.NewAccountant(execution.NeedOf(resources(work.Slots)), work.Slots)),
	}
	at := number % len(servers)
	known := append(append([]string(nil), servers[at:]...), servers[:at]...)
	m.session = session.New(session.Config{
		Servers: func() []string { return known }, Dial: func(a string) (*grpc.ClientConn, error) { return wire.Dialer{}.Server(a) },
		BootID: string(m.id), Handler: m, Logger: log,
	})
	return m
}

// resources are those of a node for so many tasks that ask for nothing in particular: 100 MHz each.
func resources(slots int) sheaf.Resources {
	return sheaf.Resources{CPU: slots * 100, Memory: sheaf.Size(slots) << 30, Disk: sheaf.Size(slots) << 34, Pids: slots * 4096}
}

// run takes part until ctx ends.
func (m *member) run(ctx context.Context) error {
	m.ctx = ctx
	done := make(chan error, 1)
	go func() { done <- m.session.Run(ctx) }()
	defer m.jobs.Wait()
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	ticked := time.Now()
	for {
		select {
		case f := <-m.inbox:
			m.now = time.Now()
			f()
			for more := true; more; {
				select {
				case f := <-m.inbox:
					f()
				default:
					more = false
				}
			}
		case <-timer.C:
			m.now = time.Now()
		case err := <-done:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", m.id, err)
		}
		for len(m.ends) > 0 && !m.ends[0].at.After(m.now) {
			m.exit(heap.Pop(&m.ends).(end).id, "")
		}
		if m.now.Sub(ticked) >= tickEvery {
			ticked = m.now
			m.core.Tick(m.now, func(*execution.Run) time.Duration { return 0 })
			m.beat()
		}
		m.carryOut()
		next := ticked.Add(tickEvery)
		if len(m.ends) > 0 && m.ends[0].at.Before(next) {
			next = m.ends[0].at
		}
		timer.Reset(time.Until(next))
	}
}

// post has f done by the loop.
func (m *member) post(f func()) {
	select {
	case m.inbox <- f:
	case <-m.ctx.Done():
	}
}

// ask is post, and waits until it is done.
func (m *member) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	m.post(func() { f(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

// exit ends a task; by says who ended it before its time.
func (m *member) exit(id, by string) {
	x := m.core.Find(id)
	if x == nil || x.Phase != execution.Running {
		return
	}
	told := &driverpb.Exited{Execution: id, StartedUnixMs: x.Started.UnixMilli(), DurationMs: m.now.Sub(x.Started).Milliseconds()}
	if by != "" {
		told.Signal = "SIGKILL"
	} else if m.rng.Float64() < m.work.Failing {
		told.ExitCode = 1
	}
	m.core.Exited(told)
}

// carryOut does what the core asks for, until it asks for nothing more.
func (m *member) carryOut() {
	for {
		m.core.Effects(m.now, &m.fx)
		if m.fx.Empty() {
			return
		}
		for _, r := range m.fx.Prepare {
			m.core.Prepared(r, m.now)
		}
		for _, x := range m.fx.Stage {
			m.core.Staged(x, m.now)
		}
		for _, x := range m.fx.Start {
			heap.Push(&m.ends, end{m.now.Add(m.draw()), x.ID})
		}
		for _, x := range m.fx.Stop {
			m.exit(x.ID, "the servers")
		}
		for _, x := range m.fx.Harvest {
			m.core.Harvested(x, noFiles)
		}
		for _, x := range m.fx.Store {
			m.core.Stored(x)
		}
		for _, c := range execution.Columns(m.fx.Send, m.id, m.num) {
			m.send(&wire.FromClient{Body: &wire.FromClient_Results{Results: c}})
		}
		for _, x := range m.fx.Own {
			m.beginOwn(x)
		}
		for _, x := range m.fx.End {
			x.Data.(context.CancelFunc)()
		}
		m.report(m.fx.Reports)
	}
}

// draw is how long a task takes.
func (m *member) draw() time.Duration {
	return time.Duration(-math.Log(1-m.rng.Float64()) * float64(m.work.Mean))
}

// report tells which tasks run.
func (m *member) report(list []*execution.Execution) {
	byRun := map[*execution.Run]*wire.Executions{}
	for _, x := range list {
		e := byRun[x.Run]
		if e == nil {
			e = &wire.Executions{Run: string(x.Run.ID), Generation: x.Generation}
			byRun[x.Run] = e
		}
		e.First, e.Count, e.Attempt = append(e.First, x.Partition), append(e.Count, 1), append(e.Attempt, x.Attempt)
	}
	for _, e := range byRun {
		m.send(&wire.FromClient{Body: &wire.FromClient_Running{Running: e}})
	}
}

// beat renews the lease when a third of it has passed.
func (m *member) beat() {
	if m.out == nil || m.now.Sub(m.pulse) < m.lease/3 {
		return
	}
	m.seq++
	p := &wire.Pulse{Sequence: m.seq, Rate: m.core.Rate()}
	for r := range m.core.Runs {
		if r.Active() {
			p.Runs = append(p.Runs, &wire.RunRate{Run: string(r.ID), Rate: r.Rate(), Slots: uint32(m.core.Slots(r))})
		}
	}
	m.pulse = m.now
	m.send(&wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: p}})
}

func (m *member) send(x *wire.FromClient) {
	if m.out != nil {
		m.out.Add(x)
	}
}

// node describes the member to the servers.
func (m *member) node() ([]byte, error) {
	return json.Marshal(sheaf.Node{
		ID: m.id, Name: string(m.id), Region: "global", Datacenter: "dc1", Address: "127.0.0.1:1",
		Resources: resources(m.work.Slots), Drivers: []sheaf.NodeDriver{{Name: "mock", Healthy: true}},
	})
}

// end is when a task is over.
type end struct {
	at time.Time
	id string
}

// ends is a heap, the next first.
type ends []end

func (h ends) Len() int           { return len(h) }
func (h ends) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h ends) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *ends) Push(x any) { *h = append(*h, x.(end)) }

// Pop implements heap.Interface.
func (h *ends) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
