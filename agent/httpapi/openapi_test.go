package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/agent/httpapi"
)

// document is an OpenAPI document, as far as it is checked.
type document struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]any
		SecuritySchemes map[string]any
	}
}

type operation struct {
	OperationID string
	Summary     string
	Capability  string `json:"x-sheaf-capability"`
	Security    []map[string][]string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   any
	}
	Responses map[string]struct {
		Content map[string]struct{ Schema any }
	}
}

// check says where a value is not as its schema says. The schema is of the subset that is made
// of Go types; an unknown keyword that constrains values fails.
func (d *document) check(at string, schema any, v any) error {
	s, ok := schema.(map[string]any)
	if !ok {
		if schema == true || schema == nil {
			return nil
		}
		return fmt.Errorf("%s: the schema is %v", at, schema)
	}
	if ref, ok := s["$ref"].(string); ok {
		to, ok := d.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
		if !ok {
			return fmt.Errorf("%s: %s leads nowhere", at, ref)
		}
		return d.check(at, to, v)
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", at, v, enum)
	}
	if either, ok := s["oneOf"].([]any); ok {
		return d.oneOf(at, either, v)
	}
	var kinds []string
	switch k := s["type"].(type) {
	case string:
		kinds = []string{k}
	case []any:
		for _, x := range k {
			kinds = append(kinds, x.(string))
		}
	case nil:
		return nil // anything
	}
	is := kindOf(v)
	if is == "integer" && slices.Contains(kinds, "number") {
		is = "number"
	}
	if !slices.Contains(kinds, is) {
		return fmt.Errorf("%s: is %s, described as %v", at, is, kinds)
	}
	switch v := v.(type) {
	case []any:
		for i, x := range v {
			if err := d.check(fmt.Sprintf("%s[%d]", at, i), s["items"], x); err != nil {
				return err
			}
		}
	case map[string]any:
		return d.checkObject(at, s, v)
	}
	return nil
}

func (d *document) oneOf(at string, either []any, v any) error {
	fit := 0
	for _, under := range either {
		if d.check(at, under, v) == nil {
			fit++
		}
	}
	if fit != 1 {
		return fmt.Errorf("%s: %v fits %d of the alternatives", at, v, fit)
	}
	return nil
}

func (d *document) checkObject(at string, s, v map[string]any) error {
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s.%s: is missing", at, name)
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for name, x := range v {
		under, ok := properties[name]
		if !ok {
			if under, ok = s["additionalProperties"]; !ok || under == false {
				return fmt.Errorf("%s.%s: is not described", at, name)
			}
		}
		if err := d.check(at+"."+name, under, x); err != nil {
			return err
		}
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

func (s *served) document(t *testing.T) *document {
	t.Helper()
	raw, err := s.client().OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := new(document)
	if err := json.Unmarshal(raw, d); err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"#/components/schemas/([^"]*)"`).FindAllSubmatch(raw, -1) {
		if _, ok := d.Components.Schemas[string(ref[1])]; !ok {
			t.Errorf("%s leads nowhere", ref[0])
		}
	}
	return d
}

var inPath = regexp.MustCompile(`\{([^}]*)\}`)

// TestDocumentIsWhole: every endpoint of the table is described, with its parameters, replies, errors, and what it needs.
func TestDocumentIsWhole(t *testing.T) {
	s := serve(t)
	d := s.document(t)
	if !strings.HasPrefix(d.OpenAPI, "3.") || d.Components.SecuritySchemes["token"] == nil {
		t.Errorf("version %q, security schemes %v", d.OpenAPI, d.Components.SecuritySchemes)
	}
	ids, described := map[string]bool{}, 0
	for _, item := range d.Paths {
		described += len(item)
	}
	if rows := len(httpapi.Table()); described != rows {
		t.Errorf("%d operations are described, the table has %d", described, rows)
	}
	for _, row := range httpapi.Table() {
		at := row.Method + " " + row.Path
		op, ok := d.Paths[row.Path][strings.ToLower(row.Method)]
		if !ok {
			t.Errorf("%s is not described", at)
			continue
		}
		if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || op.Capability != string(row.Needs) {
			t.Errorf("%s: ID %q, summary %q, capability %q", at, op.OperationID, op.Summary, op.Capability)
		}
		ids[op.OperationID] = true
		if (row.Needs == httpapi.Anyone) != (len(op.Security) == 0) {
			t.Errorf("%s: needs %s, security %v", at, row.Needs, op.Security)
		}
		var params []string
		for _, p := range op.Parameters {
			if p.Schema == nil || p.In == "path" && !p.Required {
				t.Errorf("%s: parameter %s has no schema, or may be left out of the path", at, p.Name)
			}
			params = append(params, p.In+" "+p.Name)
		}
		for _, m := range inPath.FindAllStringSubmatch(row.Path, -1) {
			if !slices.Contains(params, "path "+m[1]) {
				t.Errorf("%s: {%s} is not described among %v", at, m[1], params)
			}
		}
		if strings.Contains(row.Path, "{job}") && !slices.Contains(params, "query namespace") {
			t.Errorf("%s: a run is found in a namespace, which the endpoint does not take", at)
		}
		if op.Responses["default"].Content["application/problem+json"].Schema == nil {
			t.Errorf("%s: its errors are not described", at)
		}
		if op.Responses["204"].Content == nil && len(op.Responses["200"].Content) == 0 {
			if _, empty := op.Responses["204"]; !empty {
				t.Errorf("%s: its reply is not described", at)
			}
		}
	}
}

// samples are what stands for path and query parameters. An endpoint that needs others says so by failing.
var samples = map[string]string{"job": "first", "n": "0", "node": "dev", "partition": "0", "path": "out/x"}

// refusals are endpoints that a dev agent without ACLs, secrets or outputs refuses, and with what.
var refusals = map[string]int{
	"/v1/job/{job}/file":   http.StatusBadRequest, // the run has no outputs
	"/v1/operator/keyring": http.StatusConflict,   // gossip is not encrypted
}

// TestRepliesAreAsDescribed calls every endpoint that only reads, and compares what comes with the document.
func TestRepliesAreAsDescribed(t *testing.T) {
	s := serve(t)
	s.done("first", 3)
	d := s.document(t)
	called := 0
	for _, row := range httpapi.Table() {
		if row.Method != http.MethodGet {
			continue
		}
		op := d.Paths[row.Path]["get"]
		path := inPath.ReplaceAllStringFunc(row.Path, func(m string) string { return samples[strings.Trim(m, "{}")] })
		sep := "?"
		for _, p := range op.Parameters {
			if p.In == "query" && (p.Required || p.Name == "index" && row.Path == "/v1/events") {
				path += sep + p.Name + "=" + samples[p.Name]
				if p.Name == "index" {
					path += "0"
				}
				sep = "&"
			}
		}
		status, kind, lines := s.firstLines(t, path)
		called++
		reply := op.Responses["200"]
		want, refused := refusals[row.Path]
		if status >= 400 {
			reply = op.Responses["default"]
		}
		// What is not there can be asked for only by name, and this agent has none of some things.
		missing := strings.Contains(path, "//") || strings.HasSuffix(path, "/") || status == http.StatusNotFound && strings.Contains(row.Path, "{")
		if status != http.StatusOK && !missing && (!refused || status != want) && !strings.HasPrefix(row.Path, "/v1/acl/") {
			t.Errorf("GET %s: %d %.300s", path, status, strings.Join(lines, "\n"))
			continue
		}
		if kind == "" && len(lines) == 0 { // an empty stream
			continue
		}
		media, ok := reply.Content[kind]
		if !ok {
			t.Errorf("GET %s: %d is sent as %q, which is not described", path, status, kind)
			continue
		}
		if !strings.Contains(kind, "json") || row.Path == "/v1/openapi.json" {
			continue
		}
		for _, line := range lines {
			var v any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("GET %s: %v in %.200s", path, err, line)
			} else if err := d.check("reply", media.Schema, v); err != nil {
				t.Errorf("GET %s: %v\nin %.500s", path, err, line)
			}
		}
	}
	if called < 20 {
		t.Errorf("only %d endpoints were called", called)
	}
}

// firstLines is a reply, of one that goes on for ever its first line.
func (s *served) firstLines(t *testing.T, path string) (status int, kind string, lines []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	kind, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	in := bufio.NewReader(resp.Body)
	if kind != "application/x-ndjson" {
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, kind, []string{string(b)}
	}
	line, err := in.ReadString('\n')
	if err != nil && line == "" {
		return resp.StatusCode, kind, nil
	}
	return resp.StatusCode, kind, []string{line}
}
