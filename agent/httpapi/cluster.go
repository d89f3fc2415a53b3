package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (a *API) listNodes(ctx context.Context, in *struct {
	ReadParams
	PageParams
}) (*Body[[]sheaf.Node], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofNodes)
	if err != nil {
		return nil, err
	}
	avoided := a.Server.Avoided()
	nodes := func(yield func(sheaf.Node) bool) {
		for n := range snap.Nodes() {
			node := n.Node
			node.Avoided = avoided[n.ID]
			if !yield(node) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, nodes, func(n sheaf.Node) string { return string(n.ID) })
	headers.NextToken = next
	return &Body[[]sheaf.Node]{headers, page}, err
}

func (a *API) members(_ context.Context, _ *struct{}) (*Body[[]api.Member], error) {
	leader := ""
	if a.Server != nil {
		leader, _ = a.Server.Leader()
	}
	out := []api.Member{}
	for _, m := range a.Gossip.Members() {
		var roles []string
		if m.Server != "" {
			roles = append(roles, "server")
		}
		if m.Node != "" {
			roles = append(roles, "client")
		}
		out = append(out, api.Member{
			Name: m.Name, Address: m.Gossip, RPC: m.Address, Role: strings.Join(roles, ","), Status: "alive",
			Leader: m.Server != "" && m.Address == leader, Tags: map[string]string{"region": m.Region, "version": m.Version, "http": m.HTTP},
		})
	}
	return &Body[[]api.Member]{Body: out}, nil
}

func (a *API) self(_ context.Context, _ *struct{}) (*Body[api.Self], error) {
	return &Body[api.Self]{Body: a.Self()}, nil
}

func (a *API) health(_ context.Context, _ *struct{}) (*Body[api.Health], error) {
	return &Body[api.Health]{Body: a.Health()}, nil
}

func (a *API) leader(_ context.Context, _ *struct{}) (*Body[string], error) {
	addr, _ := a.Server.Leader()
	return &Body[string]{Body: addr}, nil
}

func (a *API) peers(_ context.Context, _ *struct{}) (*Body[[]string], error) {
	out := []string{}
	for _, m := range a.Server.Members() {
		if m.Voter {
			out = append(out, m.Address)
		}
	}
	return &Body[[]string]{Body: out}, nil
}

func (a *API) regions(_ context.Context, _ *struct{}) (*Body[[]string], error) {
	return &Body[[]string]{Body: []string{a.Self().Region}}, nil
}

func (a *API) metrics(w http.ResponseWriter, r *http.Request, _ *struct{}) error {
	promhttp.HandlerFor(a.Metrics, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

func (a *API) openAPI(w http.ResponseWriter, _ *http.Request, _ *struct{}) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a.huma.OpenAPI())
}

// livez answers as long as the process does.
func (*API) livez(w http.ResponseWriter, _ *http.Request, _ *struct{}) error {
	_, _ = w.Write([]byte("ok\n"))
	return nil
}

// readyz answers 200 once the agent can do its work, else 503 with the reasons.
func (a *API) readyz(w http.ResponseWriter, _ *http.Request, _ *struct{}) error {
	if h := a.Health(); !h.Ready {
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: "not ready: " + strings.Join(h.Reasons, "; ")}
	}
	_, _ = w.Write([]byte("ok\n"))
	return nil
}
