package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/drivers/mock"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "plugin" {
		switch name := os.Args[2]; name {
		case "spy", "deaf":
			plugin.Serve(name, &spy{name: name})
		default:
			plugin.Serve("mock", mock.New())
		}
		return
	}
	leaktest.Main(m)
}

// patience is how long something that must happen is waited for before a test
// fails: far longer than it takes, also where each directory's removal waits for a disk.
const patience = 4 * time.Minute

// leader is a server that leads, as far as a client can tell: it keeps what
// comes and answers results itself.
type leader struct {
	wire.UnimplementedServersServer
	t       testing.TB
	address string

	mu       sync.Mutex
	change   chan struct{} // closed and renewed at every change
	session  uint64
	streams  int
	stream   wire.Servers_SessionServer
	cut      context.CancelFunc
	hello    *wire.Hello
	results  map[string]*result // by ExecutionID, or run.kind.attempt
	repeats  int                // results that came more than once
	taken    []*wire.TakenBack
	running  int
	prepared []*wire.PrepareResult
	pulse    *wire.Pulse
	// Settings.
	leaseMs    uint32
	silent     bool // results and pulses are not answered
	verdict    wire.Verdict
	verdicts   map[string]wire.Verdict // by ExecutionID, before verdict
	count      bool                    // results are counted and not kept
	counted    int
	chunks     []*wire.ManifestChunk
	seal       *wire.ManifestSeal
	sealed     *wire.SealResultRequest
	sent       map[string]bool // runs described on this stream
	specs      map[string]*wire.RunSpec
	manifested int // ReadManifest calls
}

// result is one item of Results.
type result struct {
	partition, attempt uint32
	outcome            sheaf.Outcome
	failure            sheaf.FailureKind
	exit               int32
	digest             [32]byte
	text               *wire.Text
	session            uint64
}

func newLeader(t testing.TB) *leader {
	t.Helper()
	l := &leader{t: t, change: make(chan struct{}), results: map[string]*result{}, leaseMs: 60_000, verdict: wire.Verdict_VERDICT_COMMITTED, specs: map[string]*wire.RunSpec{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.address = listener.Addr().String()
	s := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterServersServer(s, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(listener)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l
}

func (l *leader) changed() {
	close(l.change)
	l.change = make(chan struct{})
}

func (l *leader) Servers() []string                       { return []string{l.address} }
func (l *leader) NodeAddress(sheaf.NodeID) (string, bool) { return "", false }

func (l *leader) Register(_ context.Context, req *wire.RegisterRequest) (*wire.RegisterResponse, error) {
	var n sheaf.Node
	if err := json.Unmarshal(req.GetNodeJson(), &n); err != nil || n.ID == "" {
		l.t.Errorf("registers as %s: %v", req.GetNodeJson(), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session++
	return &wire.RegisterResponse{Session: l.session, ClusterId: "c1"}, nil
}

func (l *leader) Session(stream wire.Servers_SessionServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		l.t.Errorf("the first message is %T", first.GetBody())
		return nil
	}
	l.mu.Lock()
	l.streams++
	l.hello, l.stream, l.cut = hello, stream, cancel
	l.sent = map[string]bool{}
	err = stream.Send(&wire.FromServer{Body: &wire.FromServer_Welcome{Welcome: &wire.Welcome{Term: 1, LeaseMs: l.leaseMs, Start: hello.GetQueued()}}})
	l.changed()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			l.receive(stream, m)
		}
	}()
	select {
	case err = <-received:
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == stream {
		l.stream = nil
	}
	l.changed()
	return err
}

func (l *leader) receive(stream wire.Servers_SessionServer, m *wire.FromClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch b := m.GetBody().(type) {
	case *wire.FromClient_Results:
		l.take(stream, b.Results)
	case *wire.FromClient_TakenBack:
		l.taken = append(l.taken, b.TakenBack)
	case *wire.FromClient_Running:
		l.running += len(b.Running.GetFirst())
	case *wire.FromClient_Prepared:
		l.prepared = append(l.prepared, b.Prepared)
	case *wire.FromClient_Pulse:
		l.pulse = b.Pulse
		if !l.silent {
			_ = stream.Send(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: &wire.Lease{Sequence: b.Pulse.GetSequence(), LeaseMs: l.leaseMs}}})
		}
	}
	l.changed()
}

func (l *leader) take(stream wire.Servers_SessionServer, r *wire.Results) {
	n := len(r.Partition)
	if len(r.Attempt) != n || len(r.Outcome) != n || len(r.Failure) != n || len(r.ExitCode) != n || len(r.StartedMs) != n || len(r.DurationMs) != n || len(r.CpuMs) != n || len(r.PeakMemoryKib) != n || len(r.Digest) != 32*n {
		l.t.Errorf("results with columns of different lengths")
		return
	}
	a := &wire.Answers{Run: r.Run, Generation: r.Generation, Kind: r.Kind, Partition: r.Partition, Attempt: r.Attempt, Index: 7}
	for i := range n {
		v, ok := l.verdicts[string(sheaf.NewExecutionID(sheaf.RunID(r.Run), int(r.Partition[i]), r.Attempt[i]))]
		if !ok {
			v = l.verdict
		}
		a.Verdict = append(a.Verdict, byte(v))
	}
	l.counted += n
	if !l.count {
		for i := range n {
			id := string(sheaf.NewExecutionID(sheaf.RunID(r.Run), int(r.Partition[i]), r.Attempt[i]))
			if r.Kind != wire.Kind_KIND_PARTITION {
				id = fmt.Sprint(r.Run, r.Kind, r.Attempt[i])
			}
			if l.results[id] != nil {
				l.repeats++
			}
			x := &result{partition: r.Partition[i], attempt: r.Attempt[i], outcome: sheaf.Outcome(r.Outcome[i]), failure: sheaf.FailureKind(r.Failure[i]), exit: r.ExitCode[i], digest: [32]byte(r.Digest[32*i:]), session: r.Session}
			for _, text := range r.Text {
				if int(text.Item) == i {
					x.text = text
				}
			}
			l.results[id] = x
		}
	}
	if !l.silent {
		_ = stream.Send(&wire.FromServer{Body: &wire.FromServer_Answers{Answers: a}})
	}
}

// until waits until the condition holds; it is called with the lock held.
func (l *leader) until(what string, holds func() bool) {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		ok, change := holds(), l.change
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Fatalf("%s: not so after %v; %d results, %d streams", what, patience, len(l.results), l.streams)
		}
	}
}

// send sends on the stream that is open, waiting for one.
func (l *leader) send(m *wire.FromServer) {
	l.t.Helper()
	l.until("a stream is open", func() bool { return l.stream != nil })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream != nil {
		_ = l.stream.Send(m)
	}
}

// run describes a run, and keeps its spec for further streams.
func (l *leader) run(id string, job *sheaf.Job, partitions int) {
	l.t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		l.t.Fatal(err)
	}
	spec := &wire.RunSpec{Run: id, Generation: 1, JobJson: b, Partitions: uint32(partitions)}
	if job.Split != nil {
		spec.SplitAttempt = 1
	}
	l.mu.Lock()
	l.specs[id] = spec
	l.mu.Unlock()
	l.send(&wire.FromServer{Body: &wire.FromServer_Run{Run: spec}})
}

func (l *leader) assign(run string, first, count, attempt uint32) {
	l.t.Helper()
	l.assignKind(run, wire.Kind_KIND_PARTITION, first, count, attempt)
}

func (l *leader) assignKind(run string, kind wire.Kind, first, count, attempt uint32) {
	l.t.Helper()
	l.send(&wire.FromServer{Body: &wire.FromServer_Assign{Assign: executions(run, kind, first, count, attempt)}})
}

func executions(run string, kind wire.Kind, first, count, attempt uint32) *wire.Executions {
	return &wire.Executions{Run: run, Generation: 1, Kind: kind, First: []uint32{first}, Count: []uint32{count}, Attempt: []uint32{attempt}}
}

// disconnect breaks the open stream and waits for the next Hello.
func (l *leader) disconnect() *wire.Hello {
	l.t.Helper()
	l.mu.Lock()
	before := l.streams
	l.cut()
	l.mu.Unlock()
	return l.helloAfter(before)
}

func (l *leader) helloAfter(streams int) *wire.Hello {
	l.t.Helper()
	l.until("the client says hello", func() bool { return l.streams > streams })
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hello
}

// result waits for an execution's result.
func (l *leader) result(id string) *result {
	l.t.Helper()
	l.until("result of "+id, func() bool { return l.results[id] != nil })
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results[id]
}

func (l *leader) PutManifest(stream wire.Servers_PutManifestServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		if c := m.GetChunk(); c != nil {
			if int(c.Sequence) == len(l.chunks) {
				l.chunks = append(l.chunks, c)
			}
		} else {
			l.seal = m.GetSeal()
		}
		reply := &wire.PutManifestResponse{Contiguous: uint32(len(l.chunks)), Sealed: l.seal != nil}
		l.changed()
		l.mu.Unlock()
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

func (l *leader) ReadManifest(_ *wire.ReadManifestRequest, stream wire.Servers_ReadManifestServer) error {
	l.mu.Lock()
	chunks := l.chunks
	l.manifested++
	l.mu.Unlock()
	for _, c := range chunks {
		if err := stream.Send(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *leader) ReadOutputs(req *wire.ReadOutputsRequest, stream wire.Servers_ReadOutputsServer) error {
	l.mu.Lock()
	out := &wire.Outputs{Nodes: []string{l.hello.GetNode()}}
	for p := req.GetFrom(); ; p++ {
		r := l.results[string(sheaf.NewExecutionID(sheaf.RunID(req.GetRun()), int(p), 1))]
		if r == nil {
			break
		}
		out.Partition, out.Attempt, out.Node = append(out.Partition, p), append(out.Attempt, 1), append(out.Node, 0)
		out.Digest = append(out.Digest, r.digest[:]...)
	}
	l.mu.Unlock()
	return stream.Send(out)
}

func (l *leader) SealResult(_ context.Context, req *wire.SealResultRequest) (*wire.SealResultResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = req
	l.changed()
	return &wire.SealResultResponse{Verdict: wire.Verdict_VERDICT_COMMITTED}, nil
}

// mockJob is a complete job of the mock driver.
func mockJob(config map[string]any, change ...func(*sheaf.Job)) *sheaf.Job {
	j := &sheaf.Job{
		Name: "test", Type: sheaf.JobBatch, Namespace: "default", Datacenters: []string{"*"}, Priority: 50, Count: 1,
		Isolation: sheaf.IsolationPartition,
		Task: sheaf.Task{Name: "t", Driver: "mock", Config: config, KillTimeout: sheaf.Duration(time.Second), Network: sheaf.NetworkNone,
			Resources: sheaf.Resources{CPU: 100, Memory: 64 << 20, Disk: 1 << 20, Pids: 16}},
		Retry: sheaf.Retry{Attempts: 3},
	}
	for _, f := range change {
		f(j)
	}
	return j
}

// logWriter shows what a client logs when its test fails.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:max(0, len(b)-1)]))
	return len(b), nil
}

// config is a client of l with the mock driver in a process of its own.
func (l *leader) config(change ...func(*Config)) Config {
	exe, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := Config{
		Name: "node-1", Address: "127.0.0.1:1", DataDir: l.t.TempDir(), Slots: 16,
		Drivers:   []Driver{{Name: "mock", Command: []string{exe, "plugin", "mock"}}},
		FileRoots: []FileRoot{{Path: "/"}},
		Discovery: l,
		Logger:    slog.New(slog.NewTextHandler(logWriter{l.t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// start runs a client until the test ends, or until stop is called.
func (l *leader) start(cfg Config) (c *Client, stop func()) {
	l.t.Helper()
	l.mu.Lock()
	before := l.streams
	l.mu.Unlock()
	c, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					l.t.Errorf("client ended with %v", err)
				}
			case <-time.After(patience):
				l.t.Error("client does not end")
			}
		})
	}
	l.t.Cleanup(stop)
	l.helloAfter(before)
	return c, stop
}
