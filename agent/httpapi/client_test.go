package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/agent/httpapi"
	"github.com/sheaf-run/agent/api"
)

// asked notes which endpoints were asked, with which query parameters.
type asked struct {
	t    *testing.T
	rows map[string]httpapi.Row // by pattern
	mux  *http.ServeMux

	mu      sync.Mutex
	by      map[string][]string // pattern: methods of the client
	calling string
}

// ServeHTTP answers everything with an empty reply: what the client makes of it is not looked at.
func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, pattern := a.mux.Handler(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	row, ok := a.rows[pattern]
	if !ok {
		a.t.Errorf("Client.%s asks %s %s, which is no endpoint", a.calling, r.Method, r.URL.Path)
		return
	}
	if !slices.Contains(a.by[pattern], a.calling) {
		a.by[pattern] = append(a.by[pattern], a.calling)
	}
	known := []string{"namespace", "region", "stale"}
	for _, p := range row.Operation.Parameters {
		if p.In == "query" {
			known = append(known, p.Name)
		}
	}
	for name := range r.URL.Query() {
		if !slices.Contains(known, name) {
			a.t.Errorf("Client.%s sends %s ?%s=, which %s does not take (it takes %s)", a.calling, pattern, name, row.Path, strings.Join(known, ", "))
		}
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		a.t.Error(err)
	}
}

// TestClientHasEveryEndpoint calls every method of the Go client with arguments made up, and
// fails when an endpoint of the table was not asked by any, or one is asked that is not there.
func TestClientHasEveryEndpoint(t *testing.T) {
	a := &asked{t: t, rows: map[string]httpapi.Row{}, mux: http.NewServeMux(), by: map[string][]string{}}
	for _, row := range httpapi.Table() {
		pattern := row.Method + " " + row.Path
		a.rows[pattern] = row
		a.mux.Handle(pattern, http.NotFoundHandler())
	}
	s := httptest.NewServer(a)
	defer s.Close()
	c, err := api.New(api.Config{Address: s.URL, Namespace: "team", Region: "global"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v := reflect.ValueOf(c)
	for i := range v.NumMethod() {
		m := v.Type().Method(i)
		if m.Name == "Close" || m.Name == "Address" {
			continue
		}
		a.mu.Lock()
		a.calling = m.Name
		a.mu.Unlock()
		call(t, v.Method(i))
	}
	for _, row := range httpapi.Table() {
		if pattern := row.Method + " " + row.Path; len(a.by[pattern]) == 0 {
			t.Errorf("no method of api.Client asks %s: add one in package api, or, if it takes arguments that this test cannot make up, teach sample() to", pattern)
		}
	}
}

// call calls a method and uses up what it gives.
func call(t *testing.T, m reflect.Value) {
	var args []reflect.Value
	for i := range m.Type().NumIn() {
		if m.Type().IsVariadic() && i == m.Type().NumIn()-1 {
			break
		}
		args = append(args, sample(t, m.Type().In(i), 0))
	}
	for _, out := range m.Call(args) {
		if closer, ok := out.Interface().(io.Closer); ok && !out.IsNil() {
			closer.Close()
		}
		if out.Kind() == reflect.Func && out.Type().CanSeq2() {
			for range out.Seq2() {
			}
		}
	}
}

// sample makes a value that says something, so that every option is sent.
func sample(t *testing.T, of reflect.Type, depth int) reflect.Value {
	v := reflect.New(of).Elem()
	if depth > 3 {
		return v
	}
	switch of.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Struct:
		for i := range of.NumField() {
			if f := of.Field(i); f.IsExported() {
				v.Field(i).Set(sample(t, f.Type, depth+1))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(of.Elem()))
		v.Elem().Set(sample(t, of.Elem(), depth+1))
	case reflect.Slice:
		if of.Elem().Kind() != reflect.Uint8 && of.Elem().Kind() != reflect.Interface {
			v.Set(reflect.Append(v, sample(t, of.Elem(), depth+1)))
		}
	case reflect.Func:
		v.Set(reflect.MakeFunc(of, func([]reflect.Value) []reflect.Value {
			var out []reflect.Value
			for i := range of.NumOut() {
				out = append(out, reflect.Zero(of.Out(i)))
			}
			return out
		}))
	case reflect.Interface:
		switch of {
		case reflect.TypeFor[context.Context]():
			v.Set(reflect.ValueOf(t.Context()))
		case reflect.TypeFor[io.Reader]():
			v.Set(reflect.ValueOf(strings.NewReader("x")))
		case reflect.TypeFor[io.Writer]():
			v.Set(reflect.ValueOf(io.Discard))
		}
	}
	return v
}
