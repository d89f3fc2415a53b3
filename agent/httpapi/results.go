package httpapi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// ExecutionRead names a partition, whose latest execution is meant.
type ExecutionRead struct {
	RunRead
	Partition string `query:"partition" required:"true" maxLength:"12" doc:"number, from 0"`
	Attempt   string `query:"attempt" maxLength:"12" doc:"the one that counts unless told"`
}

// located finds a run and a partition's latest execution: its attempt and its node.
func (a *API) located(ctx context.Context, in ExecutionRead) (*state.Run, sheaf.Partition, wire.NodesClient, error) {
	snap, run, _, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, sheaf.Partition{}, nil, err
	}
	n, err := partitionOf(run, in.Partition)
	if err != nil {
		return nil, sheaf.Partition{}, nil, err
	}
	p := snap.Partition(run, n)
	if p.Node == "" {
		return nil, p, nil, &sheaf.Error{Class: sheaf.NotFound, Field: "partition", Msg: fmt.Sprintf("partition %d has not run yet: it is %s", n, p.State), Hint: fmt.Sprintf("`agent job explain %s/%d` says why", run.ID, n)}
	}
	conn, err := a.Server.Node(p.Node)
	return run, p, conn, err
}

// madeBy is the run that executed a partition, and its number there: another where its output was taken over.
func madeBy(run *state.Run, p sheaf.Partition) (sheaf.RunID, int) {
	if p.MadeBy != nil {
		return p.MadeBy.Run, p.MadeBy.Partition
	}
	return run.ID, p.Index
}

// results streams the manifest of the merged result from the node that made it.
func (a *API) results(w http.ResponseWriter, r *http.Request, in *RunRead) error {
	snap, run, headers, err := a.lookup(r.Context(), in.ReadParams, in.RunParams)
	if err != nil {
		return err
	}
	headers.write(w)
	if run.Result.Sealed {
		describe(w, hex.EncodeToString(run.Result.Digest[:]))
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if len(run.Job.Outputs) == 0 && run.Status.Terminal() {
		return nil
	}
	stream, node, err := a.merged(r.Context(), snap, run)
	if err != nil {
		return err
	}
	return pieces(w, node, stream.Recv, (*wire.ResultPiece).GetData)
}

// merged opens the manifest of a run's merged result on the node that made it.
func (a *API) merged(ctx context.Context, snap *state.Snapshot, run *state.Run) (grpc.ServerStreamingClient[wire.ResultPiece], sheaf.NodeID, error) {
	if !run.Result.Sealed {
		return nil, "", &sheaf.Error{Class: sheaf.Conflict, Field: "job", Msg: fmt.Sprintf("run %s has no merged result: it is %s", run.ID, run.Status), Hint: "`agent job wait` waits for its end; `agent job results -partial` takes what there is"}
	}
	node := snap.NodeByNumber(run.Result.Node)
	if node == nil {
		return nil, "", &sheaf.Error{Class: sheaf.Unavailable, Msg: "the node that holds the result's manifest is gone"}
	}
	conn, err := a.Server.Node(node.ID)
	if err != nil {
		return nil, "", err
	}
	stream, err := conn.ReadResult(ctx, &wire.ReadResultRequest{Run: string(run.ID), MergeAttempt: run.Result.Attempt})
	return stream, node.ID, nodeError(node.ID, err)
}

// pieces copies the bytes of a node's stream into the reply. Once bytes have been sent
// an error can only break the connection, so that nobody takes half for whole.
func pieces[T any](w http.ResponseWriter, node sheaf.NodeID, recv func() (T, error), data func(T) []byte) error {
	flush := http.NewResponseController(w)
	for sent := false; ; sent = true {
		piece, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !sent {
			return nodeError(node, err)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write(data(piece)); err != nil {
			panic(http.ErrAbortHandler)
		}
		_ = flush.Flush()
	}
}

// logs answers with a partition's stdout or stderr as it stands, and goes on with it if asked.
func (a *API) logs(w http.ResponseWriter, r *http.Request, in *struct {
	ExecutionRead
	Stderr bool   `query:"stderr" doc:"instead of stdout"`
	Follow bool   `query:"follow" doc:"go on until the execution ends"`
	Offset string `query:"offset" maxLength:"20" doc:"bytes from the start"`
	Tail   string `query:"tail" maxLength:"20" doc:"the last so many lines"`
}) error {
	run, p, conn, err := a.located(r.Context(), in.ExecutionRead)
	if err != nil {
		return err
	}
	maker, as := madeBy(run, p)
	req := &wire.ReadLogRequest{Run: string(maker), Partition: uint32(as), Stderr: in.Stderr, Follow: in.Follow}
	for _, p := range []struct {
		name, text string
		set        func(int64)
	}{
		{"attempt", in.Attempt, func(n int64) { req.Attempt = uint32(n) }},
		{"offset", in.Offset, func(n int64) { req.Offset = uint64(n) }},
		{"tail", in.Tail, func(n int64) { req.Tail = n }},
	} {
		n, err := intParam(p.name, p.text)
		if err != nil {
			return err
		}
		p.set(n)
	}
	if req.Attempt == 0 {
		req.Attempt = p.Attempt
	}
	stream, err := conn.ReadLog(r.Context(), req)
	if err != nil {
		return nodeError(p.Node, err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return pieces(w, p.Node, stream.Recv, marked)
}

// marked is a piece of a log, behind a mark where rotation dropped bytes.
func marked(p *wire.LogPiece) []byte {
	if p.Dropped == 0 {
		return p.Data
	}
	return append([]byte("\n[… "+sheaf.Size(p.Dropped).String()+" were dropped here …]\n"), p.Data...)
}
