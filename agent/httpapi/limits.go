package httpapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Limits bound what callers can take of an agent; a zero field takes its default.
type Limits struct {
	Files       int           // how many the process may have open; 0 is not known, and bounds nothing
	Connections int           // at once
	PerAddress  int           // of those, from one IP address
	Waits       int           // blocking reads and streams at once
	Header      time.Duration // for a request's header to arrive
	Beat        time.Duration // of streams without news
}

// The defaults. A connection costs some 20 kB and a descriptor; agents pass requests on to the
// leader from one address each, so that one address may need many.
const (
	defaultConnections = 8192
	defaultPerAddress  = 1024
	defaultWaits       = 4096
	headerTimeout      = 10 * time.Second
)

// Shares of what a process may have open, unless told otherwise. Up to twice a limit are open for a moment,
// and raft, disks and tasks need files, too; one address leaves half of the connections to others.
const (
	filesPerConnection = 4
	addresses          = 4
)

func (l Limits) filled() Limits {
	connections, perAddress := defaultConnections, defaultPerAddress
	if l.Files > 0 && l.Connections == 0 {
		connections = min(connections, max(1, l.Files/filesPerConnection))
		perAddress = min(perAddress, max(1, connections/addresses))
	}
	return Limits{
		Connections: cmp.Or(l.Connections, connections), PerAddress: cmp.Or(l.PerAddress, perAddress),
		Waits: cmp.Or(l.Waits, defaultWaits), Header: cmp.Or(l.Header, headerTimeout), Beat: cmp.Or(l.Beat, defaultBeat),
	}
}

// slots are the waits that may be under way at once.
type slots chan struct{}

// take gives one and the function that gives it back.
func (s slots) take() (release func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	default:
		return nil, &sheaf.Error{Class: sheaf.TooMany, Msg: "too many reads wait for a change already", Limit: fmt.Sprintf("%d at once", cap(s)), Hint: "ask again later, or without ?index="}
	}
}

// Limit bounds the connections of a listener, which comes before TLS. What is over a limit
// is answered 429 and closed; what is over twice as many is closed at once.
func (a *API) Limit(l net.Listener) net.Listener {
	return &limited{Listener: l, limits: a.Limits, from: map[string]int{}}
}

type limited struct {
	net.Listener
	limits Limits

	mu   sync.Mutex
	all  int
	from map[string]int
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		x := &limitedConn{Conn: c, of: l}
		x.address, _, err = net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			x.address = c.RemoteAddr().String()
		}
		if l.admit(x) {
			return x, nil
		}
		_ = c.Close()
	}
}

func (l *limited) admit(c *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, here := l.all+1, l.from[c.address]+1
	if all > 2*l.limits.Connections || here > 2*l.limits.PerAddress {
		return false
	}
	l.all, l.from[c.address] = all, here
	switch {
	case here > l.limits.PerAddress:
		c.over = &sheaf.Error{Class: sheaf.TooMany, Msg: "too many connections from " + c.address, Limit: fmt.Sprintf("%d at once", l.limits.PerAddress), Hint: "close some, or raise http.max_connections_per_address"}
	case all > l.limits.Connections:
		c.over = &sheaf.Error{Class: sheaf.TooMany, Msg: "too many connections", Limit: fmt.Sprintf("%d at once", l.limits.Connections), Hint: "try again later, or raise http.max_connections"}
	}
	return true
}

type limitedConn struct {
	net.Conn
	of      *limited
	address string
	over    error // why its requests are refused
	once    sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.of.all--
		if c.of.from[c.address]--; c.of.from[c.address] == 0 {
			delete(c.of.from, c.address)
		}
	})
	return c.Conn.Close()
}

type overKey struct{}

// connContext notes why requests of a connection are refused.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if l, ok := c.(*limitedConn); ok && l.over != nil {
		return context.WithValue(ctx, overKey{}, l.over)
	}
	return ctx
}

// overLimit is why a request's connection is one too many, or nil.
func overLimit(r *http.Request) error {
	err, _ := r.Context().Value(overKey{}).(error)
	return err
}
