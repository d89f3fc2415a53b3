// Package dispatch is the leader's side of the nodes' sessions, without their
// streams: which executions wait to be sent to which node, what was delivered to which start of a
// client, which work is being taken back, and what both sides have to do when
// a stream begins. It has no clock and no network; package rpc is its shell. A Core
// lives for one term and belongs to one goroutine at a time.
//
// No attempt is ever sent twice: it leaves the queue when it is sent, and
// what became of it after that is the client's to say.
package dispatch

import (
	"fmt"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Core is the book of one term.
type Core struct {
	nodes   map[sheaf.NodeID]*book
	streams uint64 // begun in this term
}

// New makes the book of a term that begins.
func New() *Core { return &Core{nodes: map[sheaf.NodeID]*book{}} }

// book is what is known of one node.
type book struct {
	id      sheaf.NodeID
	open    bool // a stream is open, under session
	session uint64
	stream  uint64             // number of the newest stream in this term
	queue   []*wire.Executions // placed in this term and never sent, in order
	waiting int                // executions in queue
	sent    map[string]*sentRun
	asked   map[string]uint64 // runs with a TakeBack unanswered on this stream, and its ID
	lastAsk uint64
}

// sentRun is what of one run is at the node, unanswered.
type sentRun struct {
	items map[item]struct{}
	// as the run was when items were last compared with it
	generation uint32
	backups    bool
}

// item is an execution of a run.
type item struct {
	kind      wire.Kind
	partition uint32
	attempt   uint32
}

func (c *Core) book(id sheaf.NodeID) *book {
	b := c.nodes[id]
	if b == nil {
		b = &book{id: id, sent: map[string]*sentRun{}, asked: map[string]uint64{}}
		c.nodes[id] = b
	}
	return b
}

// Placed takes note of what a plan placed on a node: it waits to be sent.
// Call it for each fsm.Placed with Executions, in the order of the log.
func (c *Core) Placed(node sheaf.NodeID, e *wire.Executions) {
	b := c.book(node)
	b.queue = append(b.queue, e)
	b.waiting += count(e)
}

// Closed ends a stream of the node, if it is the one open: an older one may
// end after its successor has begun.
func (c *Core) Closed(node sheaf.NodeID, stream uint64) {
	if b := c.nodes[node]; b != nil && b.stream == stream {
		b.open = false
	}
}

// Outdated reports whether the node's open stream is of a session that is not
// the registered one any more: a registration that was repeated, or late, has raised it.
// The stream must be closed, or its results are answered "resend" for ever.
func (c *Core) Outdated(node sheaf.NodeID, snap *state.Snapshot) bool {
	b, n := c.nodes[node], snap.Node(node)
	return b != nil && b.open && (n == nil || n.Session != b.session)
}

// Lost forgets a node that was declared lost: nothing of it is valid any more.
func (c *Core) Lost(node sheaf.NodeID) { delete(c.nodes, node) }

// Waiting is how many executions wait to be sent to a node.
func (c *Core) Waiting(node sheaf.NodeID) int {
	if b := c.nodes[node]; b != nil {
		return b.waiting
	}
	return 0
}

// Delivered is how many executions are at a node, as far as is known.
func (c *Core) Delivered(node sheaf.NodeID) int {
	n := 0
	if b := c.nodes[node]; b != nil {
		for _, s := range b.sent {
			n += len(s.items)
		}
	}
	return n
}

// Next takes at most limit executions of the node's queue, those that are still
// valid in snap, to be sent as Assign; from then on they count as delivered. The
// answer is nil while the node has no open stream, or one of an old session. The snapshot must be newer than every plan that
// Placed was told of.
func (c *Core) Next(node sheaf.NodeID, limit int, snap *state.Snapshot) []*wire.Executions {
	b := c.nodes[node]
	n := snap.Node(node)
	if b == nil || !b.open || n == nil || n.Session != b.session {
		return nil
	}
	var out []*wire.Executions
	for len(b.queue) > 0 && limit > 0 {
		e := b.queue[0]
		b.queue = b.queue[1:]
		head, rest := cut(e, limit)
		if rest != nil {
			b.queue = append([]*wire.Executions{rest}, b.queue...)
		}
		b.waiting -= count(head)
		r := snap.Run(sheaf.RunID(head.Run))
		if r == nil {
			continue
		}
		valid := like(head)
		each(head, func(x item) {
			if snap.Valid(r, x.kind, int(x.partition), x.attempt, n.Number) {
				state.AppendExecution(valid, int(x.partition), x.attempt)
				b.note(head.Run, x)
			}
		})
		if len(valid.First) > 0 {
			if r.Backups > 0 {
				b.sent[head.Run].backups = true
			}
			limit -= count(valid)
			out = append(out, valid)
		}
	}
	return out
}

// Withdraw takes back at most `most` executions of a run that wait to be sent
// to a node, the last placed first. Its commands free them; no client need be asked.
func (c *Core) Withdraw(node sheaf.NodeID, run sheaf.RunID, session uint64, most int) []*fsm.Release {
	b := c.nodes[node]
	if b == nil {
		return nil
	}
	var free []*wire.Executions
	for i := len(b.queue) - 1; i >= 0 && most > 0; i-- {
		e := b.queue[i]
		if e.Run != string(run) || e.Kind != wire.Kind_KIND_PARTITION {
			continue
		}
		keep, taken := cut(e, max(count(e)-most, 0))
		if taken == nil {
			continue
		}
		if count(keep) == 0 {
			b.queue = append(b.queue[:i:i], b.queue[i+1:]...)
		} else {
			b.queue[i] = keep
		}
		most -= count(taken)
		b.waiting -= count(taken)
		free = append(free, taken)
	}
	return releases(node, session, free, nil, false)
}

// TakeBack asks the node for queued executions of a run, at most most. It
// is nil when the node has no open stream or is being asked already for that run.
func (c *Core) TakeBack(node sheaf.NodeID, run sheaf.RunID, generation uint32, most uint32) *wire.TakeBack {
	b := c.nodes[node]
	if b == nil || !b.open || most == 0 || b.asked[string(run)] != 0 {
		return nil
	}
	b.lastAsk++
	b.asked[string(run)] = b.lastAsk
	return &wire.TakeBack{Id: b.lastAsk, Run: string(run), Generation: generation, Most: most}
}

// TakenBack handles the client's confirmation. Its commands free what was
// dropped; none if that is nothing, or the answer is to no question of this stream.
func (c *Core) TakenBack(node sheaf.NodeID, t *wire.TakenBack) []*fsm.Release {
	b := c.nodes[node]
	if b == nil || !b.open || t.Dropped == nil || t.Id == 0 || b.asked[t.Dropped.Run] != t.Id {
		return nil
	}
	delete(b.asked, t.Dropped.Run)
	each(t.Dropped, func(x item) { b.drop(t.Dropped.Run, x) })
	if count(t.Dropped) == 0 {
		return nil
	}
	return releases(node, b.session, []*wire.Executions{t.Dropped}, nil, false)
}

// Answered takes note that the client is told the verdicts on results: what
// they name is at the node no longer, but for what it sends again.
func (c *Core) Answered(node sheaf.NodeID, a *wire.Answers) {
	b := c.nodes[node]
	if b == nil {
		return
	}
	for i, v := range a.Verdict {
		if v != byte(wire.Verdict_VERDICT_RESEND) && v != byte(wire.Verdict_VERDICT_UNKNOWN) {
			b.drop(a.Run, item{a.Kind, a.Partition[i], a.Attempt[i]})
		}
	}
}

// note adds x to what is at the node.
func (b *book) note(run string, x item) {
	s := b.sent[run]
	if s == nil {
		s = &sentRun{items: map[item]struct{}{}}
		b.sent[run] = s
	}
	s.items[x] = struct{}{}
}

func (b *book) drop(run string, x item) bool {
	s := b.sent[run]
	if s == nil {
		return false
	}
	_, had := s.items[x]
	delete(s.items, x)
	if len(s.items) == 0 {
		delete(b.sent, run)
	}
	return had
}

// wrongSession is the error of a Hello that the log has gone past.
func wrongSession(h *wire.Hello, is uint64) error {
	return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("session %d of node %s is not the one that is registered, %d", h.Session, h.Node, is), Hint: "register again"}
}
