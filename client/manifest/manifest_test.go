package manifest

import (
	"context"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// servers answers ReadManifest from chunks, as the servers do: the chunks in
// which the wanted partitions lie, nothing beyond the run's count.
type servers struct {
	wire.ServersClient
	t      *testing.T
	chunks []shard.Chunk
	total  int
	calls  int
}

type stream struct {
	grpc.ServerStreamingClient[wire.ManifestChunk]
	rest []shard.Chunk
}

func (s *stream) Recv() (*wire.ManifestChunk, error) {
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	c := s.rest[0]
	s.rest = s.rest[1:]
	return &wire.ManifestChunk{First: uint32(c.First), Count: uint32(c.Count), Data: c.Data}, nil
}

func (s *servers) ReadManifest(_ context.Context, req *wire.ReadManifestRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[wire.ManifestChunk], error) {
	s.calls++
	if req.Count == 0 || int(req.First)+int(req.Count) > s.total {
		s.t.Errorf("asked for %d+%d of %d partitions", req.First, req.Count, s.total)
	}
	from, to := shard.SelectFunc(len(s.chunks), func(i int) shard.Extent {
		return shard.Extent{First: s.chunks[i].First, Count: s.chunks[i].Count}
	}, int(req.First), int(req.Count))
	return &stream{rest: s.chunks[from:to]}, nil
}

// manifest makes one of n partitions with atoms each.
func manifest(t *testing.T, n, atoms int) *servers {
	t.Helper()
	s := &servers{t: t, total: n}
	w := shard.NewWriter(func(c shard.Chunk) error { s.chunks = append(s.chunks, c); return nil })
	for i := range n {
		v := &shard.View{Index: i}
		for k := range atoms {
			v.Atoms = append(v.Atoms, shard.Atom{Path: pathOf(i, k), Input: "in", Size: int64(i), MTime: int64(i*7919 + k*104729)})
		}
		if err := w.Add(v); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func pathOf(i, k int) string { return fmt.Sprintf("/in/%08d/%06d-%x", i, k, i*2654435761+k*40503) }

func (s *servers) reader() *Reader {
	return New(func(context.Context) (wire.ServersClient, error) { return s, nil })
}

func check(t *testing.T, list []*sheaf.Shard, first, atoms int) {
	t.Helper()
	for i, sh := range list {
		if sh.Index != first+i || len(sh.Data) != atoms || sh.Data[atoms-1].Atoms[0].Path != pathOf(first+i, atoms-1) {
			t.Fatalf("shard %d is %d with %d data", first+i, sh.Index, len(sh.Data))
		}
	}
}

// TestReadsAhead guards that a large run read in order costs few calls.
func TestReadsAhead(t *testing.T) {
	const n, window = 200_000, 64
	s := manifest(t, n, 1)
	r := s.reader()
	for first := 0; first < n; first += window {
		count := min(window, n-first)
		list, err := r.Shards(t.Context(), "r", 1, n, uint32(first), uint32(count))
		if err != nil || len(list) != count {
			t.Fatalf("shards %d+%d: %d, %v", first, count, len(list), err)
		}
		check(t, list, first, 1)
	}
	if s.calls > 20 || s.calls < 2 {
		t.Errorf("%d partitions in %d chunks cost %d calls", n, len(s.chunks), s.calls)
	}
}

// TestShardsOverChunks: shards larger than a chunk come whole, the last too.
func TestShardsOverChunks(t *testing.T) {
	const n, atoms = 5, 8000
	s := manifest(t, n, atoms)
	if len(s.chunks) < 2*n {
		t.Fatalf("%d chunks: the shards are not split", len(s.chunks))
	}
	r := s.reader()
	for _, at := range [][2]int{{0, 1}, {0, 5}, {4, 1}, {2, 2}, {3, 2}} {
		list, err := r.Shards(t.Context(), "r", 1, n, uint32(at[0]), uint32(at[1]))
		if err != nil || len(list) != at[1] {
			t.Fatalf("shards %v: %d, %v", at, len(list), err)
		}
		check(t, list, at[0], atoms)
	}
}

func TestBounds(t *testing.T) {
	s := manifest(t, 10, 1)
	r := s.reader()
	for _, at := range [][2]uint32{{0, 0}, {9, 2}, {10, 1}, {1 << 31, 1 << 31}} {
		if _, err := r.Shards(t.Context(), "r", 1, 10, at[0], at[1]); err == nil {
			t.Errorf("shards %v of 10 were read", at)
		}
	}
	for i := range 3 * maxKept {
		if _, err := r.Shards(t.Context(), sheaf.RunID(fmt.Sprint("r", i)), 1, 10, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.kept) != maxKept {
		t.Errorf("pieces of %d runs are kept, want %d", len(r.kept), maxKept)
	}
	r.Forget(sheaf.RunID(fmt.Sprint("r", 3*maxKept-1)))
	if len(r.kept) != maxKept-1 {
		t.Error("a run that is over is not forgotten")
	}
}
