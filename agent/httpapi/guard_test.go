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

// TestForeignRequestsByAnyMethod: Host, Origin and a body that is no JSON are looked at whatever the method, known or not.
func TestForeignRequestsByAnyMethod(t *testing.T) {
	h := bare().Handler()
	for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "NOPE"} {
		for name, c := range map[string]struct {
			header, value string
			status        int
		}{
			"host":          {"Host", "evil.example:7610", 403},
			"origin":        {"Origin", "http://evil.example", 403},
			"opaque origin": {"Origin", "null", 403},
			"form":          {"Content-Type", "text/plain", 415},
			"gzip":          {"Content-Encoding", "gzip", 415},
		} {
			body := ""
			if c.status == http.StatusUnsupportedMediaType {
				if body = "{}"; method == "GET" {
					continue // whose body nobody reads
				}
			}
			r := httptest.NewRequest(method, "/v1/jobs", strings.NewReader(body))
			r.Host = "127.0.0.1:7610"
			r.Header.Set("Content-Type", "application/json")
			if c.header == "Host" {
				r.Host = c.value
			} else {
				r.Header.Set(c.header, c.value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("%s with foreign %s: %d, want %d: %s", method, name, w.Code, c.status, w.Body)
			}
		}
	}
}

// TestServerHasItsBounds: those of time and size that no test waits for are set, and connections leave files to the rest.
func TestServerHasItsBounds(t *testing.T) {
	s := bare().HTTPServer()
	if s.ReadHeaderTimeout != headerTimeout || s.IdleTimeout != idleTimeout || s.MaxHeaderBytes != maxHeaderBytes {
		t.Errorf("header %s, idle %s, %d bytes", s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes)
	}
	for _, c := range []struct{ files, configured, connections, perAddress int }{{0, 0, 8192, 1024}, {1 << 20, 0, 8192, 1024}, {1024, 0, 256, 64}, {2, 0, 1, 1}, {1024, 1000, 1000, 1024}} {
		if got := (Limits{Files: c.files, Connections: c.configured}).filled(); got.Connections != c.connections || got.PerAddress != c.perAddress {
			t.Errorf("%d files, configured %d: %d connections, %d an address", c.files, c.configured, got.Connections, got.PerAddress)
		}
	}
	for _, e := range endpoints {
		if e.maxBody > 0 && bare().operation(e).BodyReadTimeout != bodyReadTimeout {
			t.Errorf("%s %s: a body may take %s", e.method, e.path, bare().operation(e).BodyReadTimeout)
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
