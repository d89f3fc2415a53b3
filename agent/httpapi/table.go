package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
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
	// somewhere: to hold it in any namespace is enough, nothing remains.
	somewhere = scope{"somewhere"}
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
		huma.Register(a.huma, a.operation(e), func(ctx context.Context, in *I) (*O, error) {
			out, err := h(a, ctx, in)
			if err != nil {
				return nil, problemOf(because(ctx, err))
			}
			return out, nil
		})
	}}
}

// reply says what a raw endpoint writes: its media type, and for NDJSON what a line is.
type reply struct {
	kind string
	item reflect.Type // nil for bytes
}

// linesOf is NDJSON with a T a line.
func linesOf[T any]() reply { return reply{"application/x-ndjson", reflect.TypeFor[T]()} }

// bytesAs is bytes of a media type.
func bytesAs(kind string) reply { return reply{kind: kind} }

// raw is an endpoint that writes its reply itself; its parameters are read and
// described as a typed one's. It may return an error as long as it has written nothing.
func raw[I any](method, path string, needs Capability, where scope, summary string, maxBody int64, gives reply, h func(*API, http.ResponseWriter, *http.Request, *I) error) endpoint {
	return endpoint{method, path, needs, where, summary, maxBody, func(a *API, e endpoint) {
		op := a.operation(e)
		op.Responses = map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{gives.kind: {Schema: gives.schema(a)}}}}
		huma.Register(a.huma, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(hc huma.Context) {
				r, w := humago.Unwrap(hc)
				// The deadline was for the body, and the reply may take longer. Where there is none to lift, it was none.
				_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
				if err := h(a, w, r.WithContext(ctx), in); err != nil {
					writeProblem(w, a.log, because(ctx, err))
				}
			}}, nil
		})
	}}
}

func (g reply) schema(a *API) *huma.Schema {
	if g.item == nil {
		return &huma.Schema{Type: huma.TypeString, Format: "binary"}
	}
	return a.huma.OpenAPI().Components.Schemas.Schema(g.item, true, g.item.Name())
}

func (a *API) operation(e endpoint) huma.Operation {
	op := huma.Operation{
		OperationID: operationID(e.method, e.path), Method: e.method, Path: e.path, Summary: e.summary,
		MaxBodyBytes: e.maxBody, BodyReadTimeout: bodyReadTimeout, SkipValidateBody: true,
		Metadata: map[string]any{"needs": e.needs, "where": e.where.name}, Extensions: map[string]any{"x-sheaf-capability": string(e.needs)},
		Middlewares: huma.Middlewares{a.authorized(e), a.refuseUnknown},
	}
	if e.needs != Anyone {
		op.Security = []map[string][]string{{"token": {}}, {"bearer": {}}}
	}
	return op
}

// alongside are query parameters that every endpoint takes: a client may send
// its namespace and region along with whatever it asks.
var alongside = []string{"namespace", "region", "stale"}

// refuseUnknown refuses query parameters that the endpoint does not have: one that is mistyped
// would else be passed over, and the whole list deleted instead of a part.
func (a *API) refuseUnknown(hc huma.Context, next func(huma.Context)) {
	var known []string
	for _, p := range hc.Operation().Parameters {
		if p.In == "query" {
			known = append(known, p.Name)
		}
	}
	u := hc.URL()
	for _, name := range slices.Sorted(maps.Keys(u.Query())) {
		if slices.Contains(known, name) || slices.Contains(alongside, name) {
			continue
		}
		_, w := humago.Unwrap(hc)
		takes := "none"
		if len(known) > 0 {
			takes = strings.Join(known, ", ")
		}
		writeProblem(w, a.log, &sheaf.Error{Class: sheaf.Invalid, Field: name, Msg: fmt.Sprintf("%s has no query parameter %q", u.Path, name), Hint: "it takes: " + takes})
		return
	}
	next(hc)
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
