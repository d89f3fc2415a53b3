package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A connection of raft opens with this
// greeting: a format byte and the dialer's cluster ID, zeros while it has none. Servers of
// different clusters that reach each other by mistake part there, before raft
// hears a higher term from a stranger. A server without a cluster belongs from then on to that
// of whoever greets it first: entries of two clusters never meet in one log.
const (
	greetingFormat = 1
	clusterIDSize  = 32
	greetingSize   = 1 + clusterIDSize
	// greetingTimeout bounds the writing of it; it fits into any socket buffer.
	greetingTimeout = 5 * time.Second
)

// streams is the raft.StreamLayer over the mux.
type streams struct {
	net.Listener
	address net.Addr // as others reach it
	dial    func(ctx context.Context, address string) (net.Conn, error)
	cluster func() string              // this server's, or empty
	join    func(cluster string) error // makes it this server's, which had none until now
	log     *slog.Logger

	mu     sync.Mutex
	open   map[*raftConn]bool // raft leaves its connections to their peers
	closed bool
	ended  chan struct{} // closed by Close
}

// Close refuses further connections and ends those that are open.
func (s *streams) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	if !s.closed {
		close(s.ended)
	}
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
	return err
}

// track makes a connection one that Close ends.
func (s *streams) track(c *raftConn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Conn.Close()
		return nil, net.ErrClosed
	}
	if s.open == nil {
		s.open = map[*raftConn]bool{}
	}
	s.open[c] = true
	return c, nil
}

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// Addr is the address that raft tells others.
func (s *streams) Addr() net.Addr { return s.address }

// Dial connects to another server's raft.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	greeting := make([]byte, greetingSize)
	greeting[0] = greetingFormat
	copy(greeting[1:], s.cluster())
	conn.SetWriteDeadline(time.Now().Add(greetingTimeout))
	if _, err := conn.Write(greeting); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s: %w", address, err)
	}
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s: %w", address, err)
	}
	return s.track(&raftConn{Conn: conn, streams: s, greeted: true})
}

// Accept gives a connection that is checked when it is first read.
func (s *streams) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			<-s.ended // no connection will ever come, and raft would ask again and again
		}
		return nil, err
	}
	return s.track(&raftConn{Conn: conn, streams: s})
}

// raftConn is a connection of raft. An accepted one checks its greeting at the
// first Read. Like all of raft's, it has one reader.
type raftConn struct {
	net.Conn
	streams *streams
	greeted bool
}

func (c *raftConn) Read(p []byte) (int, error) {
	if !c.greeted {
		if err := c.check(); err != nil {
			return 0, err
		}
		c.greeted = true
	}
	return c.Conn.Read(p)
}

// Close may be called more than once.
func (c *raftConn) Close() error {
	c.streams.mu.Lock()
	delete(c.streams.open, c)
	c.streams.mu.Unlock()
	return c.Conn.Close()
}

func (c *raftConn) check() error {
	var g [greetingSize]byte
	if _, err := io.ReadFull(c.Conn, g[:]); err != nil {
		return err
	}
	ours, theirs := c.streams.cluster(), string(g[1:])
	if g[0] != greetingFormat {
		return fmt.Errorf("%s greets in format %d, not %d", c.RemoteAddr(), g[0], greetingFormat)
	}
	if g[1] == 0 || ours == theirs {
		return nil
	}
	if ours == "" {
		return c.streams.join(theirs)
	}
	c.streams.log.Warn("refused a server of another cluster", "from", c.RemoteAddr(), "cluster", theirs, "ours", ours)
	return fmt.Errorf("%s belongs to cluster %s, not %s", c.RemoteAddr(), theirs, ours)
}

// raftLogger gives raft a logger whose records go to log. A server that is alone
// warns of its own elections at every start; that is no news.
func raftLogger(log *slog.Logger, alone bool) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(slogSink{log, alone})
	return l
}

// slogSink hands hclog's records to slog.
type slogSink struct {
	log   *slog.Logger
	alone bool
}

// Accept takes one record. raft's news of each step is of use to developers only.
func (s slogSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case hclog.Warn:
		if !s.alone {
			l = slog.LevelWarn
		}
	case hclog.Error:
		l = slog.LevelError
	}
	ctx := context.Background()
	if !s.log.Enabled(ctx, l) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if text, ok := f[0].(string); ok {
				args[i] = fmt.Sprintf(text, f[1:]...)
			}
		}
	}
	s.log.Log(ctx, l, name+": "+msg, args...)
}
