package httpapi

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
)

// bare is the API of an agent that is no server and knows nobody: enough for
// what is refused before anything is looked up.
func bare() *API {
	return New(Config{
		Self: func() api.Self { return api.Self{Name: "bare", Region: "global"} }, Health: func() api.Health { return api.Health{Live: true} },
		Logger: slog.New(slog.DiscardHandler),
	})
}

func TestForeignRequestsAreRefused(t *testing.T) {
	h := bare().Handler()
	for _, c := range []struct {
		name, method, path, host, origin, kind, body string
		status                                       int
	}{
		{"own address", "GET", "/v1/agent/self", "127.0.0.1:7610", "", "", "", 200},
		{"localhost", "GET", "/v1/agent/self", "localhost:7610", "http://localhost:7610", "", "", 200},
		{"IPv6", "GET", "/v1/agent/self", "[::1]:7610", "", "", "", 200},
		{"rebound name", "GET", "/v1/agent/self", "evil.example:7610", "", "", "", 403},
		{"foreign page", "GET", "/v1/agent/self", "127.0.0.1:7610", "http://evil.example", "", "", 403},
		{"form", "PUT", "/v1/jobs", "127.0.0.1:7610", "", "application/x-www-form-urlencoded", "a=b", 415},
		{"nothing there", "GET", "/v2/jobs", "127.0.0.1:7610", "", "", "", 404},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.status, w.Body)
		}
		if c.status >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: refused as %q", c.name, w.Header().Get("Content-Type"))
		}
	}
}

func TestEveryEndpointNamesWhatItNeeds(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range endpoints {
		if e.needs == "" || e.summary == "" {
			t.Errorf("%s %s needs nothing, or says nothing", e.method, e.path)
		}
		if seen[e.method+e.path] {
			t.Errorf("%s %s is there twice", e.method, e.path)
		}
		seen[e.method+e.path] = true
		if (e.method == http.MethodGet || e.method == http.MethodDelete) != (e.maxBody == 0) {
			t.Errorf("%s %s takes a body of %d bytes", e.method, e.path, e.maxBody)
		}
	}
}
