// Package serve is the service that a client offers to servers and to other
// clients: logs, records and files of what ran here, merged manifests, and previews of
// splits. It reads the durable store and changes nothing.
package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/pki"
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
	// Keys check the data tokens of other clients.
	Keys *datatoken.Keys
	// Lacks takes note that an attempt's record or files are gone or damaged.
	Lacks func(run sheaf.RunID, partition int, attempt uint32, reason string)
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
	if err := s.serversOnly(stream.Context()); err != nil {
		return toStatus(err)
	}
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
	run := sheaf.RunID(req.GetRun())
	if err := s.may(stream.Context(), run, &wire.Executions{First: []uint32{req.GetPartition()}, Count: []uint32{1}, Attempt: []uint32{req.GetAttempt()}}); err != nil {
		return toStatus(err)
	}
	st, err := s.run(run)
	if err != nil {
		return toStatus(err)
	}
	k := store.Key{Partition: int(req.GetPartition()), Attempt: req.GetAttempt()}
	whole := req.GetOffset() == 0 && req.GetLength() == 0 && req.GetSuffix() == 0
	var listed *sheaf.File
	if whole || req.GetDescribe() {
		listed = s.listed(st, k, req)
	}
	f, head, err := openPart(st, k, req)
	if err != nil {
		if sheaf.ClassOf(err) == sheaf.NotFound && s.listed(st, k, req) != nil {
			s.Lacks(run, k.Partition, k.Attempt, "a file of its output is gone")
		}
		return toStatus(err)
	}
	defer f.Close()
	if listed != nil {
		head.Sha256 = listed.SHA256
	}
	sum := sha256.New()
	err = copyPieces(f, func(b []byte) error {
		sum.Write(b)
		p := head
		if head = nil; p == nil {
			p = &wire.FilePiece{}
		}
		p.Data = b
		return stream.Send(p)
	})
	if err == nil && head != nil { // no bytes, but what there is to say of them
		err = stream.Send(head)
	}
	if err != nil || !whole {
		return err
	}
	if listed != nil && listed.SHA256 != "" && listed.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		s.Lacks(run, k.Partition, k.Attempt, "a file of its output is damaged")
		return status.Errorf(codes.DataLoss, "file %q of output %q of %s is damaged: it is not as it was committed", output.Clip(listed.Path), listed.Output, sheaf.NewExecutionID(run, k.Partition, k.Attempt))
	}
	return nil
}

// openPart opens the part of a file that is asked for, and says how long the whole is.
func openPart(st *store.Run, k store.Key, req *wire.ReadFileRequest) (io.ReadCloser, *wire.FilePiece, error) {
	f, size, err := st.OpenSized(k, req.GetOutput(), string(req.GetPath()))
	if err != nil {
		return nil, nil, err
	}
	offset, length := int64(min(req.GetOffset(), uint64(size))), int64(min(req.GetLength(), uint64(size)))
	if n := req.GetSuffix(); n > 0 {
		offset, length = size-int64(min(n, uint64(size))), 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	head := &wire.FilePiece{Size: uint64(size)}
	if req.GetLength() == 0 || req.GetSuffix() > 0 {
		return f, head, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, length), f}, head, nil
}

// serversOnly refuses what no token is for.
func (s *Source) serversOnly(ctx context.Context) error {
	if id, proven := wire.PeerOf(ctx); proven && id.Role != pki.Server {
		return &sheaf.Error{Class: sheaf.Denied, Msg: fmt.Sprintf("only servers may ask this, and %s does", id)}
	}
	return nil
}

// maxListed is the longest manifest that is looked through for one file: whoever
// reads the files of a longer one checks them by it.
const maxListed = 256 << 10

// listed is what the manifest of an attempt says of a file, or nil.
func (s *Source) listed(st *store.Run, k store.Key, req *wire.ReadFileRequest) *sheaf.File {
	rec, err := st.Record(k.Partition, k.Attempt)
	if err != nil || len(rec.Manifest) > maxListed {
		return nil
	}
	m, err := output.Decode(rec.Manifest)
	if err != nil {
		return nil
	}
	for i := range m.Files {
		if f := &m.Files[i]; f.Output == req.GetOutput() && f.Path == string(req.GetPath()) && f.Link == "" {
			return f
		}
	}
	return nil
}

// may reports why the caller of ctx may not read outputs of a run; nil outputs are all
// of it. Servers may read everything; another client shows a token for it. In plain text nobody can
// be told from a server, and a token is checked where there is one.
func (s *Source) may(ctx context.Context, run sheaf.RunID, outputs *wire.Executions) error {
	token := datatoken.Shown(ctx)
	id, proven := wire.PeerOf(ctx)
	if token == nil && (!proven || id.Role == pki.Server) {
		return nil
	}
	c, err := s.Keys.Check(token)
	if err != nil {
		return err
	}
	if proven && id.Role != pki.Server && id.Name != c.HolderName {
		return &sheaf.Error{Class: sheaf.Denied, Msg: fmt.Sprintf("the data token is for node %s, and %s shows it", c.HolderName, id)}
	}
	return datatoken.Allows(c, run, outputs)
}

// ReadResult implements the service.
func (n *Nodes) ReadResult(req *wire.ReadResultRequest, stream grpc.ServerStreamingServer[wire.ResultPiece]) error {
	_, s, done, err := n.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	// The manifest names what is in every output, so a token for one will do that was made for moving it.
	if err := s.may(stream.Context(), sheaf.RunID(req.GetRun()), &wire.Executions{}); err != nil {
		return toStatus(err)
	}
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
