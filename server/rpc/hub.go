// Package rpc is the gRPC service that clients use: registration, the session that carries
// assignments down and results up, and the streams of manifests and outputs. Its
// sessions are the shell around package dispatch: they own goroutines, buffers and
// order on the wire, and decide nothing. A Hub holds those of one term; when the
// term ends they all do.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/dispatch"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Observer hears what clients report. Its methods must be quick; they may be
// called concurrently.
type Observer interface {
	// Started says that executions have begun on a node.
	Started(node sheaf.NodeID, e *wire.Executions)
	// Ended gives results and the verdicts on them.
	Ended(r *wire.Results, a *wire.Answers)
	// Pulse gives a node's own view of its rate and capacity.
	Pulse(node sheaf.NodeID, p *wire.Pulse)
	// Connected says that a node's session has begun or ended.
	Connected(node sheaf.NodeID, connected bool)
	// Fetched says what a node has copied of what it was told to fetch.
	Fetched(node sheaf.NodeID, f *wire.Fetched)
	// Lacking says that a node does not have committed outputs any more.
	Lacking(node sheaf.NodeID, l *wire.Lacking)
	// Deleted says that a node keeps nothing more of runs that were deleted.
	Deleted(node sheaf.NodeID, runs []string)
	// Crowded says that a node's disk is too full, and what runs keep there.
	Crowded(node sheaf.NodeID, c *wire.Crowded)
}

// HubConfig is what a term offers its sessions.
type HubConfig struct {
	Term     uint64
	Lease    time.Duration // granted at a time
	Log      Applier
	Snapshot func() *state.Snapshot
	// Verify returns once a quorum confirmed that this server leads; Barrier
	// once everything committed before is in Snapshot.
	Verify  func(context.Context) error
	Barrier func(context.Context) error
	// Renew notes that a node was heard of at a time and granted a lease.
	Renew    func(node sheaf.NodeID, at time.Time)
	Observer Observer
	Logger   *slog.Logger
	// NowMs is cluster time.
	NowMs func() int64
}

// Hub is the sessions of one term.
type Hub struct {
	HubConfig
	results *collector
	verify  *verifier
	barrier *verifier
	tokens  *datatoken.Signer // of this term

	mu       sync.Mutex
	core     *dispatch.Core
	sessions map[sheaf.NodeID]*session // open or opening, the newest of each node
	closed   bool                      // the term is over
	serving  sync.WaitGroup            // sessions
}

// errTermOver ends sessions when the server steps down.
var errTermOver = &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server no longer leads", Hint: "connect again"}

// errReplaced ends a session when the node opens another.
var errReplaced = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the node has opened another session"}

// NewHub makes the hub of a term that begins.
func NewHub(c HubConfig) *Hub {
	h := &Hub{HubConfig: c, core: dispatch.New(), sessions: map[sheaf.NodeID]*session{}, tokens: datatoken.NewSigner()}
	h.results = newCollector(c.Log, c.Observer.Ended, h.answered)
	h.verify, h.barrier = newVerifier("confirm the leadership", c.Verify), newVerifier("wait for what is committed", c.Barrier)
	return h
}

// Run commits results and confirms leases until ctx ends, then closes all
// sessions and waits for them.
func (h *Hub) Run(ctx context.Context) error {
	var asking sync.WaitGroup
	asking.Go(func() { h.verify.run(ctx) })
	asking.Go(func() { h.barrier.run(ctx) })
	err := h.results.run(ctx)
	h.mu.Lock()
	h.closed = true
	for _, s := range h.sessions {
		s.end(errTermOver)
	}
	h.mu.Unlock()
	h.serving.Wait()
	asking.Wait()
	return err
}

// Placed hands over what a plan placed; call it in the order of the log.
func (h *Hub) Placed(node sheaf.NodeID, e *wire.Executions) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core.Placed(node, e)
	if s := h.sessions[node]; s != nil {
		s.checkWork()
	}
}

// answered takes note of the verdicts on results of many clients and tells each its own. The book is opened once
// for all: a thousand senders want it, and each opening may wait behind all of them.
func (h *Hub) answered(batch []piece, answers []*wire.Answers) {
	h.mu.Lock()
	for i, p := range batch {
		if h.sessions[p.to.node] == p.to {
			h.core.Answered(p.to.node, answers[i])
		}
	}
	h.mu.Unlock()
	for i, p := range batch {
		p.to.tell(&wire.FromServer{Body: &wire.FromServer_Answers{Answers: answers[i]}})
	}
}

// Lost forgets a node that was declared lost. Should it still be there, it registers anew.
func (h *Hub) Lost(node sheaf.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core.Lost(node)
	if s := h.sessions[node]; s != nil {
		s.end(&sheaf.Error{Class: sheaf.Unavailable, Msg: "the node was declared lost", Hint: "register again"})
	}
}

// Outdate ends a node's session if a registration has raised the node's
// number since: all it reported would be answered "resend" for ever.
func (h *Hub) Outdate(node sheaf.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[node]; s != nil && h.core.Outdated(node, h.Snapshot()) {
		s.end(errReplaced)
	}
}

// taken reports whether another start of the node's agent has its session open.
// One that has just been killed may for a moment, or until its silence is noticed.
func (h *Hub) taken(node sheaf.NodeID, boot string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[node]
	return s != nil && s.open && s.boot != boot
}

// CheckKills has every session look for executions that are not valid any more.
func (h *Hub) CheckKills() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		s.checkKills()
	}
}

// Paired says that second attempts of a run were placed. One of a pair may be over already.
func (h *Hub) Paired(run sheaf.RunID) {
	h.mu.Lock()
	h.core.Paired(run)
	h.mu.Unlock()
	h.CheckKills()
}

// RunOver tells the nodes that were given the run that no more of it comes.
func (h *Hub) RunOver(run sheaf.RunID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		s.runOver(run)
	}
}

// Connected reports whether a node's session is open.
func (h *Hub) Connected(node sheaf.NodeID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[node]
	return s != nil && s.open
}

// DeleteOutputs tells a node to delete what it keeps of a run, and what merges of it left below a URL
// unpublished, where that is not empty and the node can write there. It reports
// whether the node has a session to be told on.
func (h *Hub) DeleteOutputs(node sheaf.NodeID, run sheaf.RunID, unpublished string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[node]
	if s == nil || !s.open {
		return false
	}
	s.tell(&wire.FromServer{Body: &wire.FromServer_End{End: &wire.RunEnd{Run: string(run), Delete: true, Unpublished: unpublished}}})
	return true
}

// Fetch tells a node to copy outputs from another, with a token to read them. It
// reports whether the node has a session to be told on.
func (h *Hub) Fetch(node, from *sheaf.Node, f *wire.Fetch) bool {
	f.From, f.Address = string(from.ID), from.Address
	f.Token = h.token(node, sheaf.RunID(f.Outputs.Run), f.Outputs)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[node.ID]
	if s == nil || !s.open {
		return false
	}
	s.tell(&wire.FromServer{Body: &wire.FromServer_Fetch{Fetch: f}})
	return true
}

// token lets a node read outputs of a run from others; nil outputs are all.
func (h *Hub) token(holder *sheaf.Node, run sheaf.RunID, outputs *wire.Executions) []byte {
	return h.tokens.Sign(&wire.DataClaims{
		Run: string(run), Holder: string(holder.ID), HolderName: holder.Name, Outputs: outputs,
		ExpiresMs: h.NowMs() + datatoken.Lifetime.Milliseconds(),
	})
}

// Free ends all that is assigned to a node, at no cost to it, and has the node end it.
func (h *Hub) Free(ctx context.Context, node sheaf.NodeID) error {
	snap := h.Snapshot()
	n := snap.Node(node)
	if n == nil {
		return nil
	}
	var free []*wire.Executions
	for r := range snap.LiveRuns() {
		free = append(free, snap.ValidOn(r, n.Number)...)
	}
	return h.free(ctx, n, free)
}

// GiveUp ends second attempts of a run, by partition, at no cost to it, and has the node end them.
func (h *Hub) GiveUp(ctx context.Context, run sheaf.RunID, node sheaf.NodeID, seconds []*state.Backup) error {
	snap := h.Snapshot()
	r, n := snap.Run(run), snap.Node(node)
	if r == nil || n == nil {
		return nil
	}
	e := &wire.Executions{Run: string(run), Generation: r.Generation, Kind: wire.Kind_KIND_PARTITION}
	for _, b := range seconds {
		state.AppendExecution(e, int(b.Partition), b.Attempt)
	}
	return h.free(ctx, n, []*wire.Executions{e})
}

func (h *Hub) free(ctx context.Context, n *state.Node, free []*wire.Executions) error {
	node := n.ID
	for _, c := range dispatch.Free(node, n.Session, free) {
		reply, err := h.apply(ctx, &fsm.Command{Body: &fsm.Command_Release{Release: c}})
		if err != nil {
			return fmt.Errorf("end what runs on node %s: %w", node, err)
		}
		h.mu.Lock()
		kills := h.core.Ended(node, reply.Ended)
		s := h.sessions[node]
		h.mu.Unlock()
		for _, e := range kills {
			if s != nil {
				s.tell(&wire.FromServer{Body: &wire.FromServer_Kill{Kill: e}})
			}
		}
	}
	return nil
}

// Ping has a node that gossip holds for dead show itself: a broken stream ends at the next write.
func (h *Hub) Ping(node sheaf.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[node]; s != nil && s.open {
		s.tell(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: &wire.Lease{LeaseMs: uint32(h.Lease.Milliseconds())}}})
	}
}

// begin makes s the node's session and waits until the one before is over, so
// that nothing of it is handled after the Hello.
func (h *Hub) begin(ctx context.Context, s *session) error {
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return errTermOver
		}
		old := h.sessions[s.node]
		if old == nil {
			h.sessions[s.node] = s
			h.mu.Unlock()
			return nil
		}
		h.mu.Unlock()
		old.end(errReplaced)
		select {
		case <-old.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish takes s out. Whoever waits for its node goes on.
func (h *Hub) finish(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core.Closed(s.node, s.stream)
	if h.sessions[s.node] == s {
		delete(h.sessions, s.node)
	}
	close(s.over)
}

// apply applies a command of a session and gives what it was refused for as the error.
func (h *Hub) apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	reply, err := h.Log.Apply(ctx, c)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	return reply, err
}

// verifier answers many sessions that ask the same of the quorum, as a thousand do when a leader is new, with one question.
type verifier struct {
	what string
	ask  func(context.Context) error
	asks chan chan error
}

// verifying is how many sessions may wait to join the next question.
const verifying = 256

func newVerifier(what string, ask func(context.Context) error) *verifier {
	return &verifier{what: what, ask: ask, asks: make(chan chan error, verifying)}
}

func (v *verifier) run(ctx context.Context) {
	for {
		var waiting []chan error
		select {
		case <-ctx.Done():
			return
		case c := <-v.asks:
			waiting = append(waiting, c)
		}
		for more := true; more; {
			select {
			case c := <-v.asks:
				waiting = append(waiting, c)
			default:
				more = false
			}
		}
		err := v.ask(ctx)
		for _, c := range waiting {
			c <- err
		}
	}
}

// verified returns once a question that was put after the call is answered.
func (v *verifier) verified(ctx context.Context) error {
	c := make(chan error, 1)
	select {
	case v.asks <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c:
		if err != nil {
			return fmt.Errorf("%s: %w", v.what, err)
		}
		return nil
	case <-ctx.Done():
		return errors.Join(errTermOver, ctx.Err())
	}
}
