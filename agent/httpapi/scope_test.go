package httpapi_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/agent/httpapi"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
)

// hiddenName is in the name of everything that the team of namespace "blue" must not learn of.
const hiddenName = "hidden"

// inBodies are the requests of endpoints whose namespace stands in the body, or that take none without one.
var inBodies = map[string]string{
	"PUT /v1/jobs":               `{"id":"hidden-2","job":` + hiddenJob + `}`,
	"POST /v1/jobs/plan":         hiddenJob,
	"POST /v1/inputs/preview":    `{"job":` + hiddenJob + `}`,
	"PUT /v1/secret/{secret}":    `{"value":"eA=="}`,
	"PATCH /v1/job/{job}":        `{"priority":60}`,
	"POST /v1/job/{job}/retry":   `{"failed":true}`,
	"POST /v1/job/{job}/stop":    `{}`,
	"POST /v1/job/{job}/hold":    `{}`,
	"POST /v1/job/{job}/release": `{}`,
}

const hiddenJob = `{"name":"hidden","namespace":"red","count":2,"task":{"name":"t","driver":"mock","config":{"duration":"1h"}}}`

// hiddenRetries is a job whose partitions fail and are tried again in an hour.
const hiddenRetries = `{"name":"hidden","namespace":"red","count":1,"retry":{"attempts":3,"delay":"1h","max_delay":"1h"},"task":{"name":"t","driver":"mock","config":{"exit_code":1}}}`

// send sends a request of an endpoint about what is in namespace red.
func (s *served) send(row httpapi.Row, namespace, secret string) (int, string) {
	s.t.Helper()
	path := strings.NewReplacer("{job}", "hidden-1", "{n}", "0", "{node}", "dev", "{secret}", hiddenName, "{namespace}", "red", "{name}", "nope", "{accessor}", "nope").Replace(row.Path)
	sep := "?"
	for _, p := range row.Operation.Parameters {
		switch {
		case p.Name == "namespace" && p.In == "query":
			path += sep + "namespace=" + namespace
		case p.Required && p.In == "query":
			path += sep + p.Name + "=0"
		case p.Name == "index" && row.Path == "/v1/events":
			path += sep + "index=0"
		default:
			continue
		}
		sep = "&"
	}
	// Streams do not end: what comes at once is enough.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, row.Method, s.base+path, strings.NewReader(inBodies[row.Method+" "+row.Path]))
	if err != nil {
		s.t.Fatal(err)
	}
	if req.ContentLength > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("X-Sheaf-Token", secret)
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 1<<20)
	n := 0
	if stream := resp.Header.Get("Content-Type") == "application/x-ndjson"; stream {
		n, _ = resp.Body.Read(b)
	} else {
		n, _ = io.ReadFull(resp.Body, b)
	}
	return resp.StatusCode, string(b[:n])
}

// TestEveryEndpointKeepsToItsNamespaces goes through the table: whoever holds what an endpoint needs in one namespace
// is refused where another is concerned, and learns of nothing in it.
func TestEveryEndpointKeepsToItsNamespaces(t *testing.T) {
	s := guarded(t)
	ctx := context.Background()
	if _, err := s.as(firstSecret).BootstrapACL(ctx, firstSecret); err != nil {
		t.Fatal(err)
	}
	root := s.as(firstSecret)
	for _, name := range []string{"red", "blue"} {
		if err := root.PutNamespace(ctx, name, api.NamespaceRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.PutSecret(ctx, "red", hiddenName, api.SecretPut{Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if status, _, body := s.try("PUT", "/v1/jobs", `{"id":"hidden-1","job":`+hiddenJob+`}`, firstSecret); status != http.StatusOK {
		t.Fatalf("submit: %d %s", status, body)
	}
	if status, _, body := s.try("PUT", "/v1/jobs", `{"id":"hidden-waits","job":`+hiddenRetries+`}`, firstSecret); status != http.StatusOK {
		t.Fatalf("submit: %d %s", status, body)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		waiting, _, err := root.Evaluations(ctx, api.Read{Params: map[string][]string{"namespace": {"red"}}})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(waiting, func(e sheaf.Evaluation) bool { return e.Run == "hidden-waits" }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing waits for its placement")
		}
	}
	for index := uint64(0); ; { // until there is something to hide on the node, too
		run, m, err := root.Run(ctx, "hidden-1", api.Read{Index: index, Wait: time.Minute, Params: map[string][]string{"namespace": {"red"}}})
		if err != nil {
			t.Fatal(err)
		}
		if run.Partitions.Assigned+run.Partitions.Running > 0 {
			break
		}
		index = m.Index
	}
	// here holds a capability in namespace blue, or everywhere if it knows no namespace; there in red. looking
	// may see red, and holds the capability in blue.
	here, there, looking := map[acl.Capability]string{}, map[acl.Capability]string{}, map[acl.Capability]string{}
	for _, c := range append(append([]acl.Capability{}, acl.Global...), acl.Namespaced...) {
		if c == acl.ManageACL {
			continue // comes with everything
		}
		blue, red := rulesFor(c), rulesFor(c)
		if c.InNamespace() {
			blue = fmt.Sprintf("namespace \"blue\" { capabilities = [%q] }", c)
			red = fmt.Sprintf("namespace \"red\" { capabilities = [%q, \"read-jobs\"] }", c)
		}
		looking[c] = s.grant("look-"+string(c), blue+"\n"+strings.Replace(rulesFor(acl.ReadJobs), `"*"`, `"red"`, 1))
		here[c], there[c] = s.grant("blue-"+string(c), blue), s.grant("red-"+string(c), red)
	}
	seen := map[string]int{}
	var rows []httpapi.Row
	for _, row := range httpapi.Table() {
		if row.Needs != acl.Anyone && row.Needs != acl.ManageACL {
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		what := row.Method + " " + row.Path
		seen[row.Where]++
		switch row.Where {
		case "run", "body":
			status, body := s.send(row, "red", here[row.Needs])
			// What is not to be read is not there; where nothing is read, the refusal may say what lacks.
			if hidden := row.Where == "run" || row.Method == http.MethodGet; hidden && status != http.StatusNotFound || !hidden && status != http.StatusForbidden {
				t.Errorf("%s in red, with %s in blue: %d %s", what, row.Needs, status, body)
			}
			if row.Needs == acl.ReadJobs {
				continue
			}
			if status, body := s.send(row, "red", looking[row.Needs]); status != http.StatusForbidden && (status != http.StatusNotFound || row.Method != http.MethodGet || row.Where != "body") {
				t.Errorf("%s in red, with read-jobs there and %s in blue: %d %s", what, row.Needs, status, body)
			}
		case "list":
			if status, body := s.send(row, "red", here[row.Needs]); status != http.StatusForbidden && row.Path != "/v1/events" {
				t.Errorf("%s in red, with %s in blue: %d %s", what, row.Needs, status, body)
			}
			if status, body := s.send(row, "*", here[row.Needs]); row.Method == http.MethodGet && (status != http.StatusOK || strings.Contains(body, hiddenName)) {
				t.Errorf("%s in all namespaces, with %s in blue: %d %s", what, row.Needs, status, body)
			}
		default:
			if row.Method != http.MethodGet || row.Path == "/v1/agent/monitor" { // an agent's log may name runs, and is for those who keep agents
				continue
			}
			if status, body := s.send(row, "*", here[row.Needs]); status == http.StatusForbidden || strings.Contains(body, hiddenName) || strings.Contains(body, `"red"`) {
				t.Errorf("%s tells of namespace red, or is refused: %d %s", what, status, body)
			}
		}
	}
	for where, least := range map[string]int{"run": 15, "body": 5, "list": 4, "everywhere": 10, "somewhere": 1} {
		if seen[where] < least {
			t.Errorf("only %d endpoints are tried of scope %s", seen[where], where)
		}
	}
	// The same requests are right as such: who holds the capability in red is let in. What deletes comes last.
	for _, last := range []bool{false, true} {
		for _, row := range rows {
			if (row.Method == http.MethodDelete) != last || row.Where != "run" && row.Where != "body" && row.Where != "list" {
				continue
			}
			status, body := s.send(row, "red", there[row.Needs])
			missing := status == http.StatusNotFound && (row.Needs != acl.ReadOutputs || strings.Contains(body, "no run or job")) // it has no output yet
			if status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusBadRequest && !strings.HasSuffix(row.Path, "/file") || missing {
				t.Errorf("%s %s in red, with %s there: %d %s", row.Method, row.Path, row.Needs, status, body)
			}
		}
	}
}

// TestNothingIsServedBesideTheTable reads the package's source: handlers are registered by the rows of the table alone.
func TestNothingIsServedBesideTheTable(t *testing.T) {
	allowed := map[string]int{
		"api.go HandleFunc": 1, // what there is not, "/"
		"table.go Register": 2, // typed and raw
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				fun := call.Fun
				if generic, ok := fun.(*ast.IndexListExpr); ok {
					fun = generic.X
				}
				if sel, ok := fun.(*ast.SelectorExpr); ok {
					switch name := sel.Sel.Name; name {
					case "Handle", "HandleFunc", "Register", "Get", "Put", "Post", "Patch", "Delete", "AutoRegister":
						if on, ok := sel.X.(*ast.Ident); name[0] != 'H' && (!ok || on.Name != "huma") {
							return true // a header's Get, and such
						}
						found[f.Name()+" "+name]++
					}
				}
			}
			return true
		})
	}
	for what, n := range found {
		if n != allowed[what] {
			t.Errorf("%s is called %d times, %d are known: make it a row of the table of endpoints", what, n, allowed[what])
		}
	}
	for what := range allowed {
		if found[what] == 0 {
			t.Errorf("%s is not there any more: this test looks in the wrong place", what)
		}
	}
}
