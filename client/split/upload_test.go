package split

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// servers stores chunks as the servers do, and breaks streams where told.
type servers struct {
	wire.ServersClient

	mu      sync.Mutex
	streams int
	chunks  []*wire.ManifestChunk
	again   int // chunks that were stored already
	seal    *wire.ManifestSeal
	// fail gives the error on the n-th message of a stream, nil to take it.
	fail func(stream, message int) error
}

func (s *servers) PutManifest(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[wire.PutManifestRequest, wire.PutManifestResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	return &putStream{servers: s, ctx: ctx, number: s.streams, replies: make(chan *wire.PutManifestResponse, 1000), broken: make(chan struct{})}, nil
}

type putStream struct {
	grpc.BidiStreamingClient[wire.PutManifestRequest, wire.PutManifestResponse]
	servers *servers
	ctx     context.Context
	number  int
	sent    int
	replies chan *wire.PutManifestResponse
	broken  chan struct{}
	err     error
}

func (p *putStream) Send(m *wire.PutManifestRequest) error {
	s := p.servers
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.err != nil {
		return io.EOF
	}
	if s.fail != nil {
		if err := s.fail(p.number, p.sent); err != nil {
			p.err = err
			close(p.broken)
			return io.EOF
		}
	}
	p.sent++
	if c := m.GetChunk(); c != nil {
		switch {
		case int(c.Sequence) == len(s.chunks):
			s.chunks = append(s.chunks, c)
		case int(c.Sequence) < len(s.chunks):
			s.again++
		default:
			p.err = status.Error(codes.InvalidArgument, "a chunk is missing")
			close(p.broken)
			return io.EOF
		}
	} else {
		s.seal = m.GetSeal()
	}
	p.replies <- &wire.PutManifestResponse{Contiguous: uint32(len(s.chunks)), Sealed: s.seal != nil}
	return nil
}

func (p *putStream) Recv() (*wire.PutManifestResponse, error) {
	select {
	case r := <-p.replies:
		return r, nil
	default:
	}
	select {
	case r := <-p.replies:
		return r, nil
	case <-p.broken:
		return nil, p.err
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

func upload(t *testing.T, s *servers, files int, change ...func(*sheaf.Job)) error {
	t.Helper()
	in := t.TempDir()
	for i := range files {
		name := fmt.Sprintf("%04d-%s.txt", i, strings.Repeat(fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)})), 3))
		if err := os.WriteFile(filepath.Join(in, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	job := &sheaf.Job{Name: "j", Inputs: []sheaf.Input{{Name: "in", Source: "file://" + in, Mount: "/in"}}, Split: &sheaf.Split{Glob: "/*", BatchSize: 1}}
	for _, f := range change {
		f(job)
	}
	u := &Upload{
		Run: "r", Attempt: 4, Node: "n", Job: job, Image: "sha256:image", Sources: source.Config{Files: []source.Root{{Path: "/"}}}, Dir: t.TempDir(),
		Leader: func(context.Context) (wire.ServersClient, uint64, error) { return s, 9, nil },
	}
	err := u.Do(t.Context())
	if left, _ := os.ReadDir(u.Dir); len(left) != 0 {
		t.Errorf("the spool leaves %v", left)
	}
	return err
}

func TestUpload(t *testing.T) {
	s := &servers{}
	if err := upload(t, s, 2000); err != nil {
		t.Fatal(err)
	}
	if len(s.chunks) < 2 {
		t.Fatalf("%d chunks: too few for this test", len(s.chunks))
	}
	root := sha256.New()
	for i, c := range s.chunks {
		if c.Run != "r" || c.SplitAttempt != 4 || c.Node != "n" || c.Session != 9 || int(c.Sequence) != i {
			t.Errorf("chunk %d is %s/%d/%s/%d/%d", i, c.Run, c.SplitAttempt, c.Node, c.Session, c.Sequence)
		}
		sum := sha256.Sum256(c.Data)
		root.Write(sum[:])
	}
	if s.seal.Partitions != 2000 || s.seal.Bytes != 2000 || int(s.seal.Chunks) != len(s.chunks) || string(s.seal.Root) != string(root.Sum(nil)) || s.seal.Session != 9 {
		t.Errorf("seal is %v", s.seal)
	}
}

// TestUploadGoesOn: a stream that breaks is taken up where the servers have
// what came before; nothing is listed again.
func TestUploadGoesOn(t *testing.T) {
	s := &servers{fail: func(stream, message int) error {
		if stream < 3 && message == 1 {
			return status.Error(codes.Unavailable, "the leader is gone")
		}
		return nil
	}}
	if err := upload(t, s, 2000); err != nil {
		t.Fatal(err)
	}
	if s.streams != 3 || s.seal == nil || int(s.seal.Chunks) != len(s.chunks) {
		t.Errorf("%d streams, seal %v for %d chunks", s.streams, s.seal, len(s.chunks))
	}
	if s.again > s.streams {
		t.Errorf("%d chunks were sent again", s.again)
	}
}

// TestUploadForReuse: the manifest has fingerprints, and the seal says what the image was resolved to.
func TestUploadForReuse(t *testing.T) {
	for _, reuse := range []bool{true, false} {
		s := &servers{}
		if err := upload(t, s, 30, func(j *sheaf.Job) { j.Reuse = reuse }); err != nil {
			t.Fatal(err)
		}
		_, prints, err := shard.Fingerprints(s.chunks[0].Data)
		if want := map[bool]int{true: 30, false: 0}[reuse]; err != nil || len(prints) != want {
			t.Errorf("reuse %v: %d fingerprints, %v", reuse, len(prints), err)
		}
		if s.seal.ImageDigest != "sha256:image" {
			t.Errorf("the seal says %q of the image", s.seal.ImageDigest)
		}
	}
}

func TestUploadEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		code codes.Code
		want error
	}{
		"superseded": {codes.Aborted, ErrSuperseded},
		"refused":    {codes.InvalidArgument, nil},
	} {
		s := &servers{fail: func(int, int) error { return status.Error(tc.code, "no") }}
		if err := upload(t, s, 3); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMistakeOfTheUser: what the rule finds comes out as it is, whatever the
// upload does meanwhile.
func TestMistakeOfTheUser(t *testing.T) {
	err := upload(t, &servers{}, 3, func(j *sheaf.Job) { j.Split.Glob = "/*.nothing" })
	if sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), "*.nothing") {
		t.Errorf("%v", err)
	}
	err = upload(t, &servers{}, 3, func(j *sheaf.Job) { j.Inputs[0].Source = "file:///nonexistent-for-certain" })
	if sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a missing input: %v", err)
	}
}
