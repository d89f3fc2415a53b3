package serve

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gate lets calls in while there is a source, and ends them when it goes.
type gate struct {
	mu     sync.Mutex
	source *Source // nil while shut
	ctx    context.Context
	cancel context.CancelFunc
	calls  sync.WaitGroup
}

func (g *gate) open(s *Source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.source = s
}

func (g *gate) close() {
	g.mu.Lock()
	if g.source == nil {
		g.mu.Unlock()
		return
	}
	g.source = nil
	g.cancel()
	g.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		g.calls.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(closeTimeout): // a call that hangs in a dead connection holds nothing but memory
	}
}

// enter begins a call. Its context ends with the call's own or with the gate.
func (g *gate) enter(ctx context.Context) (context.Context, *Source, func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.source == nil {
		return nil, nil, nil, status.Error(codes.Unavailable, "the client is not running")
	}
	g.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(g.ctx, cancel)
	return ctx, g.source, func() { stop(); cancel(); g.calls.Done() }, nil
}
