package httpapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// NodeParam names a node: by ID, by name, or by a prefix of an ID that only one has.
type NodeParam struct {
	Node string `path:"node" maxLength:"128"`
}

// findNode is the node that a name stands for. Of several with one name the
// one that is ready is meant.
func findNode(snap *state.Snapshot, name string) (*state.Node, error) {
	var named *state.Node
	var found []*state.Node
	for n := range snap.Nodes() {
		switch {
		case string(n.ID) == name:
			return n, nil
		case n.Name == name && (named == nil || n.Status == sheaf.NodeReady):
			named = n
		case strings.HasPrefix(string(n.ID), name):
			found = append(found, n)
		}
	}
	switch {
	case named != nil:
		return named, nil
	case len(found) == 1:
		return found[0], nil
	}
	return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "node", Msg: fmt.Sprintf("%d nodes have an ID that begins with %q", len(found), name), Hint: "`agent node list` shows what there is"}
}

func (a *API) getNode(ctx context.Context, in *struct {
	ReadParams
	NodeParam
}) (*Body[sheaf.Node], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofNodes)
	if err != nil {
		return nil, err
	}
	n, err := findNode(snap, in.Node)
	if err != nil {
		return nil, err
	}
	node := n.Node
	node.Avoided = a.Server.Avoided()[n.ID]
	return &Body[sheaf.Node]{headers, node}, nil
}

func (a *API) drainProgress(ctx context.Context, in *struct {
	ReadParams
	NodeParam
}) (*Body[sheaf.DrainProgress], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofNodes)
	if err != nil {
		return nil, err
	}
	n, err := findNode(snap, in.Node)
	if err != nil {
		return nil, err
	}
	p, err := a.Server.DrainProgress(n.ID)
	return &Body[sheaf.DrainProgress]{headers, p}, err
}

// maxDeadline bounds what a node may run on while it is emptied.
const maxDeadline = 30 * 24 * time.Hour

func (a *API) drainNode(ctx context.Context, in *struct {
	NodeParam
	Body api.DrainRequest
}) (*Body[sheaf.DrainProgress], error) {
	n, err := findNode(a.Server.Snapshot(), in.Node)
	if err != nil {
		return nil, err
	}
	if in.Body.Cancel {
		_, err = a.Server.CancelDrain(ctx, n.ID)
	} else {
		deadline := time.Duration(-1)
		switch {
		case in.Body.Force:
			deadline = 0
		case in.Body.Deadline != "":
			if deadline, err = time.ParseDuration(in.Body.Deadline); err != nil || deadline < 0 || deadline > maxDeadline {
				return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "deadline", Msg: fmt.Sprintf("%q is no deadline", in.Body.Deadline), Limit: "0 to 720h", Hint: `write a duration, as in "1h"`}
			}
		}
		_, err = a.Server.Drain(ctx, n.ID, deadline)
	}
	if err != nil {
		return nil, err
	}
	p, err := a.Server.DrainProgress(n.ID)
	return &Body[sheaf.DrainProgress]{Body: p}, err
}

func (a *API) setEligibility(ctx context.Context, in *struct {
	NodeParam
	Body api.EligibilityRequest
}) (*Body[sheaf.Node], error) {
	n, err := findNode(a.Server.Snapshot(), in.Node)
	if err != nil {
		return nil, err
	}
	if _, err := a.Server.SetEligible(ctx, n.ID, in.Body.Eligible); err != nil {
		return nil, err
	}
	return &Body[sheaf.Node]{Body: a.Server.Snapshot().Node(n.ID).Node}, nil
}

func (a *API) purgeNode(ctx context.Context, in *struct {
	NodeParam
	Force bool `query:"force" doc:"although outputs lie only there"`
}) (*Body[sheaf.Node], error) {
	n, err := findNode(a.Server.Snapshot(), in.Node)
	if err != nil {
		return nil, err
	}
	if _, err := a.Server.Purge(ctx, n.ID, in.Force); err != nil {
		return nil, err
	}
	return &Body[sheaf.Node]{Body: n.Node}, nil
}
