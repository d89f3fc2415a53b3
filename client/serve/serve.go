// Package serve is the service that a client offers to servers and to other
// clients: logs, records and files of what ran here, merged manifests, and previews of
// splits. It reads the durable store and changes nothing.
package serve

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// pieceLen bounds the data of one message.
const pieceLen = 64 << 10

// Nodes is the service. Its zero value answers Unavailable; it works from
// [Nodes.Open] to [Nodes.Close].
type Nodes struct {
	wire.UnimplementedNodesServer
	gate gate
}

// Source is what a Nodes serves from.
type Source struct {
	Store   *store.Store
	Sources source.Config
	// Follow makes the logs of an execution readable that runs here and has not
	// printed yet, and reports whether there is one; attempt 0 is any.
	Follow func(ctx context.Context, run sheaf.RunID, partition, attempt uint32) bool
}

// Open begins to serve.
func (n *Nodes) Open(s Source) { n.gate.open(&s) }

// Close ends all calls and waits for them.
func (n *Nodes) Close() { n.gate.close() }

// ReadLog implements the service.
func (n *Nodes) ReadLog(req *wire.ReadLogRequest, stream grpc.ServerStreamingServer[wire.LogPiece]) error {
	ctx, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	run := sheaf.RunID(req.GetRun())
	st, err := s.run(run)
	if err != nil {
		return toStatus(err)
	}
	s.Follow(ctx, run, req.GetPartition(), req.GetAttempt())
	l, err := st.OpenLog(ctx, int(req.GetPartition()), req.GetAttempt(), req.GetStderr(), req.GetFollow())
	if err != nil {
		return toStatus(err)
	}
	defer func() { _ = l.Close() }()
	if req.GetTail() > 0 {
		if err := l.SeekLines(int(min(req.GetTail(), 1<<30))); err != nil {
			return toStatus(err)
		}
	} else {
		l.SeekTo(int64(req.GetOffset()))
	}
	offset := req.GetOffset()
	for {
		p, err := l.Next()
		if errors.Is(err, io.EOF) {
			running := s.Follow(ctx, run, req.GetPartition(), req.GetAttempt())
			return stream.Send(&wire.LogPiece{Offset: offset, Ended: !running})
		}
		if err != nil {
			return toStatus(err)
		}
		offset = uint64(p.Offset) + uint64(len(p.Data))
		if err := stream.Send(&wire.LogPiece{Offset: uint64(p.Offset), Data: p.Data, Dropped: uint64(p.Dropped)}); err != nil {
			return err
		}
	}
}

// ReadFile implements the service.
func (n *Nodes) ReadFile(req *wire.ReadFileRequest, stream grpc.ServerStreamingServer[wire.FilePiece]) error {
	_, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	st, err := s.run(sheaf.RunID(req.GetRun()))
	if err != nil {
		return toStatus(err)
	}
	f, err := st.OpenFile(store.Key{Partition: int(req.GetPartition()), Attempt: req.GetAttempt()}, req.GetOutput(), string(req.GetPath()), int64(req.GetOffset()), int64(req.GetLength()))
	if err != nil {
		return toStatus(err)
	}
	defer f.Close()
	return copyPieces(f, func(b []byte) error { return stream.Send(&wire.FilePiece{Data: b}) })
}

// ReadResult implements the service.
func (n *Nodes) ReadResult(req *wire.ReadResultRequest, stream grpc.ServerStreamingServer[wire.ResultPiece]) error {
	_, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	st, err := s.run(sheaf.RunID(req.GetRun()))
	if err != nil {
		return toStatus(err)
	}
	f, err := st.OpenMerged(req.GetMergeAttempt())
	if err != nil {
		return toStatus(err)
	}
	defer f.Close()
	return copyPieces(f, func(b []byte) error { return stream.Send(&wire.ResultPiece{Data: b}) })
}

// run is the store of a run, whose name comes from outside.
func (s *Source) run(id sheaf.RunID) (*store.Run, error) {
	if err := sheaf.CheckName("run", string(id)); err != nil {
		return nil, err
	}
	return s.Store.Run(id)
}

// copyPieces sends all of r.
func copyPieces(r io.Reader, send func([]byte) error) error {
	buf := make([]byte, pieceLen)
	for {
		k, err := io.ReadFull(r, buf)
		if k > 0 {
			if err := send(buf[:k]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return toStatus(err)
		}
	}
}

// codeOf is how a class crosses the wire.
var codeOf = map[sheaf.Class]codes.Code{
	sheaf.Invalid: codes.InvalidArgument, sheaf.NotFound: codes.NotFound, sheaf.Conflict: codes.Aborted,
	sheaf.Unavailable: codes.Unavailable, sheaf.Denied: codes.PermissionDenied, sheaf.TooLarge: codes.OutOfRange,
	sheaf.Unsupported: codes.Unimplemented, sheaf.TimedOut: codes.DeadlineExceeded,
}

func toStatus(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	msg := err.Error()
	if e, ok := errors.AsType[*sheaf.Error](err); ok && e.Hint != "" {
		msg += "; " + e.Hint
	}
	code, ok := codeOf[sheaf.ClassOf(err)]
	if !ok {
		code = codes.Internal
	}
	return status.Error(code, msg)
}

// closeTimeout bounds the wait for calls that are told to end.
const closeTimeout = 5 * time.Second
