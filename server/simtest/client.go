package simtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	slots       = 3
	heartbeatMs = 700
	resendMs    = 2_500 // a result that is unanswered for so long is sent again
)

// execution names one attempt.
type execution struct {
	run       string
	kind      wire.Kind
	partition uint32
	attempt   uint32
}

// result is an ended execution: durable, and kept until it is answered.
type result struct {
	execution
	outcome sheaf.Outcome
	kind    sheaf.FailureKind
	code    int32
	digest  [32]byte
	sentMs  int64 // on this stream; 0 is not yet
}

// client is a model of a node's agent that keeps to the protocol.
type client struct {
	w  *world
	id sheaf.NodeID

	// Durable.
	results []result
	outputs map[execution]bool // files of attempts that succeeded
	wiped   map[execution]bool // files that a broken disk took
	seen    map[execution]bool // whatever was ever assigned here: never twice

	// Of one start.
	alive      bool
	boot       int
	session    uint64
	stream     *stream
	welcomed   bool
	queue      []execution
	running    []execution
	cutOff     bool   // the network does not reach it
	asked      uint64 // newest registration under way
	publishing map[execution]bool
}

func newClient(w *world, i int) *client {
	return &client{w: w, id: sheaf.NodeID(fmt.Sprintf("node%d", i)), alive: true, boot: 1, outputs: map[execution]bool{}, wiped: map[execution]bool{}, seen: map[execution]bool{}, publishing: map[execution]bool{}}
}

func (c *client) bootID() string { return fmt.Sprintf("%s-%d", c.id, c.boot) }

// connect registers, or where there is a session says hello under it.
func (c *client) connect() {
	if !c.alive || c.stream != nil {
		return
	}
	c.later(c.w.between(150, 600), c.connect) // unless it works
	if c.session > 0 && c.w.chance(2) {
		c.hello()
		return
	}
	c.register()
}

// later lets f happen unless the client has restarted by then.
func (c *client) later(d int64, f func()) {
	boot := c.boot
	c.w.after(d, func() {
		if c.alive && c.boot == boot {
			f()
		}
	})
}

func (c *client) register() {
	c.asked++
	asked := c.asked
	node, err := json.Marshal(sheaf.Node{ID: c.id, Name: string(c.id), Region: "here", Datacenter: "d", Address: "127.0.0.1:1",
		Resources: sheaf.Resources{CPU: 4000, Memory: 4 << 30, Disk: 4 << 30, Pids: 1000},
		Drivers:   []sheaf.NodeDriver{{Name: "mock", Healthy: true}}})
	if err != nil {
		panic(err)
	}
	boot := c.bootID()
	c.w.call(c, func(l *leader) {
		l.propose(&fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: node, BootId: boot}}}, func(r fsm.Reply) {
			c.w.back(c, func() {
				if c.asked == asked && c.stream == nil && r.Session > c.session {
					c.session = r.Session
					c.hello()
				}
			})
		})
	})
}

// hello opens a stream and says what is here.
func (c *client) hello() {
	l := c.w.leader
	if l == nil || c.cutOff || c.stream != nil {
		return
	}
	s := &stream{w: c.w, open: true, leader: l, client: c, node: c.id, session: c.session}
	c.stream, c.welcomed = s, false
	for i := range c.results {
		c.results[i].sentMs = 0
	}
	finished := make([]execution, len(c.results))
	for i, r := range c.results {
		finished[i] = r.execution
	}
	h := &wire.Hello{Node: string(c.id), Session: c.session, BootId: c.bootID(),
		Queued: named(c.queue), Executing: named(c.running), Finished: named(finished)}
	s.up(func(l *leader) { l.hello(s, h) })
	c.flush()
	c.beat(s)
}

func (c *client) beat(s *stream) {
	if c.stream != s {
		return
	}
	s.up(func(*leader) {})
	c.flush()
	c.later(heartbeatMs, func() { c.beat(s) })
}

func (c *client) disconnected() {
	c.stream = nil
	c.later(c.w.between(10, 400), c.connect)
}

// welcome ends what is not valid, and lets what was queued begin.
func (c *client) welcome(kill, start []*wire.Executions) {
	for _, e := range kill {
		c.kill(e)
	}
	ok := map[execution]bool{}
	for _, e := range start {
		each(e, func(x execution) { ok[x] = true })
	}
	for _, x := range c.queue {
		if !ok[x] {
			c.w.fail("%s was told neither to start nor to kill %v", c.id, x)
		}
	}
	c.welcomed = true
	c.begin()
}

func (c *client) assign(e *wire.Executions) {
	each(e, func(x execution) {
		if c.seen[x] {
			c.w.fail("%v was sent to %s twice", x, c.id)
		}
		c.seen[x] = true
		c.queue = append(c.queue, x)
	})
	c.begin()
}

// kill ends executions and forgets them. What has ended waits for its verdict.
func (c *client) kill(e *wire.Executions) {
	each(e, func(x execution) {
		c.queue = without(c.queue, x)
		c.running = without(c.running, x)
	})
	c.begin()
}

// takeBack drops queued executions, the last first, and says which.
func (c *client) takeBack(t *wire.TakeBack) {
	var dropped []execution
	for i := len(c.queue) - 1; i >= 0 && uint32(len(dropped)) < t.Most; i-- {
		if x := c.queue[i]; x.run == t.Run && x.kind == wire.Kind_KIND_PARTITION {
			dropped = append(dropped, x)
			c.queue = slices.Delete(c.queue, i, i+1)
		}
	}
	list := &wire.Executions{Run: t.Run, Generation: t.Generation}
	for _, e := range named(dropped) {
		list = e
	}
	c.w.out.TakenBack += len(dropped)
	s := c.stream
	s.up(func(l *leader) {
		for _, r := range l.core.TakenBack(s.node, &wire.TakenBack{Id: t.Id, Dropped: list}) {
			l.propose(&fsm.Command{Body: &fsm.Command_Release{Release: r}}, nil)
		}
	})
}

// named writes executions as columns, a message for each run and kind.
func named(list []execution) []*wire.Executions {
	list = slices.Clone(list)
	sortExecutions(list)
	var out []*wire.Executions
	for i, x := range list {
		if i == 0 || list[i-1].run != x.run || list[i-1].kind != x.kind {
			out = append(out, &wire.Executions{Run: x.run, Kind: x.kind})
		}
		state.AppendExecution(out[len(out)-1], int(x.partition), x.attempt)
	}
	return out
}

func sortExecutions(list []execution) {
	slices.SortFunc(list, func(a, b execution) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.kind, b.kind), cmp.Compare(a.partition, b.partition), cmp.Compare(a.attempt, b.attempt))
	})
}

func each(e *wire.Executions, f func(execution)) {
	for i, first := range e.First {
		for p := range e.Count[i] {
			f(execution{e.Run, e.Kind, first + p, e.Attempt[i]})
		}
	}
}

func without(list []execution, x execution) []execution {
	return slices.DeleteFunc(list, func(y execution) bool { return x == y })
}
