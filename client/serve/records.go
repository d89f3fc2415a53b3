package serve

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// maxManifest bounds the manifest of one record, which travels in one
// message: some ten thousand files.
const maxManifest = wire.MaxMessage - (64 << 10)

// ReadRecords implements the service.
func (n *Nodes) ReadRecords(req *wire.ReadRecordsRequest, stream grpc.ServerStreamingServer[wire.ReadRecordsReply]) error {
	ctx, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	if len(req.First) != len(req.Count) || len(req.First) != len(req.Attempt) {
		return status.Error(codes.InvalidArgument, "the ranges' columns have different lengths")
	}
	run := sheaf.RunID(req.GetRun())
	if err := s.may(stream.Context(), run, &wire.Executions{First: req.First, Count: req.Count, Attempt: req.Attempt}); err != nil {
		return toStatus(err)
	}
	st, err := s.run(run)
	if err != nil {
		return toStatus(err)
	}
	spans := make([]store.Span, len(req.First))
	for i := range spans {
		if uint64(req.First[i])+uint64(req.Count[i]) > sheaf.MaxPartitions {
			return status.Error(codes.InvalidArgument, "a range goes beyond the largest partition")
		}
		spans[i] = store.Span{First: int(req.First[i]), Count: int(req.Count[i]), Attempt: req.Attempt[i]}
	}
	for rec, err := range st.Records(spans) {
		if err != nil {
			if why := store.Lacks(err); why != "" {
				s.Lacks(run, rec.Partition, rec.Attempt, why)
			}
			return toStatus(err)
		}
		if ctx.Err() != nil {
			return toStatus(ctx.Err())
		}
		if len(rec.Manifest) > maxManifest {
			return status.Errorf(codes.OutOfRange, "the manifest of partition %d has %d bytes, more than one message holds", rec.Partition, len(rec.Manifest))
		}
		first := &wire.ReadRecordsReply{Partition: uint32(rec.Partition), Attempt: rec.Attempt, ExitCode: rec.ExitCode, ManifestJson: rec.Manifest,
			Generation: rec.Generation, Outcome: uint32(rec.Outcome), Failure: uint32(rec.Failure), StartedMs: rec.Started.UnixMilli(),
			DurationMs: uint32(rec.Duration.Milliseconds()), CpuMs: uint32(rec.CPU.Milliseconds()), PeakMemory: uint64(rec.PeakMemory), Message: rec.Message}
		if !req.GetLogs() || rec.Stdout.Size == 0 && rec.Stderr.Size == 0 {
			if err := stream.Send(first); err != nil {
				return err
			}
			continue
		}
		if err := s.sendLogs(stream, st, rec, first); err != nil {
			return err
		}
	}
	return nil
}

// sendLogs sends a record with its logs, a piece a message. Each message but
// the last says that more comes.
func (s *Source) sendLogs(stream grpc.ServerStreamingServer[wire.ReadRecordsReply], st *store.Run, rec store.Record, m *wire.ReadRecordsReply) error {
	for _, stderr := range []bool{false, true} {
		if rec.Stdout.Size == 0 && !stderr || rec.Stderr.Size == 0 && stderr {
			continue
		}
		l, err := st.OpenLog(stream.Context(), rec.Partition, rec.Attempt, stderr, false)
		if err != nil {
			return toStatus(err)
		}
		for {
			p, err := l.Next()
			if err != nil {
				_ = l.Close()
				if errors.Is(err, io.EOF) {
					break
				}
				return toStatus(err)
			}
			if len(m.Stdout)+len(m.Stderr) > 0 {
				m.More = true
				if err := stream.Send(m); err != nil {
					_ = l.Close()
					return err
				}
				m = &wire.ReadRecordsReply{Partition: m.Partition, Attempt: m.Attempt, ExitCode: m.ExitCode}
			}
			if stderr {
				m.Stderr = append(cut(p), p.Data...)
			} else {
				m.Stdout = append(cut(p), p.Data...)
			}
		}
	}
	return stream.Send(m)
}

// cut marks the place where rotation dropped bytes.
func cut(p store.Piece) []byte {
	if p.Dropped == 0 {
		return nil
	}
	return []byte("\n[… " + sheaf.Size(p.Dropped).String() + " were dropped here …]\n")
}
