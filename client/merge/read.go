package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/merge"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// noFiles is the digest of an empty manifest, which need not be read.
var noFiles = output.Digest(nil)

// partitions reads the manifests of what the servers froze for this merge, in
// order. A stream that breaks is taken up again behind the last partition.
func (m *Merge) partitions(ctx context.Context) iter.Seq2[merge.Partition, error] {
	return func(yield func(merge.Partition, error) bool) {
		from := uint32(0)
		for {
			done, err := m.readFrom(ctx, &from, yield)
			if done {
				return
			}
			switch {
			case ctx.Err() != nil:
				err = ctx.Err()
			case status.Code(err) == codes.Aborted:
				err = ErrSuperseded
			case !final(err) && status.Code(err) != codes.Unknown:
				if err = pause(ctx); err == nil {
					continue
				}
			}
			yield(merge.Partition{}, err)
			return
		}
	}
}

// readFrom reads one stream of outputs, from *from on. Done means that the end
// was reached or the reader has had enough.
func (m *Merge) readFrom(ctx context.Context, from *uint32, yield func(merge.Partition, error) bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leader, _, err := m.Leader(ctx)
	if err != nil {
		return false, err
	}
	stream, err := leader.ReadOutputs(ctx, &wire.ReadOutputsRequest{Run: string(m.Run), Generation: m.Generation, MergeAttempt: m.Attempt, From: *from})
	if err != nil {
		return false, err
	}
	for {
		outs, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if len(outs.Attempt) != len(outs.Partition) || len(outs.Node) != len(outs.Partition) || len(outs.Digest) != 32*len(outs.Partition) {
			return false, status.Error(codes.InvalidArgument, "the servers' list of outputs has columns of different lengths")
		}
		if !m.readBatch(ctx, outs, from, yield) {
			return true, nil
		}
	}
}

// readBatch reads the manifests of one message, each node's in one pass.
func (m *Merge) readBatch(ctx context.Context, outs *wire.Outputs, from *uint32, yield func(merge.Partition, error) bool) bool {
	spans := make([][]store.Span, len(outs.Nodes))
	for i, p := range outs.Partition {
		if int(outs.Node[i]) >= len(outs.Nodes) {
			yield(merge.Partition{}, fmt.Errorf("partition %d is said to lie on a node that is not named", p))
			return false
		}
		if [32]byte(outs.Digest[32*i:]) == noFiles {
			continue
		}
		n := outs.Node[i]
		if k := len(spans[n]) - 1; k >= 0 && spans[n][k].Attempt == outs.Attempt[i] && spans[n][k].First+spans[n][k].Count == int(p) {
			spans[n][k].Count++
			continue
		}
		spans[n] = append(spans[n], store.Span{First: int(p), Count: 1, Attempt: outs.Attempt[i]})
	}
	next := make([]func() (store.Record, error, bool), len(spans))
	for n, s := range spans {
		if len(s) == 0 {
			continue
		}
		records := m.Store.Records(s)
		if id := sheaf.NodeID(outs.Nodes[n]); id != m.Node {
			records = m.remote(ctx, id, s)
		}
		pull, stop := iter.Pull2(records)
		defer stop()
		next[n] = pull
	}
	for i, p := range outs.Partition {
		part := merge.Partition{Index: int(p), Attempt: outs.Attempt[i], Node: sheaf.NodeID(outs.Nodes[outs.Node[i]])}
		if digest := [32]byte(outs.Digest[32*i:]); digest != noFiles {
			files, err := manifestOf(next[outs.Node[i]], part, digest)
			if err != nil {
				yield(merge.Partition{}, err)
				return false
			}
			part.Files = files
		}
		if !yield(part, nil) {
			return false
		}
		*from = p + 1
	}
	return true
}

func manifestOf(next func() (store.Record, error, bool), want merge.Partition, digest [32]byte) ([]sheaf.File, error) {
	rec, err, ok := next()
	if err == nil && (!ok || rec.Partition != want.Index || rec.Attempt != want.Attempt) {
		err = errors.New("its node does not have it any more")
	}
	if err == nil && output.Digest(rec.Manifest) != digest {
		err = errors.New("its manifest is not the one that was committed")
	}
	if err != nil {
		return nil, fmt.Errorf("output of partition %d (attempt %d, node %s): %w", want.Index, want.Attempt, want.Node, err)
	}
	decoded, err := output.Decode(rec.Manifest)
	if err != nil {
		return nil, fmt.Errorf("output of partition %d (attempt %d, node %s): %w", want.Index, want.Attempt, want.Node, err)
	}
	return decoded.Files, nil
}

// remote reads records from another node.
func (m *Merge) remote(ctx context.Context, id sheaf.NodeID, spans []store.Span) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		peer, done, err := m.Peer(id)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		defer done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		req := &wire.ReadRecordsRequest{Run: string(m.Run)}
		for _, s := range spans {
			req.First, req.Count, req.Attempt = append(req.First, uint32(s.First)), append(req.Count, uint32(s.Count)), append(req.Attempt, s.Attempt)
		}
		stream, err := peer.ReadRecords(ctx, req)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(store.Record{}, err)
				return
			}
			rec := store.Record{Partition: int(r.GetPartition()), Attempt: r.GetAttempt(), ExitCode: r.GetExitCode(), Manifest: r.GetManifestJson()}
			if !yield(rec, nil) {
				return
			}
		}
	}
}
