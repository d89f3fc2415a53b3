package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sheaf-run/agent/sheaf"
)

// Problem is the body of every refused request, application/problem+json
// (RFC 9457) with the members code, field, limit and hint.
type Problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Code   sheaf.Class `json:"code"`
	Detail string      `json:"detail"`
	Field  string      `json:"field,omitempty"`
	Limit  string      `json:"limit,omitempty"`
	Hint   string      `json:"hint,omitempty"`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType names the media type of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders are the headers that go with it.
func (p *Problem) GetHeaders() http.Header {
	switch p.Status {
	case http.StatusTooManyRequests:
		return http.Header{"Retry-After": {"1"}}
	case http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {"Bearer"}}
	}
	return nil
}

// statusOf is the one place where a class becomes an HTTP status.
func statusOf(c sheaf.Class) int {
	switch c {
	case sheaf.Invalid, sheaf.Unsupported:
		return http.StatusBadRequest
	case sheaf.NotFound:
		return http.StatusNotFound
	case sheaf.Conflict:
		return http.StatusConflict
	case sheaf.NoIdentity:
		return http.StatusUnauthorized
	case sheaf.Denied:
		return http.StatusForbidden
	case sheaf.TooMany:
		return http.StatusTooManyRequests
	case sheaf.TooLarge:
		return http.StatusRequestEntityTooLarge
	case sheaf.NotLeader, sheaf.Unavailable:
		return http.StatusServiceUnavailable
	case sheaf.TimedOut:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// problemOf makes the reply of an error. The whole chain is its detail.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = &sheaf.Error{Class: sheaf.TimedOut, Msg: "the request was given up", Err: err}
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		err = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the agent is out of file descriptors", Err: err, Hint: "try again later; raise its limit of open files"}
	}
	p = &Problem{Code: sheaf.Internal, Detail: err.Error()}
	var ours *sheaf.Error
	if errors.As(err, &ours) {
		p.Code, p.Field, p.Limit, p.Hint = ours.Class, ours.Field, ours.Limit, ours.Hint
	}
	p.Status = statusOf(p.Code)
	p.Title = http.StatusText(p.Status)
	return p
}

// writeProblem answers a raw handler's request with an error.
func writeProblem(w http.ResponseWriter, log *slog.Logger, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		log.Warn("request failed", "error", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Del("Content-Length")
	maps.Copy(w.Header(), p.GetHeaders())
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		log.Debug("write problem", "error", err)
	}
}

// place takes over where and why huma refused a request: a parameter by its name, a key
// of the body by its own.
func (p *Problem) place(d *huma.ErrorDetail) {
	_, name, ok := strings.Cut(d.Location, ".")
	if p.Field = d.Location; ok {
		p.Field = name
	}
	if p.Detail = d.Message; d.Location != "body" {
		p.Detail = fmt.Sprintf("%s %q: %s", p.Field, fmt.Sprint(d.Value), d.Message)
		return
	}
	if m := keyNamed.FindStringSubmatch(d.Message); m != nil {
		p.Field = m[1]
	}
	if m := limitNamed.FindStringSubmatch(d.Message); m != nil {
		p.Limit = m[1]
	}
}

// What the strict decoder's message names, as huma passes on the message alone.
var (
	keyNamed   = regexp.MustCompile(`^key "([^"]*)"`)
	limitNamed = regexp.MustCompile(`\(limit ([^()]*)\)$`)
)

// humaProblem replaces huma's own errors: those of parameters that do not parse
// and bodies that cannot be read.
func humaProblem(status int, msg string, errs ...error) huma.StatusError {
	p := &Problem{Code: sheaf.Invalid, Detail: msg, Status: status}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		p.Code = sheaf.TooLarge
	case status == http.StatusNotFound:
		p.Code = sheaf.NotFound
	case status >= http.StatusInternalServerError:
		p.Code = sheaf.Internal
	case status == http.StatusUnprocessableEntity:
		p.Status = http.StatusBadRequest
	}
	p.Title = http.StatusText(p.Status)
	if _, limit, ok := strings.Cut(msg, " limit="); ok {
		p.Detail, p.Field, p.Limit = "the request's body is too large", "body", limit
	}
	for _, err := range errs {
		var d *huma.ErrorDetail
		var ours *sheaf.Error
		switch {
		case errors.As(err, &ours):
			return problemOf(ours)
		case errors.As(err, &d):
			p.place(d)
		case err != nil:
			p.Detail = msg + ": " + err.Error()
		}
	}
	return p
}
