package httpapi

import (
	"context"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// listedNamespaces is how many namespaces an error names.
const listedNamespaces = 10

func ofNamespaces(s *state.Snapshot) (uint64, <-chan struct{}) {
	return s.Index(), s.WatchNamespaces()
}

func showNamespace(n *state.Namespace) sheaf.Namespace {
	return sheaf.Namespace{Name: n.Name, Description: n.Description, Modified: n.Modified}
}

func (a *API) listNamespaces(ctx context.Context, in *struct {
	ReadParams
	PageParams
}) (*Body[[]sheaf.Namespace], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofNamespaces)
	if err != nil {
		return nil, err
	}
	who := aclOf(ctx)
	rows := func(yield func(sheaf.Namespace) bool) {
		for n := range snap.Namespaces() {
			if who.Sees(n.Name) && !yield(showNamespace(n)) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, rows, func(n sheaf.Namespace) string { return n.Name })
	headers.NextToken = next
	return &Body[[]sheaf.Namespace]{headers, page}, err
}

// NamespaceParams name a namespace.
type NamespaceParams struct {
	Namespace string `path:"namespace" maxLength:"64"`
}

func (a *API) getNamespace(ctx context.Context, in *struct {
	NamespaceParams
	ReadParams
}) (*Body[sheaf.Namespace], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofNamespaces)
	if err != nil {
		return nil, err
	}
	n := snap.Namespace(in.Namespace)
	if n == nil || !aclOf(ctx).Sees(in.Namespace) {
		return nil, a.noNamespace(ctx, snap, in.Namespace)
	}
	return &Body[sheaf.Namespace]{headers, showNamespace(n)}, nil
}

func (a *API) putNamespace(ctx context.Context, in *struct {
	NamespaceParams
	Body api.NamespaceRequest
}) (*Body[api.Changed], error) {
	index, err := a.Server.PutNamespace(ctx, sheaf.Namespace{Name: in.Namespace, Description: in.Body.Description})
	return &Body[api.Changed]{Body: api.Changed{Index: index}}, err
}

func (a *API) deleteNamespace(ctx context.Context, in *NamespaceParams) (*struct{}, error) {
	_, err := a.Server.DeleteNamespace(ctx, in.Namespace)
	return nil, err
}

// noNamespace is the error of a namespace that is not there, naming those that the caller may know of.
func (a *API) noNamespace(ctx context.Context, snap *state.Snapshot, name string) error {
	var known []string
	for n := range snap.Namespaces() {
		if aclOf(ctx).Sees(n.Name) {
			known = append(known, n.Name)
		}
	}
	if len(known) > listedNamespaces {
		known = append(known[:listedNamespaces], fmt.Sprintf("and %d more", len(known)-listedNamespaces))
	}
	return &sheaf.Error{
		Class: sheaf.NotFound, Field: "namespace", Msg: fmt.Sprintf("there is no namespace %q", name),
		Hint: "known: " + strings.Join(known, ", ") + "; `agent namespace apply` makes one",
	}
}

// namespaceFor checks that the caller may use the endpoint in the namespace of a job that came in a body, and that it exists.
func (a *API) namespaceFor(ctx context.Context, job *sheaf.Job) error {
	name := orDefault(job.Namespace)
	if err := allow(ctx, name); err != nil {
		return err
	}
	if snap := a.Server.Snapshot(); snap.Namespace(name) == nil {
		return a.noNamespace(ctx, snap, name)
	}
	return nil
}
