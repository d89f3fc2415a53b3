package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/internal/pki"
)

// RaftByte opens every connection that carries raft. HTTP/2's preface opens
// with 'P', so one byte tells the two apart.
const RaftByte byte = 'R'

const grpcByte byte = 'P'

const (
	// firstByteTimeout is how long a connection may stay silent before it is
	// closed. Both protocols speak at once; a loaded machine needs some slack.
	firstByteTimeout = 5 * time.Second
	// maxUndecided bounds the connections whose first byte is awaited, so that silent
	// clients cannot use up file descriptors; further ones are closed at once.
	maxUndecided = 256
	// acceptBacklog is how many connections wait for each protocol's Accept.
	acceptBacklog = 64
	// acceptRetry is the pause after a failed accept, as when file descriptors run out.
	acceptRetry = 20 * time.Millisecond
)

// Mux splits the connections of one listener into those of raft and those of gRPC: by
// the protocol that the TLS handshake agreed on, or in plain text by their first
// byte, of which raft's is consumed and gRPC's given back.
type Mux struct {
	base    net.Listener
	tls     *tls.Config // nil is plain text
	raft    *muxListener
	grpc    *muxListener
	refused func(from net.Addr, err error) // told of handshakes that failed
	silence time.Duration                  // see firstByteTimeout
}

// NewMux splits l, which it owns from now on. Nothing is accepted before Run.
func NewMux(l net.Listener) *Mux {
	return &Mux{base: l, raft: newMuxListener(l.Addr()), grpc: newMuxListener(l.Addr()), silence: firstByteTimeout}
}

// NewTLSMux splits l, as NewMux does, and lets in only who shows a certificate of this agent's
// region. refused is told of everybody else; it must not block.
func NewTLSMux(l net.Listener, keys *pki.Keys, refused func(from net.Addr, err error)) *Mux {
	m := NewMux(l)
	m.tls, m.refused = acceptTLS(keys), refused
	return m
}

// Raft gives the connections of raft. Closing it refuses further ones.
func (m *Mux) Raft() net.Listener { return m.raft }

// GRPC gives the connections of gRPC. Closing it refuses further ones.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// Addr is the address both are reached at.
func (m *Mux) Addr() net.Addr { return m.base.Addr() }

// Run accepts until ctx ends, then closes the listener and everything that
// was not handed over. It returns an error only when accepting failed for good.
func (m *Mux) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		m.base.Close()
		m.raft.Close()
		m.grpc.Close()
		return nil
	})
	g.Go(func() error { return m.accept(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (m *Mux) accept(ctx context.Context) error {
	var undecided sync.WaitGroup
	defer undecided.Wait()
	slots := make(chan struct{}, maxUndecided)
	for {
		conn, err := m.base.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return context.Canceled
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", m.base.Addr(), err)
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(acceptRetry):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		undecided.Go(func() {
			defer func() { <-slots }()
			m.decide(ctx, conn)
		})
	}
}

// decide finds out the protocol of conn and hands it over, or closes it.
func (m *Mux) decide(ctx context.Context, conn net.Conn) {
	if m.tls != nil {
		m.shakeHands(ctx, conn)
		return
	}
	unwatch := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	var first [1]byte
	conn.SetReadDeadline(time.Now().Add(m.silence))
	n, err := conn.Read(first[:])
	if !unwatch() || err != nil || n != 1 {
		conn.Close()
		return
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		conn.Close()
		return
	}
	switch first[0] {
	case RaftByte:
		m.raft.deliver(conn)
	case grpcByte:
		m.grpc.deliver(&unreadConn{Conn: conn, first: grpcByte, unread: true})
	default:
		conn.Close()
	}
}

// shakeHands bounds the whole handshake, however its bytes are dribbled.
func (m *Mux) shakeHands(ctx context.Context, conn net.Conn) {
	secured := tls.Server(conn, m.tls)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() == nil {
			m.refused(conn.RemoteAddr(), err)
		}
		return
	}
	switch secured.ConnectionState().NegotiatedProtocol {
	case raftProtocol:
		m.raft.deliver(secured)
	case grpcProtocol:
		m.grpc.deliver(secured)
	default:
		conn.Close()
	}
}

// unreadConn gives back one byte that was read to tell the protocol. Like
// every net.Conn of the two protocols, it has one reader.
type unreadConn struct {
	net.Conn
	first  byte
	unread bool
}

func (c *unreadConn) Read(p []byte) (int, error) {
	if !c.unread || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.unread = false
	p[0] = c.first
	return 1, nil
}

// muxListener is one protocol's share of a Mux.
type muxListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{} // closed by Close
	once   sync.Once
	// delivering is held shared by deliver and exclusively by Close, so that
	// after Close nothing more comes into conns.
	delivering sync.RWMutex
}

func newMuxListener(addr net.Addr) *muxListener {
	return &muxListener{addr: addr, conns: make(chan net.Conn, acceptBacklog), closed: make(chan struct{})}
}

func (l *muxListener) deliver(conn net.Conn) {
	l.delivering.RLock()
	defer l.delivering.RUnlock()
	select {
	case <-l.closed:
		conn.Close()
		return
	default:
	}
	select {
	case l.conns <- conn:
	case <-l.closed:
		conn.Close()
	}
}

// Accept waits for the next connection. After Close it fails with net.ErrClosed.
func (l *muxListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close may be called more than once. Connections not yet accepted are closed.
func (l *muxListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.delivering.Lock()
		defer l.delivering.Unlock()
		for {
			select {
			case c := <-l.conns:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr is the address of the shared listener.
func (l *muxListener) Addr() net.Addr { return l.addr }
