// Package httpapi serves the HTTP API. One table (endpoints.go) lists every endpoint with
// the capability it needs; what an agent cannot answer itself, since it is no
// server or does not lead, it passes on to the leader's HTTP address.
//
// Replies are JSON, streams are NDJSON, errors are application/problem+json.
// Reads block with ?index= and ?wait=. All handlers may run concurrently.
package httpapi

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sheaf-run/agent/agent/monitor"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Server is what the API needs of a server: its methods and its state.
type Server interface {
	server.API
	Snapshot() *state.Snapshot
}

// Config is what the API is made of.
type Config struct {
	Server  Server // nil on an agent that is none
	Gossip  *gossip.Pool
	Self    func() api.Self
	Health  func() api.Health
	Parse   func(ctx context.Context, src jobspec.Source, vars map[string]string) (*sheaf.Job, error)
	ReadJob func([]byte) (*sheaf.Job, error) // the JSON form, completed and checked
	Metrics prometheus.Gatherer
	Logger  *slog.Logger
	// ACL makes callers show tokens. Without it everyone may do everything.
	ACL bool
	// Recheck is how often the token of a request that takes long is looked at again; 5 s unless given.
	Recheck time.Duration
	// Keyring changes the gossip keys of all agents, or with nil lists them.
	Keyring func(ctx context.Context, change *api.KeyringChange) (api.Keyring, error)
	// Settings is this agent's configuration without its secrets.
	Settings func() map[string]any
	// Leave takes this agent out of the cluster and ends it.
	Leave func(context.Context) error
	// LeaderTLS is how other agents' HTTPS is reached; nil without keys. HTTPS says that this agent
	// serves it, and that requests are passed on in no other way.
	LeaderTLS *tls.Config
	HTTPS     bool
	// AgentTLS is how the HTTPS of the agent called name is reached, client or server; nil without keys.
	AgentTLS func(name string) *tls.Config
	// Log is this agent's, to be followed; nil lets nobody.
	Log    *monitor.Log
	Limits Limits
	// Hosts are names, beside loopback ones, under which the API may be addressed.
	Hosts []string
}

// API is the HTTP API of one agent.
type API struct {
	Config
	mux  *http.ServeMux
	huma huma.API
	log  *slog.Logger

	toLeader *http.Transport
	good     atomic.Pointer[string] // on a client: RPC address of the server that answered last
	waits    slots
	ids      identities
}

// New builds the API; Handler serves it.
func New(conf Config) *API {
	huma.NewError = humaProblem
	conf.Limits = conf.Limits.filled()
	a := &API{Config: conf, mux: http.NewServeMux(), log: conf.Logger, toLeader: newToLeader(conf.LeaderTLS), waits: make(slots, conf.Limits.Waits)}
	if a.Recheck == 0 {
		a.Recheck = recheckEvery
	}
	hc := huma.DefaultConfig("Sheaf", "v1")
	hc.DocsPath, hc.OpenAPIPath, hc.SchemasPath = "", "", ""
	hc.CreateHooks, hc.Transformers = nil, nil
	format := huma.DefaultJSONFormat
	format.Unmarshal = sheaf.DecodeStrict
	hc.Formats = map[string]huma.Format{"application/json": format, "json": format}
	a.huma = humago.New(a.mux, hc)
	a.huma.OpenAPI().Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":  {Type: "apiKey", In: "header", Name: api.HeaderToken},
		"bearer": {Type: "http", Scheme: "bearer"},
	}
	text := reflect.TypeFor[string]()
	for _, t := range []reflect.Type{
		reflect.TypeFor[sheaf.Duration](), reflect.TypeFor[sheaf.Size](), reflect.TypeFor[sheaf.Ranges](),
		reflect.TypeFor[sheaf.PartitionState](),
	} {
		a.huma.OpenAPI().Components.Schemas.RegisterTypeAlias(t, text)
	}
	a.huma.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[sheaf.Threshold](), reflect.TypeFor[threshold]())
	for _, e := range endpoints {
		e.bind(a, e)
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allowed := a.methods(r); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(w, a.log, &Problem{
				Title: http.StatusText(http.StatusMethodNotAllowed), Status: http.StatusMethodNotAllowed, Code: sheaf.Invalid,
				Detail: r.URL.Path + " has no method " + r.Method, Field: "method", Limit: strings.Join(allowed, ", "), Hint: "the endpoints are in /v1/openapi.json",
			})
			return
		}
		writeProblem(w, a.log, &sheaf.Error{Class: sheaf.NotFound, Msg: "there is nothing at " + r.Method + " " + r.URL.Path, Hint: "the endpoints are in /v1/openapi.json"})
	})
	return a
}

// threshold is a sheaf.Threshold to the document: a number, or a share as text.
type threshold struct{}

// Schema implements huma.SchemaProvider.
func (threshold) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeInteger}, {Type: huma.TypeString, Description: `a share, as in "5%"`}}}
}

// methods are those that the endpoints at a request's path have.
func (a *API) methods(r *http.Request) []string {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "/" && pattern != "" {
			allowed = append(allowed, m)
		}
	}
	return allowed
}

// Limits of the listener. Bodies have their own, by endpoint.
const (
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// HTTPServer is a server of the API with its limits set; the caller serves and shuts it down.
func (a *API) HTTPServer() *http.Server {
	return &http.Server{
		Handler: a.Handler(), ReadHeaderTimeout: a.Limits.Header, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ConnContext: connContext, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

// Handler is the API behind its guards.
func (a *API) Handler() http.Handler { return a.guard(a.forward(a.mux)) }
