package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// reads reports whether a node may read a run's result as an input: it executes something of a run that is
// not over and reads it, or shows a token that this leader gave it for a preview.
func (h *Hub) reads(ctx context.Context, snap *state.Snapshot, reader *state.Node, r *state.Run) bool {
	if reader == nil {
		return false
	}
	if token := datatoken.Shown(ctx); token != nil {
		keys := &datatoken.Keys{}
		keys.Learn(h.tokens.Public(), h.NowMs())
		c, err := keys.Check(token)
		if err == nil && c.Holder == string(reader.ID) && datatoken.Allows(c, r.ID, nil) == nil {
			return true
		}
	}
	return snap.MayRead(reader.Number, r.ID)
}

// sendResult says where a run's merged manifest lies, if it is complete.
func (h *Hub) sendResult(st grpc.ServerStreamingServer[wire.Outputs], snap *state.Snapshot, reader *state.Node, r *state.Run) error {
	if !r.Complete() {
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("run %s has no complete result: it is %s", r.ID, r.Status)}
	}
	return st.Send(h.sealed(snap, reader, r))
}

// sealed says where a run's merged manifest lies.
func (h *Hub) sealed(snap *state.Snapshot, reader *state.Node, r *state.Run) *wire.Outputs {
	out := &wire.Outputs{SealedAttempt: r.Result.Attempt, SealedDigest: r.Result.Digest[:]}
	if n := snap.NodeByNumber(r.Result.Node); n != nil {
		out.SealedNode = string(n.ID)
	}
	if reader != nil {
		out.Token = h.token(&reader.Node, r.ID, nil)
	}
	return out
}

// unchanged says of an earlier run that its result is what is to be merged.
func (h *Hub) unchanged(snap *state.Snapshot, reader *state.Node, r *state.Run) *wire.Outputs {
	out := h.sealed(snap, reader, r)
	out.Unchanged, out.Files, out.Bytes = string(r.ID), r.Result.Files, r.Result.Bytes
	return out
}

// Grant is a token by which a node may read the result of a run, for a preview of a job that has it as an input.
func (h *Hub) Grant(reader *sheaf.Node, run sheaf.RunID) []byte { return h.token(reader, run, nil) }
