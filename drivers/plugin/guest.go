package plugin

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

const (
	// maxMessage is the largest message either side takes: a batch is bounded
	// below it, and a single Start with its config and environment fits.
	maxMessage = 16 << 20
	// lingerTime is how long a guest whose host went away waits for its Execute to end what it runs.
	lingerTime = 5 * time.Second
)

// Serve runs this process as the plugin of driver d, which calls itself name,
// and returns when the host lets it go and what d ran has been ended. slog's default logger then
// writes to the host's log.
func Serve(name string, d drivers.Driver) {
	slog.SetDefault(guestLogger(name, os.Stderr))
	g := &guest{driver: d}
	host := os.Getppid()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         goplugin.PluginSet{pluginName: &grpcPlugin{guest: g}},
		Logger:          newHclog(slog.Default()),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			if len(opts) == 0 { // no certificates
				opts = append(opts, grpc.Creds(onlyPeer(func() int { return host })))
			}
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage))...)
		},
	})
	g.wait(lingerTime)
}

// guest is the gRPC service over a driver.
type guest struct {
	driverpb.UnimplementedDriverServer
	driver drivers.Driver

	executing sync.WaitGroup
}

func (g *guest) wait(atMost time.Duration) {
	done := make(chan struct{})
	go func() {
		g.executing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(atMost):
	}
}

func (g *guest) Fingerprint(ctx context.Context, _ *driverpb.FingerprintRequest) (*driverpb.FingerprintResponse, error) {
	resp, err := g.driver.Fingerprint(ctx)
	return resp, toStatus(err)
}

func (g *guest) Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	resp, err := g.driver.Prepare(ctx, req)
	return resp, toStatus(err)
}

func (g *guest) Release(ctx context.Context, req *driverpb.ReleaseRequest) (*driverpb.ReleaseResponse, error) {
	return &driverpb.ReleaseResponse{}, toStatus(g.driver.Release(ctx, req.GetHandle()))
}

func (g *guest) Recover(ctx context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	resp, err := g.driver.Recover(ctx, req)
	return resp, toStatus(err)
}

// Execute adapts the driver's channels to the stream. The driver's context
// ends when the host says so or is gone, and its commands are closed when the
// host closes its side. The stream ends when the driver's Execute has returned.
func (g *guest) Execute(stream grpc.BidiStreamingServer[driverpb.Commands, driverpb.Events]) error {
	g.executing.Add(1)
	defer g.executing.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	commands := make(chan *driverpb.Command, queueLen)
	go func() {
		defer close(commands)
		for {
			msg, err := stream.Recv()
			if err != nil || msg.GetCancel() {
				if !isEOF(err) {
					cancel()
				}
				return
			}
			for _, c := range msg.GetCommands() {
				select {
				case commands <- c:
				case <-ctx.Done():
					return
				}
			}
		}
	}()

	events := make(chan *driverpb.Event, queueLen)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		sendEvents(ctx, stream, events)
	}()
	err := g.driver.Execute(ctx, commands, events)
	close(events)
	<-sent
	return toStatus(err)
}

// sendEvents sends what comes until events is closed. When the stream breaks
// or ctx ends it goes on taking events, so that the driver is never stuck on them.
func sendEvents(ctx context.Context, stream grpc.BidiStreamingServer[driverpb.Commands, driverpb.Events], events <-chan *driverpb.Event) {
	for ev := range events {
		batch := gather(ev, events, eventBytes)
		if ctx.Err() != nil {
			continue
		}
		if stream.Send(&driverpb.Events{Events: batch}) != nil {
			for range events {
			}
			return
		}
	}
}
