package httpapi

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// guard refuses what a browser was tricked into sending: a foreign Host (DNS
// rebinding), a foreign Origin, a body that is no JSON (a form).
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if err := overLimit(r); err != nil {
			h.Set("Connection", "close")
			writeProblem(w, a.log, err)
			return
		}
		if err := a.admit(r); err != nil {
			writeProblem(w, a.log, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) admit(r *http.Request) error {
	if !a.knownHost(r.Host) {
		return &sheaf.Error{Class: sheaf.Denied, Field: "Host", Msg: fmt.Sprintf("this agent is not addressed as %q", r.Host), Hint: "use its IP address or configured name"}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return &sheaf.Error{Class: sheaf.Denied, Field: "Origin", Msg: fmt.Sprintf("requests from pages of %q are refused", origin)}
		}
	}
	if r.ContentLength != 0 && r.Method != http.MethodGet {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err == nil && kind == "application/octet-stream" && r.URL.Path == "/v1/operator/snapshot" {
			kind = "application/json" // the one body that is no JSON; a form cannot send it either
		}
		if err != nil || kind != "application/json" {
			return notUnderstood("Content-Type", r.Header.Get("Content-Type"), "send application/json")
		}
		if enc := r.Header.Get("Content-Encoding"); enc != "" {
			return notUnderstood("Content-Encoding", enc, "send the body as it is")
		}
	}
	return nil
}

// notUnderstood refuses a body by its header, before anything of it is read.
func notUnderstood(header, value, hint string) error {
	const status = http.StatusUnsupportedMediaType
	return &Problem{Title: http.StatusText(status), Status: status, Code: sheaf.Unsupported, Detail: fmt.Sprintf("%s %q is not understood", header, value), Field: header, Hint: hint}
}

// knownHost: any literal address will do, since a page cannot make a browser send one that
// is not its own; of names only localhost and those configured.
func (a *API) knownHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(strings.ToLower(name), "[]")
	return net.ParseIP(name) != nil || name == "localhost" || slices.Contains(a.Hosts, name)
}
