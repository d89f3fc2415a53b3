package server_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/e2e/port"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// patience bounds waiting for what takes milliseconds.
const patience = 60 * time.Second

// host is a server with its listeners, as an agent would wire it.
type host struct {
	*server.Server
	address string
	cancel  context.CancelFunc
	done    chan error
	once    sync.Once
	err     error
}

func (h *host) stop() error {
	h.once.Do(func() { h.cancel(); h.err = <-h.done })
	return h.err
}

// freeAddress is where a server may listen, and listen again when it comes back.
func freeAddress(t testing.TB) string {
	t.Helper()
	at, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at)
}

// startHost runs a lone server; dir may be empty. address is where it listens, or any.
func startHost(t testing.TB, dir, address string, with ...func(*server.Config)) *host {
	t.Helper()
	return startHostAs(t, nil, dir, address, with...)
}

// startHostAs is startHost with TLS, or with nil without.
func startHostAs(t testing.TB, keys *pki.Keys, dir, address string, with ...func(*server.Config)) *host {
	t.Helper()
	if address == "" {
		address = freeAddress(t)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	mux := wire.NewMux(l)
	if keys != nil {
		mux = wire.NewTLSMux(l, keys, func(net.Addr, error) {})
	}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("SHEAF_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	conf := server.Config{ID: "s1", Region: "test", DataDir: dir, Address: l.Addr().String(), Expect: 1, Raft: mux.Raft(), Logger: logger,
		Heartbeat: server.Heartbeat{Lease: patience}} // a machine that stalls loses no node
	for _, f := range with {
		f(&conf)
	}
	s, err := server.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(wire.ServerOptions()...)
	s.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	muxCtx, stopMux := context.WithCancel(context.Background())
	h := &host{Server: s, address: l.Addr().String(), cancel: cancel, done: make(chan error, 1)}
	muxed, served := make(chan error, 1), make(chan error, 1)
	go func() { muxed <- mux.Run(muxCtx) }()
	go func() { served <- g.Serve(mux.GRPC()) }()
	go func() {
		err := s.Run(ctx)
		g.Stop()
		stopMux()
		<-served
		h.done <- errors.Join(err, <-muxed)
	}()
	t.Cleanup(func() { h.stop() })
	select {
	case <-s.Ready():
	case err := <-h.done:
		t.Fatalf("the server ended: %v", err)
	case <-time.After(patience):
		t.Fatal("the server did not become ready")
	}
	return h
}

// work is one execution at a fake client.
type work struct {
	run                sheaf.RunID
	kind               wire.Kind
	generation         uint32
	partition, attempt uint32
}

// fake is a client that speaks the wire's protocol and runs nothing: what decides says
// how each execution ends, at once.
type fake struct {
	t       testing.TB
	id      string
	boot    string
	address string
	keys    *pki.Keys // nil in plain text
	// decide gives the outcome; 0 holds the execution for ever.
	decide func(work) sheaf.Outcome
	took   uint32 // ms, as it says of each; 0 is 1
	// serves is where its own service listens; empty is nowhere.
	serves string
	// manifests are what partitions leave, by partition; another's digest is made up.
	manifests map[uint32][]byte
	// conduct handles a split or merge.
	conduct func(f *fake, w work)
	// queues says which executions it has not begun, and gives back when it is asked; nil is none.
	queues func(work) bool
	// conducting counts calls of conduct under way. A run may be over before the
	// answer that says so has come back: a test waits for them before it ends.
	conducting sync.WaitGroup

	mu       sync.Mutex
	begun    map[work]int // how often each was assigned
	kills    map[work]bool
	given    map[work]bool // back
	answered map[wire.Verdict]int
	ended    map[sheaf.RunID]bool // true: deleted
	specs    map[sheaf.RunID]*wire.RunSpec
	session  uint64
	servers  wire.ServersClient

	cancel context.CancelFunc
	gone   chan struct{}
	out    chan<- *wire.FromClient
	events chan struct{} // of size 1
}

func succeed(work) sheaf.Outcome { return sheaf.OutcomeSucceeded }

func newFake(t testing.TB, h *host, id string, decide func(work) sheaf.Outcome) *fake {
	return &fake{t: t, id: id, boot: "boot-" + id, address: h.address, decide: decide, begun: map[work]int{}, kills: map[work]bool{}, given: map[work]bool{},
		answered: map[wire.Verdict]int{}, ended: map[sheaf.RunID]bool{}, specs: map[sheaf.RunID]*wire.RunSpec{}, events: make(chan struct{}, 1)}
}

// connect registers and opens a session that lists hello's executions.
func (f *fake) connect(hello *wire.Hello) *fake {
	f.t.Helper()
	conn, err := wire.Dialer{Keys: f.keys}.Server(f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.gone = cancel, make(chan struct{})
	f.servers = wire.NewServersClient(conn)
	node, err := json.Marshal(sheaf.Node{
		ID: sheaf.NodeID(f.id), Name: f.id, Region: "test", Datacenter: "dc1", Address: cmp.Or(f.serves, "127.0.0.1:1"),
		Resources: sheaf.Resources{CPU: 1000, Memory: 1 << 30, Disk: 1 << 30, Pids: 1000},
		Drivers:   []sheaf.NodeDriver{{Name: "mock", Healthy: true}}, Sources: []sheaf.NodeSource{{Scheme: "file", Root: "/", Shared: true}, {Scheme: "job", Shared: true}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	// Until the server has seen the end of an earlier stream, another start of the agent is refused as a copy.
	var resp *wire.RegisterResponse
	err = status.Error(codes.AlreadyExists, "not asked yet")
	for until := time.Now().Add(patience); status.Code(err) == codes.AlreadyExists && time.Now().Before(until); {
		resp, err = f.servers.Register(ctx, &wire.RegisterRequest{NodeJson: node, BootId: f.boot})
	}
	if err != nil {
		f.t.Fatalf("register %s: %v", f.id, err)
	}
	f.session = resp.Session
	st, err := f.servers.Session(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	if hello == nil {
		hello = &wire.Hello{}
	}
	hello.Node, hello.Session, hello.BootId = f.id, resp.Session, f.boot
	if err := st.Send(&wire.FromClient{Body: &wire.FromClient_Hello{Hello: hello}}); err != nil {
		f.t.Fatal(err)
	}
	first, err := st.Recv()
	if err != nil || first.GetWelcome() == nil {
		f.t.Fatalf("want a welcome first, got %v, %v", first, err)
	}
	f.note(func() {
		for _, e := range first.GetWelcome().Kill {
			f.each(e, func(w work) { f.kills[w] = true })
		}
	})
	out := make(chan *wire.FromClient, 4096)
	var senders sync.WaitGroup
	senders.Go(func() {
		pulse := time.NewTicker(2 * time.Second)
		defer pulse.Stop()
		for open := true; open; {
			m := &wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: &wire.Pulse{}}}
			select {
			case m, open = <-out:
			case <-pulse.C:
			}
			if open && st.Send(m) != nil {
				cancel()
			}
		}
	})
	out <- &wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: &wire.Pulse{Sequence: 1}}}
	f.out = out
	go func() {
		defer close(f.gone)
		defer conn.Close()
		defer senders.Wait()
		defer close(out)
		for {
			m, err := st.Recv()
			if err != nil {
				return
			}
			f.receive(m, out)
		}
	}()
	f.t.Cleanup(f.vanish)
	return f
}

// vanish ends the client without a word.
func (f *fake) vanish() {
	f.cancel()
	<-f.gone
}

func (f *fake) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.events <- struct{}{}:
	default:
	}
}

func (f *fake) each(e *wire.Executions, do func(work)) {
	for i, first := range e.First {
		for p := range e.Count[i] {
			do(work{sheaf.RunID(e.Run), e.Kind, e.Generation, first + p, e.Attempt[i]})
		}
	}
}

func (f *fake) receive(m *wire.FromServer, out chan<- *wire.FromClient) {
	switch b := m.Body.(type) {
	case *wire.FromServer_Run:
		f.note(func() { f.specs[sheaf.RunID(b.Run.Run)] = b.Run })
	case *wire.FromServer_Assign:
		r := &wire.Results{Run: b.Assign.Run, Generation: b.Assign.Generation, Kind: b.Assign.Kind, Node: f.id, Session: f.session}
		f.note(func() {
			if f.specs[sheaf.RunID(b.Assign.Run)] == nil {
				f.t.Errorf("%s was assigned work of a run it knows nothing of", f.id)
			}
			f.each(b.Assign, func(w work) {
				f.begun[w]++
				if w.kind != wire.Kind_KIND_PARTITION {
					if f.conduct != nil {
						f.conducting.Go(func() { f.conduct(f, w) })
					}
					return
				}
				if o := f.decide(w); o != 0 {
					add(r, w, o)
					r.DurationMs[len(r.DurationMs)-1] = max(f.took, 1)
					if m, ok := f.manifests[w.partition]; ok {
						digest := sha256.Sum256(m)
						copy(r.Digest[len(r.Digest)-len(digest):], digest[:])
					}
				}
			})
		})
		if len(r.Partition) > 0 {
			out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: r}}
		}
	case *wire.FromServer_Kill:
		f.note(func() { f.each(b.Kill, func(w work) { f.kills[w] = true }) })
	case *wire.FromServer_TakeBack:
		back := &wire.Executions{Run: b.TakeBack.Run, Generation: b.TakeBack.Generation}
		f.note(func() {
			for w := range f.begun {
				if f.queues != nil && f.queues(w) && string(w.run) == b.TakeBack.Run && !f.given[w] && len(back.First) < int(b.TakeBack.Most) {
					f.given[w] = true
					back.First, back.Count, back.Attempt = append(back.First, w.partition), append(back.Count, 1), append(back.Attempt, w.attempt)
				}
			}
		})
		out <- &wire.FromClient{Body: &wire.FromClient_TakenBack{TakenBack: &wire.TakenBack{Id: b.TakeBack.Id, Dropped: back}}}
	case *wire.FromServer_Answers:
		f.note(func() {
			for _, v := range b.Answers.Verdict {
				f.answered[wire.Verdict(v)]++
			}
		})
	case *wire.FromServer_End:
		f.note(func() { f.ended[sheaf.RunID(b.End.Run)] = b.End.Delete })
	case *wire.FromServer_Lease:
		f.note(func() {})
	}
}

// add appends a result to the columns.
func add(r *wire.Results, w work, o sheaf.Outcome) {
	r.Partition = append(r.Partition, w.partition)
	r.Attempt = append(r.Attempt, w.attempt)
	r.Outcome = append(r.Outcome, byte(o))
	kind, code := sheaf.FailNone, int32(0)
	if o == sheaf.OutcomeFailed {
		kind, code = sheaf.FailExit, 7
		r.Text = append(r.Text, &wire.Text{Item: uint32(len(r.Partition) - 1), Message: "exit code 7", Stderr: "it broke"})
	}
	r.Failure = append(r.Failure, byte(kind))
	r.ExitCode = append(r.ExitCode, code)
	r.StartedMs = append(r.StartedMs, 1)
	r.DurationMs = append(r.DurationMs, 1)
	r.CpuMs = append(r.CpuMs, 1)
	r.PeakMemoryKib = append(r.PeakMemoryKib, 1)
	digest := [32]byte{byte(w.partition), byte(w.partition >> 8), byte(w.attempt)}
	r.Digest = append(r.Digest, digest[:]...)
}

// await waits until ok holds of the fake.
func (f *fake) await(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		good := ok()
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-f.events:
		case <-deadline:
			f.t.Fatalf("%s: %s did not come to it; answers %v", what, f.id, f.answered)
		}
	}
}

func job(change ...func(*sheaf.Job)) sheaf.Job {
	j := sheaf.Job{
		Name: "test", Type: sheaf.JobBatch, Namespace: "default", Datacenters: []string{"*"}, Priority: 50, Count: 1, Isolation: sheaf.IsolationPartition,
		Task:  sheaf.Task{Name: "t", Driver: "mock", Resources: sheaf.Resources{CPU: 100, Memory: 1 << 20, Disk: 1 << 20, Pids: 10}},
		Retry: sheaf.Retry{Attempts: 3, Backoff: sheaf.BackoffConstant, OtherNode: true},
	}
	for _, c := range change {
		c(&j)
	}
	return j
}

func count(n int) func(*sheaf.Job) { return func(j *sheaf.Job) { j.Count = n } }

func (h *host) submit(t testing.TB, id sheaf.RunID, j sheaf.Job) {
	t.Helper()
	got, err := h.Submit(t.Context(), id, j)
	if err != nil || !got.Created || got.Run.ID != id {
		t.Fatalf("submit %s: %+v, %v", id, got, err)
	}
}

// awaitRun waits until ok holds of a run.
func (h *host) awaitRun(t testing.TB, id sheaf.RunID, what string, ok func(*state.Run) bool) *state.Run {
	t.Helper()
	deadline := time.After(patience)
	for {
		r, changed := h.Snapshot().WatchRun(id)
		if r != nil && ok(r) {
			return r
		}
		select {
		case <-changed:
		case <-deadline:
			why, _ := h.Explain(id, -1)
			t.Fatalf("%s: run %s is %+v\n%+v", what, id, r.Stub(), why)
		}
	}
}

func (h *host) awaitStatus(t testing.TB, id sheaf.RunID, status sheaf.RunStatus) *state.Run {
	t.Helper()
	r := h.awaitRun(t, id, "the run ends", func(r *state.Run) bool { return r.Status.Terminal() })
	if r.Status != status {
		t.Fatalf("run %s is %s (%s), want %s", id, r.Status, r.Error, status)
	}
	return r
}

// tempDir is a data directory with a name of its own.
func tempDir(t testing.TB) string { return filepath.Join(t.TempDir(), "data") }
