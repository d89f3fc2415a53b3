package httpapi

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

// pool takes part in gossip until the test's end.
func pool(t *testing.T, self gossip.Member, join ...string) *gossip.Pool {
	t.Helper()
	p, err := gossip.New(gossip.Config{Self: self, Bind: "127.0.0.1:0", Join: join, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-p.Ready()
	return p
}

// TestClientWaitsForAServer: a request to a client that knows no server is passed on when there is one, and refused when there
// is none for long.
func TestClientWaitsForAServer(t *testing.T) {
	client := pool(t, gossip.Member{Name: "client"})
	u := &upstream{api: &API{Config: Config{Gossip: client}}}
	late := make(chan time.Time)
	close(late)
	if m, err := u.next(t.Context(), late, nil); sheaf.ClassOf(err) != sheaf.Unavailable {
		t.Errorf("without a server %+v is asked, %v", m, err)
	}
	type answer struct {
		m   gossip.Member
		err error
	}
	asked := make(chan answer, 1)
	go func() {
		m, err := u.next(t.Context(), nil, nil)
		asked <- answer{m, err}
	}()
	pool(t, gossip.Member{Name: "server", Server: "s", Address: "127.0.0.1:1", HTTP: "127.0.0.1:2"}, client.Address())
	if got := <-asked; got.err != nil || got.m.Name != "server" {
		t.Errorf("%+v is asked, %v", got.m, got.err)
	}
}
