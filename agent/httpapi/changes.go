package httpapi

import (
	"context"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/sheaf"
)

// changeRun changes how a run is scheduled.
func (a *API) changeRun(ctx context.Context, in *struct {
	RunParams
	Body api.ChangeRequest
}) (*Body[sheaf.RunStub], error) {
	c := server.RunChange{Held: in.Body.Held, Priority: in.Body.Priority, Parallelism: in.Body.Parallelism}
	if c == (server.RunChange{}) {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "priority, parallelism, held", Msg: "none of these is given", Hint: "give what is to change"}
	}
	return a.change(ctx, in.RunParams, c)
}

func (a *API) change(ctx context.Context, in RunParams, c server.RunChange) (*Body[sheaf.RunStub], error) {
	r, err := a.findRun(ctx, a.Server.Snapshot(), in.Namespace, in.Job)
	if err != nil {
		return nil, err
	}
	got, err := a.Server.Change(ctx, r.ID, c)
	if err != nil {
		return nil, err
	}
	return &Body[sheaf.RunStub]{Body: got.Run}, nil
}

func (a *API) hold(ctx context.Context, in *RunParams) (*Body[sheaf.RunStub], error) {
	held := true
	return a.change(ctx, *in, server.RunChange{Held: &held})
}

func (a *API) release(ctx context.Context, in *RunParams) (*Body[sheaf.RunStub], error) {
	held := false
	return a.change(ctx, *in, server.RunChange{Held: &held})
}

// listEvaluations lists what the leader holds in memory: it has no index to wait for.
func (a *API) listEvaluations(ctx context.Context, in *struct {
	PageParams
	Namespace string `query:"namespace" maxLength:"64"`
}) (*Body[[]sheaf.Evaluation], error) {
	may := aclOf(ctx)
	items := func(yield func(sheaf.Evaluation) bool) {
		for _, e := range a.Server.Evaluations() {
			if (in.Namespace == "*" || e.Namespace == orDefault(in.Namespace)) && may.Allows(ReadJobs, e.Namespace) && hasPrefix(e.Run, in.Prefix) && !yield(e) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, items, func(e sheaf.Evaluation) string { return string(e.Run) })
	return &Body[[]sheaf.Evaluation]{ReadHeaders{NextToken: next}, page}, err
}

func hasPrefix(id sheaf.RunID, prefix string) bool {
	return len(id) >= len(prefix) && string(id[:len(prefix)]) == prefix
}
