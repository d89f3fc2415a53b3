package server_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// keeper is the service of a node that keeps these manifests, by run and partition.
type keeper struct {
	wire.UnimplementedNodesServer
	runs map[string]map[uint32][]byte
}

func (k *keeper) ReadRecords(req *wire.ReadRecordsRequest, stream grpc.ServerStreamingServer[wire.ReadRecordsReply]) error {
	for i, first := range req.First {
		for p := first; p < first+req.Count[i]; p++ {
			m, ok := k.runs[req.Run][p]
			if !ok {
				return status.Errorf(codes.OutOfRange, "the manifest of partition %d is too long", p)
			}
			if err := stream.Send(&wire.ReadRecordsReply{Partition: p, Attempt: req.Attempt[i], ManifestJson: m}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *keeper) listen(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterNodesServer(g, k)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func manifest(paths ...string) []byte {
	var m output.Manifest
	for _, p := range paths {
		m.Files = append(m.Files, sheaf.File{Output: "out", Path: p, SHA256: strings.Repeat("0", 64)})
	}
	return m.Encode()
}

// TestOutputsAreComparedAsTheyAreCommitted: the first two that cannot be merged are named while the rest runs. Whom a node says
// to be in conflict, and whose manifest is not the one that was committed, is not believed; what cannot be read is left to the merge, and
// that is said.
func TestOutputsAreComparedAsTheyAreCommitted(t *testing.T) {
	h := startHost(t, tempDir(t), "")
	left := map[uint32][]byte{0: manifest("x"), 1: manifest("y"), 2: manifest("x", "z"), 3: manifest("d/e"), 4: manifest()}
	k := &keeper{runs: map[string]map[uint32][]byte{
		"apart": {0: left[0], 1: manifest("x"), 3: left[3]}, // the second is another's, the third is not to be had
		"meet":  left,
	}}
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.partition > 4 {
			return 0 // it runs on
		}
		return sheaf.OutcomeSucceeded
	})
	f.manifests, f.serves = left, k.listen(t)
	f.connect(nil)
	six := job(count(6), func(j *sheaf.Job) {
		j.Outputs = []sheaf.Output{{Name: "out", Path: "/out", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}
	})

	h.submit(t, "apart", six)
	deadline := time.After(patience)
	for len(h.Progress("apart").Warnings) == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("nothing is said of outputs that cannot be read")
		}
	}
	if c := h.Snapshot().Conflict(h.Snapshot().Run("apart")); c != nil {
		t.Errorf("nobody has committed what is in conflict, and %s", c.Text())
	}

	h.submit(t, "meet", six)
	h.awaitRun(t, "meet", "the conflict is named", func(r *state.Run) bool { return r.Conflict != nil })
	snap := h.Snapshot()
	c := snap.Conflict(snap.Run("meet"))
	if c == nil || c.Text() != `output "out": "x" was written by both partitions 0 and 2` {
		t.Errorf("it is %+v", c)
	}
	if r := snap.Run("meet"); r.Status != sheaf.RunRunning {
		t.Errorf("the run is %+v", r.Stub())
	}
	if why, err := h.Explain("meet", -1); err != nil || len(why.Summary) == 0 || !strings.Contains(why.Summary[0], c.Message) {
		t.Errorf("it is explained by %+v, %v", why, err)
	}
}
