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

// forwardedBy marks a request that an agent passed on, so that two agents that
// each take the other for the leader do not send it round for ever.
const forwardedBy = "X-Sheaf-Forwarded"

// here are the paths that every agent answers for itself.
func here(path string) bool {
	return strings.HasPrefix(path, "/v1/agent/") || path == "/v1/metrics" || path == "/v1/openapi.json" || !strings.HasPrefix(path, "/v1/")
}

// forward passes requests on to the leader, unless they are about this agent,
// or allow a stale answer and this agent is a server. All servers derive the same events.
func (a *API) forward(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if here(r.URL.Path) || a.Server != nil && (a.leads() || r.URL.Path == "/v1/events" || r.URL.Query().Get("stale") == "true") {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get(forwardedBy) != "" {
			writeProblem(w, a.log, &sheaf.Error{Class: sheaf.Unavailable, Msg: "the leader is changing", Hint: "try again"})
			return
		}
		target, err := a.leaderHTTP()
		if err != nil {
			writeProblem(w, a.log, err)
			return
		}
		a.pass(w, r, target)
	})
}

// pass passes a request on to another agent.
func (a *API) pass(w http.ResponseWriter, r *http.Request, target *url.URL) {
	proxy := &httputil.ReverseProxy{
		Transport: a.toLeader, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Set(forwardedBy, a.Self().Name)
			p.Out.Header.Del("Origin")
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			writeProblem(w, a.log, &sheaf.Error{Class: sheaf.Unavailable, Msg: "pass the request on to " + target.Host, Err: err, Hint: "try again"})
		},
	}
	proxy.ServeHTTP(w, r)
}

const (
	// leaderDialed bounds the connecting to the leader's HTTP port.
	leaderDialed = 5 * time.Second
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

// urlOf is a server's HTTP address. Gossip is a hint: an agent that serves HTTPS itself does not
// let it talk it into sending tokens in plain text.
func (a *API) urlOf(m gossip.Member) (*url.URL, error) {
	switch {
	case (m.HTTPS || a.HTTPS) && a.LeaderTLS == nil:
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("server %s speaks HTTPS, and this agent has no certificate", m.Name), Hint: "give it a tls block"}
	case m.HTTPS || a.HTTPS:
		return &url.URL{Scheme: "https", Host: m.HTTP}, nil
	}
	return &url.URL{Scheme: "http", Host: m.HTTP}, nil
}

func (a *API) leads() bool {
	_, self := a.Server.Leader()
	return self
}

// leaderHTTP finds the leader's HTTP address: by its RPC address where this agent knows
// it, else any server's, which passes the request on in turn.
func (a *API) leaderHTTP() (*url.URL, error) {
	leader := ""
	if a.Server != nil {
		leader, _ = a.Server.Leader()
		if leader == "" {
			return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "the servers have no leader at present", Hint: "wait for an election, or ask with ?stale=true"}
		}
	}
	for _, m := range a.Gossip.Servers() {
		if m.HTTP != "" && (leader == "" || m.Address == leader) {
			return a.urlOf(m)
		}
	}
	return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("no server is known (leader %q)", leader), Hint: "check `join` in the configuration"}
}
