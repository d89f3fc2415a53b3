package serve

import (
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/client/results"
	"github.com/sheaf-run/agent/client/split"
	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Preview implements the service: the split that a run of the job would make
// here, by the same code, without the servers.
func (n *Nodes) Preview(req *wire.PreviewRequest, stream grpc.ServerStreamingServer[wire.PreviewReply]) error {
	ctx, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	if err := s.serversOnly(stream.Context()); err != nil {
		return toStatus(err)
	}
	job := &sheaf.Job{}
	if err := json.Unmarshal(req.GetJobJson(), job); err != nil {
		return toStatus(&sheaf.Error{Class: sheaf.Invalid, Msg: "the job cannot be read", Err: err})
	}
	if len(req.GetGrants()) == len(req.GetReads()) {
		grants := map[sheaf.RunID][]byte{}
		for i, run := range req.GetReads() {
			grants[sheaf.RunID(run)] = req.Grants[i]
		}
		ctx = results.Granted(ctx, grants)
	}
	var sent uint32
	var line []byte
	var manifest *shard.Writer
	if req.GetManifest() {
		manifest = shard.NewWriter(func(c shard.Chunk) error {
			return stream.Send(&wire.PreviewReply{Body: &wire.PreviewReply_Chunk{Chunk: c.Data}})
		})
		manifest.Prints = shard.NewFingerprinter(job)
	}
	stats, err := split.List(ctx, job, s.Sources, func(v *shard.View) error {
		if manifest != nil {
			return manifest.Add(v)
		}
		if limit := req.GetLimit(); limit > 0 && sent >= limit {
			return nil
		}
		sent++
		sh := v.Shard()
		line = shard.AppendJSON(line[:0], &sh)
		if len(line) > wire.MaxMessage-(1<<10) {
			return &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("the list of partition %d has %d bytes", v.Index, len(line)), Limit: fmt.Sprintf("%d bytes", wire.MaxMessage), Hint: "preview with a smaller batch_size"}
		}
		return stream.Send(&wire.PreviewReply{Body: &wire.PreviewReply_PartitionJson{PartitionJson: line}})
	})
	if err != nil {
		return toStatus(err)
	}
	if manifest != nil {
		if _, _, err := manifest.Close(); err != nil {
			return toStatus(err)
		}
	}
	return stream.Send(&wire.PreviewReply{Body: &wire.PreviewReply_Total{Total: &wire.PreviewTotal{
		Partitions: uint32(stats.Partitions), Atoms: uint64(stats.Atoms), Bytes: uint64(stats.Bytes),
		SmallestBytes: uint64(max(stats.Smallest, 0)), LargestBytes: uint64(stats.Largest), Listed: uint64(stats.Listed), Warnings: stats.Warnings,
	}}})
}
