// Package plugin runs a task driver in a process of its own and speaks to it
// over go-plugin and gRPC. [Host] is the side of the client: a drivers.Driver whose process
// starts at the first call, is noticed when it dies ([ErrCrashed]), may be started again by
// the next call, and ends with its whole process tree when the host's Run ends. [Serve] is
// the side of the process.
//
// The Execute stream carries many commands or events in a message, as many as
// are waiting. Queues are bounded on both sides, so a slow reader slows its
// writer; nothing is dropped.
package plugin

import (
	"context"
	"errors"
	"io"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// The errors of a [Host]'s methods.
var (
	// ErrCrashed: the process ended while the call was under way. What it ran is
	// lost unless Recover finds it.
	ErrCrashed = errors.New("driver process ended unexpectedly")
	// ErrStart: no process that speaks this protocol could be started. For
	// [RestartPause] further calls fail alike without a new try.
	ErrStart = errors.New("driver process cannot be started")
	// ErrClosed: the host's Run has ended.
	ErrClosed = errors.New("driver host is closed")
)

const (
	// queueLen bounds commands and events between stream and driver: a few
	// batches, so that neither side waits for the other's wake-up.
	queueLen = 1024
	// maxBatch and batchBytes bound one message, so that a Stop never waits behind megabytes of logs.
	maxBatch   = 256
	batchBytes = 256 << 10
	// pluginName is what go-plugin dispenses; every process serves just one driver.
	pluginName = "driver"
)

// handshake keeps a program that is no plugin from being talked to, and a
// plugin from being started by hand. The version is the driver contract's.
var handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "SHEAF_DRIVER_PLUGIN",
	MagicCookieValue: "b7a0f1f2c5d94e0f",
}

// grpcPlugin is the go-plugin glue of both sides.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	guest *guest // nil in the host
}

func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	driverpb.RegisterDriverServer(s, p.guest)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return driverpb.NewDriverClient(conn), nil
}

// gather adds to first what already waits in from, up to the bounds of a message.
func gather[T any](first T, from <-chan T, size func(T) int) []T {
	batch := []T{first}
	for bytes := size(first); len(batch) < maxBatch && bytes < batchBytes; {
		select {
		case next, ok := <-from:
			if !ok {
				return batch
			}
			batch = append(batch, next)
			bytes += size(next)
		default:
			return batch
		}
	}
	return batch
}

// eventBytes and commandBytes are near enough for a bound: they count what can be large.
func eventBytes(ev *driverpb.Event) int {
	return 64 + len(ev.GetLog().GetData()) + len(ev.GetExited().GetError())
}

func commandBytes(c *driverpb.Command) int {
	start := c.GetStart()
	n := 64 + len(start.GetConfigJson())
	for _, e := range start.GetEnv() {
		n += len(e)
	}
	return n + 64*len(start.GetMounts())
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
