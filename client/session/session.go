// Package session keeps the client's one stream to the leader of its region.
// It registers the node anew for each stream, follows the servers' hints to the leader,
// and connects again, with growing pauses, for as long as its Run lasts. What the messages
// mean is its [Handler]'s business; what it promises is their order: after Hello was
// asked for, Welcome comes first, and nothing of an earlier stream comes after Closed.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// firstPause and longestPause bound the wait between attempts: soon enough
	// to find a server that starts beside us, slow enough that a thousand clients don't
	// overrun a leader that comes back.
	firstPause   = 30 * time.Millisecond
	longestPause = 5 * time.Second
	// callTimeout bounds a registration, and the wait for Welcome.
	callTimeout = 10 * time.Second
	// maxRedirects bounds how often in a row a hint is followed without a pause.
	maxRedirects = 3
	// settled is how long a stream lasts that is no failed attempt: one that
	// breaks sooner, again and again, is not to be had without a pause.
	settled = 5 * time.Second
	// leaderTrailer names the leader's address in a follower's answer.
	leaderTrailer = "sheaf-leader"
)

// Handler is who the session speaks for. Its methods are called by one
// goroutine, and an error ends the stream.
type Handler interface {
	// Node describes the node as it is now, as JSON of sheaf.Node.
	Node() ([]byte, error)
	// Hello lists what the client has. What is sent on out from then on goes out behind it.
	Hello(ctx context.Context, session uint64, out *Outbox) (*wire.Hello, error)
	// Receive handles the leader's next message.
	Receive(ctx context.Context, m *wire.FromServer) error
	// Closed says that the stream that began with the last Hello is over.
	Closed(ctx context.Context, out *Outbox)
	// ClusterID is that of the cluster the node belongs to, empty before the first.
	ClusterID() string
	// Joined takes the cluster's ID of a registration.
	Joined(clusterID string) error
}

// Config is what a Session is made of.
type Config struct {
	Servers func() []string // addresses, the likeliest leader first
	Dial    func(address string) (*grpc.ClientConn, error)
	BootID  string
	Handler Handler
	Logger  *slog.Logger
}

// Session is the client's tie to its region.
type Session struct {
	cfg         Config
	callTimeout time.Duration // a test sets it

	mu      sync.Mutex
	leader  wire.ServersClient // nil while there is no stream
	number  uint64
	changed chan struct{} // closed and renewed when the two above change
}

// New makes a session; nothing is connected.
func New(cfg Config) *Session {
	return &Session{cfg: cfg, callTimeout: callTimeout, changed: make(chan struct{})}
}

// Leader waits for a stream and gives the leader's service and the session's
// number, for calls beside the stream.
func (s *Session) Leader(ctx context.Context) (wire.ServersClient, uint64, error) {
	for {
		s.mu.Lock()
		leader, number, changed := s.leader, s.number, s.changed
		s.mu.Unlock()
		if leader != nil {
			return leader, number, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (s *Session) set(leader wire.ServersClient, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader, s.number = leader, number
	close(s.changed)
	s.changed = make(chan struct{})
}

// errRefused is the handler's or a server's no that another attempt will not change.
var errRefused = errors.New("refused")

// Run connects and serves streams until ctx ends. It returns early only when
// the cluster refuses the node for good.
func (s *Session) Run(ctx context.Context) error {
	pause, redirects, hint, next := firstPause, 0, "", 0
	for {
		address := hint
		if address == "" {
			if known := s.cfg.Servers(); len(known) > 0 {
				address = known[next%len(known)]
				next++
			}
		}
		var err error
		hint = ""
		if address != "" {
			var welcomed bool
			began := time.Now()
			welcomed, hint, err = s.serve(ctx, address)
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errRefused) {
				return fmt.Errorf("join the cluster at %s: %w", address, err)
			}
			if welcomed {
				if time.Since(began) >= settled {
					pause = firstPause
				}
				redirects, next = 0, 0
				s.cfg.Logger.Info("session ended", "server", address, "error", err)
			} else if status.Code(err) == codes.AlreadyExists {
				s.cfg.Logger.Error("the servers refuse this node for now; it is tried again", "server", address, "error", err)
			} else {
				level := slog.LevelDebug
				if strings.Contains(err.Error(), "handshake failed") || strings.Contains(err.Error(), "tls: ") {
					level = slog.LevelWarn // no later attempt will do better by itself
				}
				s.cfg.Logger.Log(ctx, level, "no session", "server", address, "error", err)
			}
		}
		if hint != "" && hint != address && redirects < maxRedirects {
			redirects++
			continue
		}
		redirects = 0
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		pause = min(pause*3/2, longestPause)
	}
}

// serve registers at the server and serves one stream to its end. The hint is
// the leader's address where the server is not it.
func (s *Session) serve(ctx context.Context, address string) (welcomed bool, hint string, err error) {
	conn, err := s.cfg.Dial(address)
	if err != nil {
		return false, "", err
	}
	defer func() { _ = conn.Close() }()
	servers := wire.NewServersClient(conn)
	number, hint, err := s.register(ctx, servers)
	if err != nil {
		return false, hint, err
	}
	// Ends the stream, and with it the sender, whichever way serve returns.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := servers.Session(ctx)
	if err != nil {
		return false, "", fmt.Errorf("open a session: %w", err)
	}
	out := newOutbox()
	hello, err := s.cfg.Handler.Hello(ctx, number, out)
	if err != nil {
		return false, "", err
	}
	defer s.cfg.Handler.Closed(context.WithoutCancel(ctx), out)
	hello.Session, hello.BootId = number, s.cfg.BootID
	if err := stream.Send(&wire.FromClient{Body: &wire.FromClient_Hello{Hello: hello}}); err != nil {
		return false, "", fmt.Errorf("send hello: %w", streamError(stream, err))
	}
	first, err := s.awaitWelcome(cancel, stream)
	if err != nil {
		return false, trailerHint(stream.Trailer()), err
	}
	s.set(servers, number)
	defer s.set(nil, 0)
	if err := s.cfg.Handler.Receive(ctx, first); err != nil {
		return true, "", err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		out.pump(ctx, stream)
	}()
	defer func() {
		cancel()
		<-sent
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return true, trailerHint(stream.Trailer()), err
		}
		if err := s.cfg.Handler.Receive(ctx, m); err != nil {
			return true, "", err
		}
	}
}

func (s *Session) register(ctx context.Context, servers wire.ServersClient) (number uint64, hint string, err error) {
	node, err := s.cfg.Handler.Node()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	var trailer metadata.MD
	resp, err := servers.Register(ctx, &wire.RegisterRequest{NodeJson: node, BootId: s.cfg.BootID, ClusterId: s.cfg.Handler.ClusterID()}, grpc.Trailer(&trailer))
	if err != nil {
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied:
			return 0, "", fmt.Errorf("%w: %w", errRefused, sheafError(err))
		}
		return 0, trailerHint(trailer), fmt.Errorf("register: %w", err)
	}
	if err := s.cfg.Handler.Joined(resp.GetClusterId()); err != nil {
		return 0, "", fmt.Errorf("%w: %w", errRefused, err)
	}
	return resp.GetSession(), "", nil
}

func sheafError(err error) error {
	return &sheaf.Error{Class: sheaf.Denied, Msg: status.Convert(err).Message()}
}

// awaitWelcome receives the first message, which is bounded in time: a server
// that lost its leadership meanwhile may never send it.
func (s *Session) awaitWelcome(cancel context.CancelFunc, stream wire.Servers_SessionClient) (*wire.FromServer, error) {
	late := time.AfterFunc(s.callTimeout, cancel)
	m, err := stream.Recv()
	if !late.Stop() {
		return nil, fmt.Errorf("no welcome within %v", s.callTimeout)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	if m.GetWelcome() == nil {
		return nil, fmt.Errorf("the server's first message is %T, not a welcome", m.GetBody())
	}
	return m, nil
}

func trailerHint(md metadata.MD) string {
	if v := md.Get(leaderTrailer); len(v) > 0 {
		return v[0]
	}
	return ""
}

// streamError is why a stream broke: a failed send says only that it did.
func streamError(stream wire.Servers_SessionClient, err error) error {
	if _, rerr := stream.Recv(); rerr != nil {
		return rerr
	}
	return err
}
