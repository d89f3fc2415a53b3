package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Capability is what a caller must hold to use an endpoint.
type Capability string

// The capabilities, weakest first.
const (
	Anyone       Capability = "anyone" // liveness and the API's own description
	ReadJobs     Capability = "read-jobs"
	SubmitJobs   Capability = "submit-jobs"
	ReadNodes    Capability = "read-nodes"
	ReadAgent    Capability = "read-agent"
	PreviewFiles Capability = "preview-files" // lists files on clients
)

// bodyReadTimeout ends bodies that are dribbled.
const bodyReadTimeout = 30 * time.Second

// endpoint is a row of the table: what it is, what it needs and where the answer comes from. An
// endpoint without a capability does not compile into the table.
type endpoint struct {
	method, path string
	needs        Capability
	summary      string
	maxBody      int64 // bytes; 0 takes none
	bind         func(*API, endpoint)
}

// typed is an endpoint whose request and reply huma reads and writes.
func typed[I, O any](method, path string, needs Capability, summary string, maxBody int64, h func(*API, context.Context, *I) (*O, error)) endpoint {
	return endpoint{method, path, needs, summary, maxBody, func(a *API, e endpoint) {
		huma.Register(a.huma, e.operation(), func(ctx context.Context, in *I) (*O, error) {
			if err := a.authorize(ctx, e.needs); err != nil {
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
func raw(method, path string, needs Capability, summary string, maxBody int64, h func(*API, http.ResponseWriter, *http.Request) error) endpoint {
	return endpoint{method, path, needs, summary, maxBody, func(a *API, e endpoint) {
		op := e.operation()
		a.huma.OpenAPI().AddOperation(&op)
		a.mux.HandleFunc(e.method+" "+e.path, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, e.maxBody)
			err := a.authorize(r.Context(), e.needs)
			if err == nil {
				err = h(a, w, r)
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
		Metadata: map[string]any{"needs": e.needs},
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
