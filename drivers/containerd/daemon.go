package containerd

import (
	"context"
	"net"
	"sync"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// DefaultAddress is where Debian's containerd listens.
	DefaultAddress = "/run/containerd/containerd.sock"
	// AddressVariable names the environment variable that says otherwise.
	AddressVariable = "CONTAINERD_ADDRESS"

	// dialTime bounds connecting to a socket of this machine, whose daemon may have to wait for
	// its turn. Where nobody listens that is known at once.
	dialTime = 20 * time.Second
	// reconnect is the pause between tries to reach a daemon that went away, and
	// slowest what the transport's own tries grow to.
	reconnect = 100 * time.Millisecond
	slowest   = 500 * time.Millisecond
	// patience is how long a container's making waits for a daemon that restarts.
	patience = time.Minute
)

// daemon is the connection to containerd.
type daemon struct {
	address string

	mu   sync.Mutex
	conn *client.Client
}

// connect gives the connection, which is made once: the transport keeps it up through
// restarts of the daemon. An error, of class sheaf.Unavailable, comes at
// once where nobody listens. The context returned carries our namespace.
func (d *daemon) connect(ctx context.Context) (*client.Client, context.Context, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		dial := net.Dialer{Timeout: dialTime}
		probe, err := dial.DialContext(ctx, "unix", d.address)
		if err != nil {
			return nil, ctx, &sheaf.Error{
				Class: sheaf.Unavailable, Msg: "containerd is not there", Err: err,
				Hint: "start containerd, or say where its socket is: client.containerd.address, or " + AddressVariable,
			}
		}
		_ = probe.Close() // nothing was written
		conn, err := client.New(d.address, client.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial.DialContext(ctx, "unix", d.address) }),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: dialTime, Backoff: backoff.Config{BaseDelay: reconnect, Multiplier: 2, MaxDelay: slowest}}),
		}))
		if err != nil {
			return nil, ctx, &sheaf.Error{Class: sheaf.Unavailable, Msg: "connect to containerd at " + d.address, Err: err}
		}
		d.conn = conn
	}
	return d.conn, namespaces.WithNamespace(ctx, namespace), nil
}

// away reports whether an error means that the daemon is not there at present.
func away(err error) bool {
	return err != nil && (errdefs.IsUnavailable(err) || errdefs.IsUnavailable(errdefs.FromGRPC(err)))
}

// pause waits a moment for the daemon; false is the end of ctx.
func pause(ctx context.Context) bool {
	t := time.NewTimer(reconnect)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
