package rpc

import (
	"context"
	"errors"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// RunChanged tells the nodes that were given the run how it is scheduled now.
func (h *Hub) RunChanged(run sheaf.RunID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		s.respec(run)
	}
}

// TakeBack gets at most `most` executions of a run back from a node that have not begun
// there: those not sent yet are freed at once, for others the client is asked, and what it
// confirms is freed then. Without an open session only the first can be had.
func (h *Hub) TakeBack(ctx context.Context, node sheaf.NodeID, run sheaf.RunID, most int) error {
	snap := h.Snapshot()
	r, n := snap.Run(run), snap.Node(node)
	if r == nil || n == nil || most <= 0 {
		return nil
	}
	h.mu.Lock()
	waiting := h.core.Waiting(node)
	free := h.core.Withdraw(node, run, n.Session, most)
	most -= waiting - h.core.Waiting(node)
	if s := h.sessions[node]; s != nil && s.open && most > 0 {
		if t := h.core.TakeBack(node, run, r.Generation, uint32(most)); t != nil {
			s.tell(&wire.FromServer{Body: &wire.FromServer_TakeBack{TakeBack: t}})
		}
	}
	h.mu.Unlock()
	for _, c := range free {
		if _, err := h.apply(ctx, &fsm.Command{Body: &fsm.Command_Release{Release: c}}); err != nil {
			var refused *sheaf.Error
			if errors.As(err, &refused) && (refused.Class == sheaf.NotFound || refused.Class == sheaf.Conflict) {
				return nil // the session is over: its successor reconciles
			}
			return err
		}
	}
	return nil
}
