package httpapi

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// forwardedBy names the agents that passed a request on, one value each.
	forwardedBy = "X-Sheaf-Forwarded"
	// maxPassed is how often a request is passed on: by a client to a server, and by that one to the leader. Two
	// servers that each take the other for the leader do not send it round for ever.
	maxPassed = 2
)

// here are the paths that every agent answers for itself.
func here(path string) bool {
	return strings.HasPrefix(path, "/v1/agent/") || path == "/v1/metrics" || path == "/v1/openapi.json" || !strings.HasPrefix(path, "/v1/")
}

// forward passes requests on to the leader, unless they are about this agent,
// or allow a stale answer and this agent is a server. All servers derive the same events.
func (a *API) forward(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if here(r.URL.Path) || a.Server != nil && (a.Server.Leads() || r.URL.Path == "/v1/events" || r.URL.Query().Get("stale") == "true") {
			next.ServeHTTP(w, r)
			return
		}
		if a.Server != nil {
			timer := time.NewTimer(leaderWait)
			_, self, err := a.awaitLeader(r.Context(), timer.C, "")
			timer.Stop()
			if err != nil {
				writeProblem(w, a.log, err)
				return
			}
			if self {
				next.ServeHTTP(w, r)
				return
			}
		}
		if len(r.Header.Values(forwardedBy)) >= maxPassed {
			writeProblem(w, a.log, &sheaf.Error{Class: sheaf.Unavailable, Msg: "the leader is changing", Hint: "try again"})
			return
		}
		a.pass(w, r, &upstream{api: a})
	})
}

// pass passes a request on by a transport that says where it goes.
func (a *API) pass(w http.ResponseWriter, r *http.Request, by http.RoundTripper) {
	proxy := &httputil.ReverseProxy{
		Transport: by, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Header.Add(forwardedBy, a.Self().Name)
			p.Out.Header.Del("Origin")
		},
		ModifyResponse: func(resp *http.Response) error {
			for name := range w.Header() { // both agents guard
				resp.Header.Del(name)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { writeProblem(w, a.log, err) },
	}
	proxy.ServeHTTP(w, r)
}

const (
	// leaderDialed bounds the connecting to another agent's HTTP port: with an election it stays
	// below the five seconds after which a write fails.
	leaderDialed = 2 * time.Second
	// leaderConns is how many idle connections to servers are kept.
	leaderConns = 64
)

func newToLeader(secured *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:     (&net.Dialer{Timeout: leaderDialed}).DialContext,
		TLSClientConfig: secured, TLSHandshakeTimeout: leaderDialed,
		MaxIdleConns: leaderConns, MaxIdleConnsPerHost: leaderConns, IdleConnTimeout: idleTimeout, DisableCompression: true,
	}
}

// urlOf is an agent's HTTP address. Gossip is a hint: an agent that serves HTTPS itself does not
// let it talk it into sending tokens in plain text.
func (a *API) urlOf(m gossip.Member) (*url.URL, error) {
	switch {
	case (m.HTTPS || a.HTTPS) && a.LeaderTLS == nil:
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("agent %s speaks HTTPS, and this agent has no certificate", m.Name), Hint: "give it a tls block"}
	case m.HTTPS || a.HTTPS:
		return &url.URL{Scheme: "https", Host: m.HTTP}, nil
	}
	return &url.URL{Scheme: "http", Host: m.HTTP}, nil
}
