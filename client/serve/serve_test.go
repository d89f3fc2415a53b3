package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/client/serve"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// filled is a store in which attempt 7 at partition 3 of run r left a file, and a merge its result.
func filled(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	r, err := st.Run("r")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := r.OutputDirs(store.Key{Partition: 3, Attempt: 7}, []string{"out"})
	if err != nil {
		t.Fatal(err)
	}
	merged, err := r.CreateMerged(1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = merged.Write([]byte("{}\n"))
	for _, err := range []error{
		err, merged.Commit(), os.WriteFile(filepath.Join(dirs[0].Host, "f"), []byte("mine"), 0o600),
		r.Append(store.Record{Partition: 3, Attempt: 7, Generation: 1, Outcome: sheaf.OutcomeSucceeded, Started: time.UnixMilli(1)}, nil), st.Sync(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// drain reads a stream to its end.
func drain[T any](s grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestTokens: what another client reads here it reads by a token that was made for that, and for it.
// What tokens are not for is the servers' alone.
func TestTokens(t *testing.T) {
	const now = 1_700_000_000_000
	authority := pkitest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := wire.NewTLSMux(l, authority.Keys(pki.Client, "eu", "here"), func(net.Addr, error) {})
	ctx, cancel := context.WithCancel(context.Background())
	muxed := make(chan error, 1)
	go func() { muxed <- mux.Run(ctx) }()
	var nodes serve.Nodes
	g := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterNodesServer(g, &nodes)
	served := make(chan error, 1)
	go func() { served <- g.Serve(mux.GRPC()) }()
	t.Cleanup(func() { g.Stop(); <-served; cancel(); <-muxed })

	signer, stranger := datatoken.NewSigner(), datatoken.NewSigner()
	var keys datatoken.Keys
	keys.Learn(signer.Public(), now)
	nodes.Open(serve.Source{
		Store: filled(t), Keys: &keys,
		Follow: func(context.Context, sheaf.RunID, uint32, uint32) bool { return false },
		Lacks:  func(sheaf.RunID, int, uint32, string) {},
	})
	defer nodes.Close()

	claims := func(change func(*wire.DataClaims)) *wire.DataClaims {
		c := &wire.DataClaims{Run: "r", Holder: "id", HolderName: "reader", ExpiresMs: now + datatoken.Lifetime.Milliseconds(),
			Outputs: &wire.Executions{First: []uint32{3}, Count: []uint32{1}, Attempt: []uint32{7}}}
		if change != nil {
			change(c)
		}
		return c
	}
	good := signer.Sign(claims(nil))
	tampered := append([]byte(nil), good...)
	tampered[len(tampered)-1] ^= 1
	dial := func(role pki.Role, name string) wire.NodesClient {
		conn, err := wire.Dialer{Keys: authority.Keys(role, "eu", name)}.Node(mux.Addr().String(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return wire.NewNodesClient(conn)
	}
	reader, thief, server := dial(pki.Client, "reader"), dial(pki.Client, "thief"), dial(pki.Server, "s1")
	calls := map[string]func(context.Context, wire.NodesClient) error{
		"records": func(ctx context.Context, c wire.NodesClient) error {
			return drain(c.ReadRecords(ctx, &wire.ReadRecordsRequest{Run: "r", First: []uint32{3}, Count: []uint32{1}, Attempt: []uint32{7}}))
		},
		"file": func(ctx context.Context, c wire.NodesClient) error {
			return drain(c.ReadFile(ctx, &wire.ReadFileRequest{Run: "r", Partition: 3, Attempt: 7, Output: "out", Path: []byte("f")}))
		},
		"result": func(ctx context.Context, c wire.NodesClient) error {
			return drain(c.ReadResult(ctx, &wire.ReadResultRequest{Run: "r", MergeAttempt: 1}))
		},
	}
	for _, c := range []struct {
		what   string
		who    wire.NodesClient
		token  []byte
		denied bool
	}{
		{"a server", server, nil, false},
		{"its token", reader, good, false},
		{"no token", reader, nil, true},
		{"no token at all", thief, nil, true},
		{"another's token", thief, good, true},
		{"a token with a bit changed", reader, tampered, true},
		{"half a token", reader, good[:len(good)/2], true},
		{"a stranger's signature", reader, stranger.Sign(claims(nil)), true},
		{"a token that has expired", reader, signer.Sign(claims(func(c *wire.DataClaims) { c.ExpiresMs = now - 1 })), true},
		{"a token of another run", reader, signer.Sign(claims(func(c *wire.DataClaims) { c.Run = "s" })), true},
	} {
		for name, call := range calls {
			err := call(datatoken.With(t.Context(), c.token), c.who)
			if c.denied && status.Code(err) != codes.PermissionDenied || !c.denied && err != nil {
				t.Errorf("%s with %s: %v", name, c.what, err)
			}
		}
	}

	with := datatoken.With(t.Context(), good)
	for what, err := range map[string]error{
		"another partition's file":     drain(reader.ReadFile(with, &wire.ReadFileRequest{Run: "r", Partition: 4, Attempt: 7, Output: "out", Path: []byte("f")})),
		"another attempt's file":       drain(reader.ReadFile(with, &wire.ReadFileRequest{Run: "r", Partition: 3, Attempt: 8, Output: "out", Path: []byte("f")})),
		"the last partition there is":  drain(reader.ReadFile(with, &wire.ReadFileRequest{Run: "r", Partition: 1<<32 - 1, Attempt: 7, Output: "out", Path: []byte("f")})),
		"more records":                 drain(reader.ReadRecords(with, &wire.ReadRecordsRequest{Run: "r", First: []uint32{3}, Count: []uint32{2}, Attempt: []uint32{7}})),
		"records beyond all":           drain(reader.ReadRecords(with, &wire.ReadRecordsRequest{Run: "r", First: []uint32{1<<32 - 2}, Count: []uint32{2}, Attempt: []uint32{7}})),
		"a log":                        drain(reader.ReadLog(with, &wire.ReadLogRequest{Run: "r", Partition: 3})),
		"a preview of any job's input": drain(reader.Preview(with, &wire.PreviewRequest{JobJson: []byte("{}")})),
	} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := drain(reader.ReadRecords(with, &wire.ReadRecordsRequest{Run: "r", First: []uint32{3, 4}, Count: []uint32{1}, Attempt: []uint32{7}})); status.Code(err) != codes.InvalidArgument {
		t.Errorf("columns of different lengths: %v", err)
	}
}
