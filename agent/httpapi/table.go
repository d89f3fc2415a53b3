package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sheaf-run/agent/internal/acl"
)

// Capability is what a caller must hold to use an endpoint.
type Capability = acl.Capability

// The capabilities, as package acl explains them.
const (
	Anyone           = acl.Anyone
	ReadJobs         = acl.ReadJobs
	ReadOutputs      = acl.ReadOutputs
	SubmitJobs       = acl.SubmitJobs
	PreviewFiles     = acl.PreviewFiles
	ReadSecrets      = acl.ReadSecrets
	ManageSecrets    = acl.ManageSecrets
	ReadNodes        = acl.ReadNodes
	WriteNodes       = acl.WriteNodes
	ReadAgent        = acl.ReadAgent
	WriteAgent       = acl.WriteAgent
	ReadOperator     = acl.ReadOperator
	Operate          = acl.Operate
	ManageNamespaces = acl.ManageNamespaces
	ManageACL        = acl.ManageACL
)

// scope says where a caller must hold an endpoint's capability.
type scope struct{ name string }

// The scopes. Before a handler runs the caller holds the capability somewhere;
// what remains is as follows.
var (
	// everywhere: no namespace is concerned, nothing remains.
	everywhere = scope{"everywhere"}
	// inRun: in the namespace of the run that {job} names. The handler finds it
	// by lookup or findRun, which check; a run that the caller may not read is not found.
	inRun = scope{"run"}
	// inList: the handler leaves out what aclOf(ctx) does not allow. Where ?namespace=
	// names one, other than "*", it has been checked.
	inList = scope{"list"}
	// inBody: the namespace stands in the body or the path; the handler calls allow.
	inBody = scope{"body"}
)

// bodyReadTimeout ends bodies that are dribbled.
const bodyReadTimeout = 30 * time.Second

// endpoint is a row of the table: what it is, what it needs and where the answer comes from. An
// endpoint without a capability and its scope does not compile into the table.
type endpoint struct {
	method, path string
	needs        Capability
	where        scope
	summary      string
	maxBody      int64 // bytes; 0 takes none
	bind         func(*API, endpoint)
}

// typed is an endpoint whose request and reply huma reads and writes.
func typed[I, O any](method, path string, needs Capability, where scope, summary string, maxBody int64, h func(*API, context.Context, *I) (*O, error)) endpoint {
	return endpoint{method, path, needs, where, summary, maxBody, func(a *API, e endpoint) {
		huma.Register(a.huma, e.operation(), func(ctx context.Context, in *I) (*O, error) {
			ctx, err := a.authorize(ctx, e)
			if err != nil {
				return nil, problemOf(err)
			}
			out, err := h(a, ctx, in)
			if err != nil {
				return nil, problemOf(err)
			}
			return out, nil
		})
	}}
}

// raw is an endpoint that writes a stream itself. It may return an error as
// long as it has written nothing.
func raw(method, path string, needs Capability, where scope, summary string, maxBody int64, h func(*API, http.ResponseWriter, *http.Request) error) endpoint {
	return endpoint{method, path, needs, where, summary, maxBody, func(a *API, e endpoint) {
		op := e.operation()
		a.huma.OpenAPI().AddOperation(&op)
		a.mux.HandleFunc(e.method+" "+e.path, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, e.maxBody)
			ctx, err := a.authorize(r.Context(), e)
			if err == nil {
				err = h(a, w, r.WithContext(ctx))
			}
			if err != nil {
				writeProblem(w, a.log, err)
			}
		})
	}}
}

func (e endpoint) operation() huma.Operation {
	return huma.Operation{
		OperationID: operationID(e.method, e.path), Method: e.method, Path: e.path, Summary: e.summary,
		MaxBodyBytes: e.maxBody, BodyReadTimeout: bodyReadTimeout, SkipValidateBody: true,
		Metadata: map[string]any{"needs": e.needs, "where": e.where.name},
	}
}

func operationID(method, path string) string {
	id := []byte(method)
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			id = append(id, c)
		} else if id[len(id)-1] != '-' {
			id = append(id, '-')
		}
	}
	return string(id)
}
