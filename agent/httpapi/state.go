package httpapi

import (
	"context"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// state answers for this server alone, so that servers can be held against each other.
func (a *API) state(_ context.Context, _ *struct{}) (*Body[api.State], error) {
	if a.Server == nil {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: "this agent is no server and holds no state", Hint: "`agent server members` shows which are"}
	}
	snap := a.Server.Snapshot()
	return &Body[api.State]{Body: api.State{Index: snap.Index(), Digest: snap.Digest()}}, nil
}
