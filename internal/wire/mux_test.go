package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// startMux runs a mux on loopback until the test ends.
func startMux(t *testing.T) *wire.Mux {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := wire.NewMux(l)
	mux.BeSilent(time.Hour) // a test that stalls has its connections still
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mux.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return mux
}

func dial(t *testing.T, mux *wire.Mux) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMuxTellsRaftFromGRPC(t *testing.T) {
	mux := startMux(t)

	server := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterServersServer(server, wire.UnimplementedServersServer{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(mux.GRPC()) }()
	t.Cleanup(func() { server.Stop(); <-served })

	conn, err := wire.Dialer{}.Server(mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = wire.NewServersClient(conn).Register(t.Context(), &wire.RegisterRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("call through the mux: got %v, want the server's own answer", err)
	}

	raft := dial(t, mux)
	if _, err := raft.Write([]byte{wire.RaftByte, 'x', 'y'}); err != nil {
		t.Fatal(err)
	}
	accepted, err := mux.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	got := make([]byte, 2)
	if _, err := io.ReadFull(accepted, got); err != nil || string(got) != "xy" {
		t.Errorf("raft side read %q, %v: the first byte must be consumed and no other", got, err)
	}
}

func TestMuxClosesStrangers(t *testing.T) {
	mux := startMux(t)
	c := dial(t, mux)
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of no known protocol was answered")
	}
}

// Silent connections must not keep others from being served, and those above
// the bound must be closed.
func TestMuxBoundsSilentConnections(t *testing.T) {
	mux := startMux(t)
	const bound = 256
	silent := make([]net.Conn, bound)
	for i := range silent {
		silent[i] = dial(t, mux)
	}
	for {
		c := dial(t, mux)
		c.Write([]byte{wire.RaftByte})
		_, err := c.Read(make([]byte, 1))
		if err != nil { // closed: the bound has been reached
			break
		}
	}
	silent[0].Write([]byte{wire.RaftByte})
	accepted, err := mux.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
}

func TestMuxListenerCloses(t *testing.T) {
	mux := startMux(t)
	mux.Raft().Close()
	if _, err := mux.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: got %v, want net.ErrClosed", err)
	}
	c := dial(t, mux)
	c.Write([]byte{wire.RaftByte})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection for a closed listener was kept")
	}
}
