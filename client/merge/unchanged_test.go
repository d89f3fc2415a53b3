package merge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// knowing are servers that know one output of run "r", of partition 0, and that the sealed result of run "before" is
// what its merge would make.
type knowing struct {
	committed
	before *wire.Outputs
	sealed *wire.SealResultRequest
}

func (k *knowing) ReadOutputs(ctx context.Context, req *wire.ReadOutputsRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[wire.Outputs], error) {
	st, err := k.committed.ReadOutputs(ctx, req, opts...)
	r := st.(*replies[wire.Outputs])
	r.left = append([]*wire.Outputs{k.before}, r.left...)
	return r, err
}

func (k *knowing) SealResult(_ context.Context, req *wire.SealResultRequest, _ ...grpc.CallOption) (*wire.SealResultResponse, error) {
	k.sealed = req
	return &wire.SealResultResponse{Verdict: wire.Verdict_VERDICT_COMMITTED}, nil
}

// ReadResult gives the manifest that another node has merged.
func (k *keeper) ReadResult(context.Context, *wire.ReadResultRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[wire.ResultPiece], error) {
	half := len(k.merged) / 2
	return &replies[wire.ResultPiece]{left: []*wire.ResultPiece{{Data: k.merged[:half]}, {Data: k.merged[half:]}}}, nil
}

// TestUnchangedResultIsTakenOver: what an earlier run has merged is not merged again, wherever it lies; where it is
// gone or damaged the outputs are merged all the same.
func TestUnchangedResultIsTakenOver(t *testing.T) {
	merged := []byte(`{"output":"out","path":"as it was merged before"}` + "\n")
	digest := sha256.Sum256(merged)
	for name, c := range map[string]struct {
		node  string // where the servers say that it lies
		here  []byte // what lies here of it, nil is nothing
		there []byte // what the other node gives
		taken bool
	}{
		"here":               {node: "here", here: merged, taken: true},
		"elsewhere":          {node: "other", there: merged, taken: true},
		"gone here":          {node: "here"},
		"damaged here":       {node: "here", here: []byte("damaged")},
		"damaged elsewhere":  {node: "other", there: []byte("damaged")},
		"cut short there":    {node: "other", there: merged[:10]},
		"of nobody, in fact": {},
	} {
		s, err := store.Open(t.TempDir(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		before, err := s.Run("before")
		if err != nil {
			t.Fatal(err)
		}
		if c.here != nil {
			put(t, before, 3, c.here)
		}
		own, err := s.Run("r")
		if err != nil {
			t.Fatal(err)
		}
		put(t, own, 2, []byte("left by an earlier start of the client"))
		manifest := oneFile()
		servers := &knowing{committed: committed{node: "other", digest: output.Digest(manifest)}, before: &wire.Outputs{
			Unchanged: "before", SealedNode: c.node, SealedAttempt: 3, SealedDigest: digest[:], Files: 7, Bytes: 70,
		}}
		if c.node == "" {
			servers.before = &wire.Outputs{}
		}
		m := &Merge{
			Run: "r", Generation: 1, Attempt: 2, Node: "here", Store: own, Stores: s.Run, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
			Job:    &sheaf.Job{Reuse: true, Outputs: []sheaf.Output{{Name: "out", Path: "/out"}}},
			Leader: func(context.Context) (wire.ServersClient, uint64, error) { return servers, 1, nil },
			Peer: func(sheaf.NodeID) (wire.NodesClient, func(), error) {
				return &keeper{manifest: manifest, merged: c.there}, func() {}, nil
			},
		}
		if err := m.Do(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f, err := own.OpenMerged(2)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(f)
		f.Close()
		sum := sha256.Sum256(got)
		if err != nil || !bytes.Equal(servers.sealed.GetDigest(), sum[:]) || bytes.Equal(got, merged) != c.taken || !c.taken && servers.sealed.GetFiles() != 1 || c.taken && servers.sealed.GetBytes() != 70 {
			t.Errorf("%s: %q stands, and sealed is %v; %v", name, got, servers.sealed, err)
		}
	}
}

// put keeps a merged manifest.
func put(t *testing.T, run *store.Run, attempt uint32, data []byte) {
	t.Helper()
	w, err := run.CreateMerged(attempt)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}
