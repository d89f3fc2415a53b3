package simtest

import (
	"bytes"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/broker"
	"github.com/sheaf-run/agent/server/dispatch"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// leader is one term: what it holds dies with it.
type leader struct {
	w        *world
	alive    bool
	began    int64 // w.now when the term began
	base     int64 // cluster time then
	core     *dispatch.Core
	queue    *broker.Queue
	streams  []*stream // the newest of each node
	heard    map[sheaf.NodeID]int64
	inflight []*proposal
	results  []*wire.Results // waiting for the next commit
	answer   []*stream       // where each of results came from; nil for repeats
	flushing bool
}

// proposal is a command on its way into the log.
type proposal struct {
	cmd   *fsm.Command
	reply func(fsm.Reply)
	done  bool
}

// elect begins a term on the log as it stands. Now and then the machine is
// rebuilt, from the snapshot and the entries behind it, and must come out the same.
func (w *world) elect() {
	w.rebuild()
	l := &leader{w: w, alive: true, began: w.now, base: w.snap().TimeMs(), core: dispatch.New(), queue: broker.NewQueue(), heard: map[sheaf.NodeID]int64{}}
	if l.base == 0 {
		l.base = w.now
	}
	w.leader = l
	for n := range w.snap().Nodes() {
		l.heard[n.ID] = w.now // one full period for every known node
	}
	if w.snap().Cluster().ID == "" {
		l.propose(&fsm.Command{Body: &fsm.Command_Bootstrap{Bootstrap: &fsm.Bootstrap{ClusterId: "c1", Region: "here"}}}, nil)
	}
	for _, name := range namespaces {
		if w.snap().Namespace(name) == nil {
			l.propose(&fsm.Command{Body: &fsm.Command_WriteNamespace{WriteNamespace: &fsm.WriteNamespace{Name: name}}}, nil)
		}
	}
	l.tick()
}

func (w *world) rebuild() {
	if len(w.log) == 0 {
		return
	}
	was := w.snap().Digest()
	store := state.New(w.chunks)
	m := fsm.New(store)
	from := 0
	if w.image != nil && w.chance(2) {
		if err := m.Restore(bytes.NewReader(w.image)); err != nil {
			w.fail("the snapshot cannot be restored: %v", err)
		}
		from = w.imageAt
		w.out.Restores++
	} else {
		m = fsm.New(state.New(&state.MemoryChunks{}))
	}
	for i, entry := range w.log[from:] {
		if _, err := m.Apply(uint64(from+i+1), entry); err != nil {
			w.fail("the log cannot be replayed: %v", err)
		}
	}
	if is := m.Store().Snapshot().Digest(); is != was {
		w.fail("replaying the log from entry %d gives %s, not %s", from, is, was)
	}
	w.chunks = m.Store().Chunks().(*state.MemoryChunks)
	w.machine = m
}

// crash ends the term. What was on its way may be in the log, or not; nobody is told.
func (w *world) crashLeader() {
	l := w.leader
	l.alive = false
	w.leader = nil
	w.out.Crashes++
	for _, p := range l.inflight {
		if !p.done && w.chance(2) {
			p.done = true
			w.apply(l.stamp(p.cmd))
		}
	}
	for _, s := range l.streams {
		s.cut()
	}
	if w.chance(3) {
		var b bytes.Buffer
		if _, err := w.machine.Image().WriteTo(&b); err != nil {
			w.fail("the snapshot cannot be written: %v", err)
		}
		w.image, w.imageAt = b.Bytes(), len(w.log)
	}
	w.after(w.between(100, 2500), w.elect)
}

// stamp gives a command the leader's cluster time.
func (l *leader) stamp(c *fsm.Command) *fsm.Command {
	c.TimeMs = l.base + l.w.now - l.began
	return c
}

// apply appends a command to the log and applies it.
func (w *world) apply(c *fsm.Command) fsm.Reply {
	b, err := fsm.Encode(c)
	if err != nil {
		w.fail("a command cannot be encoded: %v", err)
	}
	before := w.snap()
	w.log = append(w.log, b)
	reply, err := w.machine.Apply(uint64(len(w.log)), b)
	if err != nil {
		w.fail("the machine halted: %v", err)
	}
	_, _ = w.hash.Write(b)
	for _, a := range reply.Answers {
		_, _ = w.hash.Write(a.Verdict)
	}
	w.book.applied(c, reply, before, w.snap())
	if b := c.GetDeleteRun(); b != nil && reply.Err == nil {
		if r := before.Run(sheaf.RunID(b.Run)); r != nil && r.Unpublished() != "" {
			w.bucket.sweep(r.ID)
		}
	}
	return reply
}

// propose sends a command into the log. reply, unless nil, is called once it
// is applied, if the leader is still there.
func (l *leader) propose(c *fsm.Command, reply func(fsm.Reply)) {
	p := &proposal{cmd: c, reply: reply}
	l.inflight = append(l.inflight, p)
	l.w.after(l.w.between(1, 12), func() {
		if p.done || !l.alive {
			return
		}
		p.done = true
		l.inflight = slices.DeleteFunc(l.inflight, func(x *proposal) bool { return x == p })
		r := l.w.apply(l.stamp(c))
		if reply != nil {
			reply(r)
		}
		l.react(c, r)
	})
}

// react does what every server does after a command: it looks what it has to send.
func (l *leader) react(c *fsm.Command, r fsm.Reply) {
	switch {
	case c.GetRelease() != nil && r.Err == nil:
		l.send(sheaf.NodeID(c.GetRelease().Node), l.core.Ended(sheaf.NodeID(c.GetRelease().Node), r.Ended))
	case c.GetNodePrepareFailed() != nil && r.Err == nil:
		l.send(sheaf.NodeID(c.GetNodePrepareFailed().Node), l.core.Ended(sheaf.NodeID(c.GetNodePrepareFailed().Node), r.Ended))
	}
	if b := c.GetChangeRun(); b != nil && r.Err == nil {
		l.takeBack(sheaf.RunID(b.Run))
	}
	for _, s := range l.streams {
		if l.core.Outdated(s.node, l.w.snap()) {
			s.cut()
		}
	}
	for run := range l.w.snap().LiveRuns() {
		l.queue.Enqueue(run.ID, broker.Share{Namespace: run.Job.Namespace, Priority: run.Priority()})
	}
	l.pump()
}

func (l *leader) send(node sheaf.NodeID, kills []*wire.Executions) {
	s := l.streamOf(node)
	for _, e := range kills {
		if s != nil {
			s.down(func(c *client) { c.kill(e) })
		}
	}
}

// pump sends what waits for the nodes that are connected.
func (l *leader) pump() {
	snap := l.w.snap()
	for _, s := range l.streams {
		if !s.open {
			continue
		}
		for _, e := range l.core.Next(s.node, 64, snap) {
			s.down(func(c *client) { c.assign(e) })
		}
		l.send(s.node, l.core.Kills(s.node, snap))
	}
}

func (l *leader) streamOf(node sheaf.NodeID) *stream {
	for _, s := range l.streams {
		if s.node == node && s.open {
			return s
		}
	}
	return nil
}

// tick is the leader's loops, all in one.
func (l *leader) tick() {
	if !l.alive {
		return
	}
	w := l.w
	w.after(w.between(40, 120), l.tick)
	snap := w.snap()
	now := l.base + w.now - l.began
	if d := snap.NextDeadlineMs(); d > 0 && d <= now || now-snap.TimeMs() > 500 {
		l.propose(&fsm.Command{Body: &fsm.Command_AdvanceTime{AdvanceTime: &fsm.AdvanceTime{}}}, nil)
	}
	for n := range snap.Nodes() {
		if n.Status == sheaf.NodeReady && w.now-l.heard[n.ID] > leaseMs {
			l.heard[n.ID] = w.now
			l.propose(&fsm.Command{Body: &fsm.Command_NodeLost{NodeLost: &fsm.NodeLost{Node: string(n.ID), Session: n.Session, Reason: "silent"}}}, func(r fsm.Reply) {
				if is := w.snap().Node(n.ID); is.Status == sheaf.NodeDown {
					l.core.Lost(n.ID)
					if s := l.streamOf(n.ID); s != nil {
						s.cut()
					}
				}
			})
		}
	}
	for run := range snap.LiveRuns() {
		l.queue.Enqueue(run.ID, broker.Share{Namespace: run.Job.Namespace, Priority: run.Priority()})
	}
	l.compareRuns()
	l.evaluate()
	l.mitigate(snap)
	l.pump()
}

// commit folds results into one command.
func (l *leader) commit(x *wire.Results, from *stream) {
	l.results = append(l.results, x)
	l.answer = append(l.answer, from)
	if l.flushing {
		return
	}
	l.flushing = true
	l.w.after(l.w.between(0, 6), func() {
		if !l.alive {
			return
		}
		results, answer := l.results, l.answer
		l.results, l.answer, l.flushing = nil, nil, false
		l.propose(&fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: results}}}, func(r fsm.Reply) {
			for i, a := range r.Answers {
				if s := answer[i]; s != nil {
					l.core.Answered(s.node, a)
					seen := l.w.book.history.seen(results[i])
					s.down(func(c *client) {
						seen()
						c.answered(a)
					})
				}
			}
		})
	})
}

// hello handles the first message of a stream.
func (l *leader) hello(s *stream, h *wire.Hello) {
	w := l.w
	rec, err := l.core.Hello(h, w.snap())
	if err != nil {
		s.cut()
		return
	}
	l.heard[s.node] = w.now
	s.number = rec.Stream
	for _, old := range l.streams {
		if old.node == s.node {
			old.cut()
		}
	}
	l.streams = slices.DeleteFunc(l.streams, func(x *stream) bool { return x.node == s.node })
	l.streams = append(l.streams, s)
	s.down(func(c *client) { c.welcome(rec.Kill, rec.Start) })
	for _, x := range rec.Release {
		l.propose(&fsm.Command{Body: &fsm.Command_Release{Release: x}}, nil)
	}
}
