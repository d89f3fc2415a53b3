package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// helloTimeout is how long a stream may be open before it says who it is.
	helloTimeout = 10 * time.Second
	// assignAtOnce is how many executions are taken from a node's queue at a
	// time: what is taken counts as delivered, so not far more than a send's worth.
	assignAtOnce = 8192
	// maxUntold is how many answers and notices wait for a slow reader before
	// its own messages wait too.
	maxUntold = 1024
)

// session is one node's stream.
type session struct {
	hub    *Hub
	node   sheaf.NodeID
	number uint64
	boot   string
	cancel context.CancelCauseFunc
	over   chan struct{} // closed by Hub.finish

	open   bool   // guarded by Hub.mu: reconciled, may be told things
	stream uint64 // guarded by Hub.mu: its name in the core; 0 before Hello

	mu    sync.Mutex
	out   []*wire.FromServer // answers and notices, in order
	lease *wire.Lease        // only the newest is of use
	work  bool               // look for executions to begin
	kills bool               // look for executions to end
	ended map[sheaf.RunID]bool
	anew  map[sheaf.RunID]bool // their RunSpec has changed
	woken chan struct{}        // of size 1
	room  chan struct{}        // of size 1: out has been taken

	// handling is held while a message is handled; serve takes it last, so that
	// nothing is handled once the session is over.
	handling sync.Mutex

	// Of the sender alone: the generation and priority of the RunSpec that was sent, and
	// the runs that the client has anything of.
	specs map[sheaf.RunID]version
	known map[sheaf.RunID]bool
}

// version tells one RunSpec of a run from the next.
type version struct {
	generation uint32
	priority   int
}

// stream is what a session needs of gRPC.
type stream interface {
	Context() context.Context
	Send(*wire.FromServer) error
	Recv() (*wire.FromClient, error)
}

// Serve handles a node's stream until it, or the term, ends.
func (h *Hub) Serve(st stream) error {
	ctx, cancel := context.WithCancelCause(st.Context())
	defer cancel(nil)
	hello, err := awaitHello(ctx, cancel, st)
	if err != nil {
		return err
	}
	if err := speaksFor(ctx, h.Snapshot(), sheaf.NodeID(hello.Node)); err != nil {
		return err
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return errTermOver
	}
	h.serving.Add(1)
	h.mu.Unlock()
	defer h.serving.Done()

	s := &session{
		hub: h, node: sheaf.NodeID(hello.Node), number: hello.Session, boot: hello.BootId, cancel: cancel, over: make(chan struct{}), work: true,
		woken: make(chan struct{}, 1), room: make(chan struct{}, 1), specs: map[sheaf.RunID]version{}, known: map[sheaf.RunID]bool{}, ended: map[sheaf.RunID]bool{}, anew: map[sheaf.RunID]bool{},
	}
	if err := h.begin(ctx, s); err != nil {
		return err
	}
	defer h.finish(s)
	err = s.serve(ctx, st, hello)
	h.Observer.Connected(s.node, false)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// awaitHello receives the first message, in bounded time.
func awaitHello(ctx context.Context, cancel context.CancelCauseFunc, st stream) (*wire.Hello, error) {
	late := &sheaf.Error{Class: sheaf.Invalid, Msg: "the session did not say hello", Limit: helloTimeout.String()}
	timer := time.AfterFunc(helloTimeout, func() { cancel(late) })
	defer timer.Stop()
	type first struct {
		m   *wire.FromClient
		err error
	}
	got := make(chan first, 1) // the receiver ends with the stream at the latest
	go func() {
		m, err := st.Recv()
		got <- first{m, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case f := <-got:
		if f.err != nil {
			return nil, f.err
		}
		if h := f.m.GetHello(); h != nil {
			return h, nil
		}
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: "a session begins with hello"}
	}
}

// serve reconciles, then sends and receives until either fails.
func (s *session) serve(ctx context.Context, st stream, hello *wire.Hello) error {
	h := s.hub
	asked := time.Now()
	if err := h.verify.verified(ctx); err != nil {
		return err
	}
	if err := h.barrier.verified(ctx); err != nil {
		return err
	}
	snap := h.Snapshot()
	h.mu.Lock()
	rec, err := h.core.Hello(hello, snap)
	s.stream = rec.Stream
	h.mu.Unlock()
	if err != nil {
		return status.Error(codes.Aborted, err.Error())
	}
	h.Renew(s.node, asked)
	if err := st.Send(&wire.FromServer{Body: &wire.FromServer_Welcome{Welcome: &wire.Welcome{
		Term: h.Term, LeaseMs: uint32(h.Lease.Milliseconds()), Kill: rec.Kill, Start: rec.Start,
		DataKey: h.tokens.Public(), TimeMs: h.NowMs(),
	}}}); err != nil {
		return err
	}
	for _, r := range rec.Release {
		if _, err := h.apply(ctx, &fsm.Command{Body: &fsm.Command_Release{Release: r}}); err != nil {
			return fmt.Errorf("reconcile with node %s: %w", s.node, err)
		}
	}
	if err := s.catchUp(st, hello, rec.Start); err != nil {
		return err
	}
	h.mu.Lock()
	s.open = true
	h.mu.Unlock()
	h.Observer.Connected(s.node, true)

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := s.send(ctx, st); err != nil {
			s.end(err)
		}
	}()
	received := make(chan error, 1) // the receiver ends with the stream, after the handler returned
	go func() { received <- s.receive(ctx, st) }()
	select {
	case err = <-received:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.end(err)
	<-sent
	s.handling.Lock()
	defer s.handling.Unlock()
	return err
}

// end ends the session. The first cause counts.
func (s *session) end(cause error) {
	if cause == nil {
		cause = io.EOF
	}
	s.cancel(cause)
}

// catchUp tells what happened to runs that the client knows while it was away.
func (s *session) catchUp(st stream, hello *wire.Hello, start []*wire.Executions) error {
	snap := s.hub.Snapshot()
	for _, list := range [][]*wire.Executions{start, hello.Executing} {
		for _, e := range list {
			if err := s.sendSpec(st, snap, sheaf.RunID(e.Run)); err != nil {
				return err
			}
		}
	}
	for _, list := range [][]*wire.Executions{hello.Queued, hello.Executing, hello.Finished} {
		for _, e := range list {
			s.known[sheaf.RunID(e.Run)] = true
			if r := snap.Run(sheaf.RunID(e.Run)); r == nil || r.Status.Terminal() {
				s.runOver(sheaf.RunID(e.Run))
			}
		}
	}
	// What was deleted while the node was away, however long that was: all that
	// it keeps and the log does not know.
	for _, run := range hello.Kept {
		if snap.Run(sheaf.RunID(run)) == nil {
			end := &wire.RunEnd{Run: run, Delete: true}
			if stone := snap.Tombstone(sheaf.RunID(run)); stone != nil {
				end.Unpublished = stone.Unpublished
			}
			s.tell(&wire.FromServer{Body: &wire.FromServer_End{End: end}})
		}
	}
	return nil
}

// tell queues a message for the sender.
func (s *session) tell(m *wire.FromServer) {
	s.mu.Lock()
	s.out = append(s.out, m)
	s.mu.Unlock()
	s.wake()
}

// checkWork has the sender look for what was placed.
func (s *session) checkWork() {
	s.mu.Lock()
	s.work = true
	s.mu.Unlock()
	s.wake()
}

func (s *session) checkKills() {
	s.mu.Lock()
	s.kills = true
	s.mu.Unlock()
	s.wake()
}

// runOver has the sender say that a run is over, if it said anything of it.
func (s *session) runOver(run sheaf.RunID) {
	s.mu.Lock()
	s.ended[run] = true
	s.kills = true
	s.mu.Unlock()
	s.wake()
}

// respec has the sender tell what of a run's RunSpec has changed, if it told it.
func (s *session) respec(run sheaf.RunID) {
	s.mu.Lock()
	s.anew[run] = true
	s.mu.Unlock()
	s.wake()
}

func (s *session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// waitForRoom keeps a client from sending faster than it reads.
func (s *session) waitForRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		n := len(s.out)
		s.mu.Unlock()
		if n < maxUntold {
			return nil
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send is the stream's only sender from the reconciliation on.
func (s *session) send(ctx context.Context, st stream) error {
	for {
		s.mu.Lock()
		out, lease, work, kills := s.out, s.lease, s.work, s.kills
		s.out, s.lease, s.work, s.kills = nil, nil, false, false
		var ended []sheaf.RunID
		for run := range s.ended {
			ended = append(ended, run)
		}
		clear(s.ended)
		anew := s.anew
		s.anew = map[sheaf.RunID]bool{}
		s.mu.Unlock()
		select {
		case s.room <- struct{}{}:
		default:
		}
		for run := range anew {
			if _, told := s.specs[run]; told {
				if err := s.sendSpec(st, s.hub.Snapshot(), run); err != nil {
					return err
				}
			}
		}
		if kills {
			if err := s.sendKills(st); err != nil {
				return err
			}
		}
		if work {
			if err := s.sendWork(st); err != nil {
				return err
			}
		}
		for _, m := range out {
			if err := st.Send(m); err != nil {
				return err
			}
		}
		if lease != nil {
			if err := st.Send(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: lease}}); err != nil {
				return err
			}
		}
		for _, run := range ended {
			if !s.known[run] {
				continue
			}
			delete(s.specs, run)
			delete(s.known, run)
			if err := st.Send(&wire.FromServer{Body: &wire.FromServer_End{End: &wire.RunEnd{Run: string(run)}}}); err != nil {
				return err
			}
		}
		select {
		case <-s.woken:
		case <-ctx.Done():
			return nil
		}
	}
}

// sendKills sends what is to be ended.
func (s *session) sendKills(st stream) error {
	h := s.hub
	h.mu.Lock()
	snap := h.Snapshot()
	list := h.core.Kills(s.node, snap)
	h.mu.Unlock()
	for _, e := range list {
		if err := st.Send(&wire.FromServer{Body: &wire.FromServer_Kill{Kill: e}}); err != nil {
			return err
		}
	}
	return nil
}

// sendWork sends what is to be begun.
func (s *session) sendWork(st stream) error {
	h := s.hub
	for {
		h.mu.Lock()
		snap := h.Snapshot()
		work := h.core.Next(s.node, assignAtOnce, snap)
		h.mu.Unlock()
		if len(work) == 0 {
			return nil
		}
		for _, e := range work {
			if err := s.sendSpec(st, snap, sheaf.RunID(e.Run)); err != nil {
				return err
			}
			if err := st.Send(&wire.FromServer{Body: &wire.FromServer_Assign{Assign: e}}); err != nil {
				return err
			}
		}
	}
}

// sendSpec sends a run's RunSpec unless this stream has had it.
func (s *session) sendSpec(st stream, snap *state.Snapshot, run sheaf.RunID) error {
	r := snap.Run(run)
	if r == nil {
		return nil
	}
	is := version{r.Generation, r.Priority()}
	if s.specs[run] == is {
		return nil
	}
	s.known[run] = true
	spec := &wire.RunSpec{
		Run: string(run), Generation: r.Generation, JobJson: r.SpecJSON(), Partitions: uint32(r.Counts().Total), ImageDigest: r.Image, Priority: uint32(r.Priority()),
		ReduceDigest: r.Reduce.Image,
	}
	if r.Manifest.Sealed {
		spec.SplitAttempt, spec.ManifestDigest = r.Manifest.Attempt, r.Manifest.Root[:]
		s.specs[run] = is
	} else if !r.Job.Splits() {
		s.specs[run] = is
	} // else the split goes by this spec; the partitions get another that names the manifest
	return st.Send(&wire.FromServer{Body: &wire.FromServer_Run{Run: spec}})
}
