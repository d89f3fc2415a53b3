package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// server answers as told; handlers that are nil refuse.
type server struct {
	wire.UnimplementedServersServer
	register func(ctx context.Context, req *wire.RegisterRequest) (*wire.RegisterResponse, error)
	session  func(wire.Servers_SessionServer) error
}

func (s *server) Register(ctx context.Context, req *wire.RegisterRequest) (*wire.RegisterResponse, error) {
	return s.register(ctx, req)
}

func (s *server) Session(st wire.Servers_SessionServer) error { return s.session(st) }

func serve(t *testing.T, s *server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterServersServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return l.Addr().String()
}

// recorder is a handler that keeps what it is told.
type recorder struct {
	mu     sync.Mutex
	events []string
	heard  chan string
	out    *Outbox
}

func newRecorder() *recorder { return &recorder{heard: make(chan string, 100)} }

func (r *recorder) note(e string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	r.heard <- e
}

func (r *recorder) Node() ([]byte, error) { return []byte(`{"id":"n"}`), nil }
func (r *recorder) Hello(_ context.Context, _ uint64, out *Outbox) (*wire.Hello, error) {
	r.mu.Lock()
	r.out = out
	r.mu.Unlock()
	r.note("hello")
	return &wire.Hello{Node: "n"}, nil
}
func (r *recorder) Receive(_ context.Context, m *wire.FromServer) error {
	switch m.GetBody().(type) {
	case *wire.FromServer_Welcome:
		r.note("welcome")
	case *wire.FromServer_Lease:
		r.note("lease")
	case *wire.FromServer_End:
		r.note("end")
		return errors.New("cannot bear it")
	}
	return nil
}
func (r *recorder) Closed(context.Context, *Outbox) { r.note("closed") }
func (r *recorder) ClusterID() string               { return "" }
func (r *recorder) Joined(string) error             { return nil }

func (r *recorder) await(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-r.heard:
		if got != want {
			t.Fatalf("%s came where %s was expected", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no %s", want)
	}
}

func run(t *testing.T, r *recorder, addresses ...string) (s *Session, result <-chan error) {
	t.Helper()
	s = New(Config{Servers: func() []string { return addresses }, Dial: wire.Dialer{}.Server, BootID: "b", Handler: r, Logger: slog.New(slog.DiscardHandler)})
	s.callTimeout = time.Minute // no stream ends but by what a test does
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return s, done
}

func registered(n uint64) func(context.Context, *wire.RegisterRequest) (*wire.RegisterResponse, error) {
	return func(context.Context, *wire.RegisterRequest) (*wire.RegisterResponse, error) {
		n++
		return &wire.RegisterResponse{Session: n, ClusterId: "c"}, nil
	}
}

// TestFollowsTheLeader: a follower's hint is taken at once; the stream's
// messages come in order, and what is queued goes out behind Hello.
func TestFollowsTheLeader(t *testing.T) {
	got := make(chan *wire.FromClient, 10)
	leader := serve(t, &server{register: registered(6), session: func(st wire.Servers_SessionServer) error {
		for i := 0; ; i++ {
			m, err := st.Recv()
			if err != nil {
				return err
			}
			got <- m
			if i == 0 {
				_ = st.Send(&wire.FromServer{Body: &wire.FromServer_Welcome{Welcome: &wire.Welcome{}}})
				_ = st.Send(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: &wire.Lease{}}})
			}
		}
	}})
	follower := serve(t, &server{register: func(ctx context.Context, _ *wire.RegisterRequest) (*wire.RegisterResponse, error) {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("sheaf-leader", leader))
		return nil, status.Error(codes.FailedPrecondition, "another server leads")
	}})
	r := newRecorder()
	s, _ := run(t, r, follower)
	r.await(t, "hello")
	r.mu.Lock()
	r.out.Add(&wire.FromClient{Body: &wire.FromClient_Pulse{Pulse: &wire.Pulse{Sequence: 1}}})
	r.mu.Unlock()
	r.await(t, "welcome")
	r.await(t, "lease")
	_, number, err := s.Leader(t.Context())
	if err != nil || number != 7 {
		t.Errorf("session %d, %v; want 7", number, err)
	}
	if h := (<-got).GetHello(); h.GetSession() != 7 || h.GetBootId() != "b" {
		t.Errorf("hello is %v", h)
	}
	if p := (<-got).GetPulse(); p.GetSequence() != 1 {
		t.Errorf("behind hello came %v", p)
	}
}

// TestRegistersAnew: every stream has a session of its own, whatever ended the
// one before: the server, the handler, or a first message that is no welcome.
func TestRegistersAnew(t *testing.T) {
	streams := 0
	address := serve(t, &server{register: registered(0), session: func(st wire.Servers_SessionServer) error {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		streams++
		if got := m.GetHello().GetSession(); got != uint64(streams) {
			t.Errorf("stream %d has session %d", streams, got)
		}
		if streams == 3 {
			return st.Send(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: &wire.Lease{}}})
		}
		_ = st.Send(&wire.FromServer{Body: &wire.FromServer_Welcome{Welcome: &wire.Welcome{}}})
		switch streams {
		case 1:
			return errors.New("the term is over")
		case 2:
			_ = st.Send(&wire.FromServer{Body: &wire.FromServer_End{End: &wire.RunEnd{}}})
		}
		<-st.Context().Done()
		return nil
	}})
	r := newRecorder()
	run(t, r, address)
	for _, want := range []string{"hello", "welcome", "closed", "hello", "welcome", "end", "closed", "hello", "closed", "hello", "welcome"} {
		r.await(t, want)
	}
}

func TestRefusedForGood(t *testing.T) {
	address := serve(t, &server{register: func(context.Context, *wire.RegisterRequest) (*wire.RegisterResponse, error) {
		return nil, status.Error(codes.PermissionDenied, "the node belongs to another cluster")
	}})
	_, done := run(t, newRecorder(), address)
	select {
	case err := <-done:
		if !errors.Is(err, errRefused) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("goes on trying")
	}
}
