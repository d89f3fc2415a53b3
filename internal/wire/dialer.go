package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sheaf-run/agent/internal/pki"
)

// Dialer makes the connections between agents. It shows this agent's certificate and
// insists on the peer's role and region. Its zero value speaks plain text.
type Dialer struct {
	Keys *pki.Keys // nil is plain text
}

// Server makes a connection to the server at address, "host:port". It
// connects with the first call; calls fail at once while the peer cannot be reached.
func (d Dialer) Server(address string) (*grpc.ClientConn, error) {
	return d.connect(address, d.server)
}

// Node makes a connection, as Server does, to the agent called name. With an empty
// name any client or server of the region will do.
func (d Dialer) Node(address, name string) (*grpc.ClientConn, error) {
	return d.connect(address, func(id pki.Identity) error { return d.node(id, name) })
}

// Raft opens a connection to the raft of the server at address. What is
// written goes to raft.
func (d Dialer) Raft(ctx context.Context, address string) (net.Conn, error) {
	if d.Keys != nil {
		conf := dialTLS(d.Keys, d.server)
		conf.NextProtos = []string{raftProtocol}
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", address)
	}
	var plain net.Dialer
	conn, err := plain.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &announced{Conn: conn}, nil
}

// ServerTLS is for HTTPS to a server of the region; nil in plain text.
func (d Dialer) ServerTLS() *tls.Config {
	if d.Keys == nil {
		return nil
	}
	return dialTLS(d.Keys, d.server)
}

// AgentTLS is for HTTPS to the agent called name; nil in plain text.
func (d Dialer) AgentTLS(name string) *tls.Config {
	if d.Keys == nil {
		return nil
	}
	return dialTLS(d.Keys, func(id pki.Identity) error { return d.node(id, name) })
}

// server wants a server of this region.
func (d Dialer) server(id pki.Identity) error {
	if region := d.Keys.Identity().Region; id.Role != pki.Server || id.Region != region {
		return fmt.Errorf("the certificate there is for %s, not for a server of region %s", id, region)
	}
	return nil
}

// node wants an agent of this region, and with a name that one.
func (d Dialer) node(id pki.Identity, name string) error {
	region := d.Keys.Identity().Region
	if id.Role == pki.CLI || id.Region != region || name != "" && id.Name != name {
		return fmt.Errorf("the certificate there is for %s, not for agent %q of region %s", id, name, region)
	}
	return nil
}

func (d Dialer) connect(address string, want func(pki.Identity) error) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if d.Keys != nil {
		creds = credentials.NewTLS(dialTLS(d.Keys, want))
	}
	return dial(address, creds)
}

// announced writes raft's byte before the first byte of a connection in plain text.
type announced struct {
	net.Conn
	done bool
}

// Write has one caller at a time, as raft's connections do.
func (c *announced) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(append([]byte{RaftByte}, p...))
	c.done = n > 0
	return max(n-1, 0), err
}
