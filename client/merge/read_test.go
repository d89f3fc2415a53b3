package merge

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// replies is a stream of what was prepared.
type replies[T any] struct {
	grpc.ClientStream
	left []*T
}

func (r *replies[T]) Recv() (*T, error) {
	if len(r.left) == 0 {
		return nil, io.EOF
	}
	first := r.left[0]
	r.left = r.left[1:]
	return first, nil
}

// committed are servers that know one output, of partition 0.
type committed struct {
	wire.ServersClient
	node   string
	digest [32]byte
}

func (c *committed) ReadOutputs(context.Context, *wire.ReadOutputsRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[wire.Outputs], error) {
	return &replies[wire.Outputs]{left: []*wire.Outputs{{
		Partition: []uint32{0}, Attempt: []uint32{1}, Node: []uint32{0}, Nodes: []string{c.node}, Digest: c.digest[:],
	}}}, nil
}

// keeper is another node, with a manifest of partition 0 and one that it has merged.
type keeper struct {
	wire.NodesClient
	manifest []byte
	merged   []byte
}

func (k *keeper) ReadRecords(context.Context, *wire.ReadRecordsRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[wire.ReadRecordsReply], error) {
	return &replies[wire.ReadRecordsReply]{left: []*wire.ReadRecordsReply{{Partition: 0, Attempt: 1, ManifestJson: k.manifest}}}, nil
}

// oneFile is a manifest.
func oneFile() []byte {
	m := output.Manifest{Files: []sheaf.File{{Output: "out", Path: "a/b", Size: 3, SHA256: strings.Repeat("0a", 32), Mode: 0o644}}, Bytes: 3}
	return m.Encode()
}

// TestCommittedDigestIsHeldAgainstTheOutput: a node committed with a digest that its output does not have. Nothing of
// it is merged, and the error says which partition, attempt and node.
func TestCommittedDigestIsHeldAgainstTheOutput(t *testing.T) {
	manifest := oneFile()
	for name, c := range map[string]struct {
		digest [32]byte
		wants  string // of the error; none without
	}{
		"the committed one": {output.Digest(manifest), ""},
		"another":           {output.Digest([]byte("made up\n")), "output of partition 0 (attempt 1, node other): its manifest is not the one that was committed"},
	} {
		m := &Merge{
			Run: "r", Node: "here", Logger: slog.New(slog.DiscardHandler),
			Leader: func(context.Context) (wire.ServersClient, uint64, error) {
				return &committed{node: "other", digest: c.digest}, 1, nil
			},
			Peer: func(sheaf.NodeID) (wire.NodesClient, func(), error) {
				return &keeper{manifest: manifest}, func() {}, nil
			},
			Lacks: func(sheaf.RunID, int, uint32, string) { t.Errorf("%s: said that it lacks what lies elsewhere", name) },
		}
		var files []string
		said := ""
		for p, err := range m.partitions(t.Context()) {
			if err != nil {
				said = err.Error()
				break
			}
			for _, f := range p.Files {
				files = append(files, f.Path)
			}
		}
		if c.wants == "" && (said != "" || len(files) != 1) || c.wants != "" && (!strings.Contains(said, c.wants) || len(files) > 0) {
			t.Errorf("%s: files %v, error %q", name, files, said)
		}
	}
}

// TestOwnOutputThatDiffersIsMadeAgain: the node that merges finds its own output to be another than
// it committed, and says so, whereupon it is made again.
func TestOwnOutputThatDiffersIsMadeAgain(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := s.Run("r")
	if err != nil {
		t.Fatal(err)
	}
	manifest := oneFile()
	if err := st.Append(store.Record{Partition: 0, Attempt: 1, Outcome: sheaf.OutcomeSucceeded, Manifest: manifest, Digest: output.Digest(manifest)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	said := ""
	m := &Merge{
		Run: "r", Node: "here", Store: st, Logger: slog.New(slog.DiscardHandler),
		Leader: func(context.Context) (wire.ServersClient, uint64, error) {
			return &committed{node: "here", digest: output.Digest([]byte("made up\n"))}, 1, nil
		},
		Lacks: func(run sheaf.RunID, partition int, attempt uint32, reason string) {
			if run == "r" && partition == 0 && attempt == 1 {
				said = reason
			}
			cancel() // as the servers do with a merge of outputs that are made again
		},
	}
	for p, err := range m.partitions(ctx) {
		if err == nil {
			t.Errorf("merged %+v", p)
		}
	}
	if said != "its manifest is not the one that was committed" {
		t.Errorf("said %q", said)
	}
}
