package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/agent"
	"github.com/sheaf-run/agent/agent/httpapi"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
)

const firstSecret = "11111111-2222-3333-4444-555555555555"

// guarded is a dev agent's API with ACLs on, bootstrapped.
func guarded(t *testing.T) *served {
	t.Helper()
	return serve(t, func(c *agent.Config) { c.ACL = &agent.ACLConfig{Enabled: true} })
}

func (s *served) as(secret string) *api.Client {
	s.t.Helper()
	c, err := api.New(api.Config{Address: s.base, Token: secret})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// try sends a request with a token, and gives up reading the answer after its first bytes.
func (s *served) try(method, path, body, secret string) (int, http.Header, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if secret != "" {
		req.Header.Set("X-Sheaf-Token", secret)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 4096)
	n := 0
	if resp.StatusCode >= 400 {
		n, _ = io.ReadFull(resp.Body, b)
	}
	return resp.StatusCode, resp.Header, string(b[:n])
}

// grant makes a token of a policy with these rules.
func (s *served) grant(name, rules string) string {
	s.t.Helper()
	ctx := context.Background()
	root := s.as(firstSecret)
	if err := root.PutPolicy(ctx, name, api.PolicyRequest{Rules: rules}); err != nil {
		s.t.Fatal(err)
	}
	made, err := root.CreateToken(ctx, api.TokenRequest{Name: name, Type: sheaf.TokenClient, Policies: []string{name}})
	if err != nil {
		s.t.Fatal(err)
	}
	return made.Secret
}

// rulesFor is a policy with one capability.
func rulesFor(c acl.Capability) string {
	block := `namespace "*"`
	switch c {
	case acl.ReadNodes, acl.WriteNodes:
		block = "node"
	case acl.ReadAgent, acl.WriteAgent:
		block = "agent"
	case acl.ReadOperator, acl.Operate, acl.ManageNamespaces:
		block = "operator"
	}
	return fmt.Sprintf("%s { capabilities = [%q] }", block, c)
}

// TestEveryEndpointIsGuarded goes through the table of endpoints itself: whatever is added to it is
// refused without a token, with an unknown or an expired one, and with every capability but its own.
func TestEveryEndpointIsGuarded(t *testing.T) {
	s := guarded(t)
	ctx := context.Background()
	root := s.as(firstSecret)
	if _, err := root.BootstrapACL(ctx, firstSecret); err != nil {
		t.Fatal(err)
	}
	all := append(append([]acl.Capability{}, acl.Global...), acl.Namespaced...)
	tokens := map[acl.Capability]string{}
	for _, c := range all {
		if c != acl.ManageACL {
			tokens[c] = s.grant("only-"+string(c), rulesFor(c))
		}
	}
	tokens[acl.ManageACL] = firstSecret
	short, err := root.CreateToken(ctx, api.TokenRequest{Type: sheaf.TokenClient, Policies: []string{"only-" + string(acl.ReadJobs)}, TTL: sheaf.Duration(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		status, _, body := s.try("GET", "/v1/jobs", "", short.Secret)
		if status == http.StatusUnauthorized {
			if !strings.Contains(body, "the token expired at") {
				t.Errorf("an expired token is refused as %s", body)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a token of a second lives on: %d", status)
		}
	}
	seen := 0
	var open []string
	for _, e := range httpapi.Table() {
		path := strings.NewReplacer("{job}", "nope", "{n}", "0", "{node}", "nope", "{name}", "nope", "{accessor}", "nope", "{namespace}", "nope", "{secret}", "nope", "{profile}", "nope").Replace(e.Path)
		if strings.Contains(path, "{") {
			t.Errorf("%s %s: the test does not know how to fill in its path", e.Method, e.Path)
		}
		what := e.Method + " " + e.Path
		if e.Needs == acl.Anyone {
			open = append(open, what)
			if status, _, body := s.try(e.Method, path, "", ""); status == http.StatusUnauthorized || status == http.StatusForbidden {
				t.Errorf("%s is for anyone, and refused: %d %s", what, status, body)
			}
			continue
		}
		seen++
		for name, secret := range map[string]string{"no token": "", "an unknown token": "sheaf-unknown", "an expired token": short.Secret, "a token of 10,000 letters": strings.Repeat("x", 10_000)} {
			status, header, body := s.try(e.Method, path, "", secret)
			if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"hint"`) {
				t.Errorf("%s with %s: %d %s", what, name, status, body)
			}
		}
		for c, secret := range tokens {
			status, _, body := s.try(e.Method, path, "", secret)
			refused := status == http.StatusUnauthorized || status == http.StatusForbidden
			switch {
			case c == acl.ManageACL || c == e.Needs:
				if refused {
					t.Errorf("%s needs %s, and a token with %s is refused: %d %s", what, e.Needs, c, status, body)
				}
			case status != http.StatusForbidden || !strings.Contains(body, "lacks "+string(e.Needs)):
				t.Errorf("%s needs %s, and with %s it answers %d %s", what, e.Needs, c, status, body)
			}
		}
	}
	slices.Sort(open)
	if want := []string{"GET /livez", "GET /readyz", "GET /v1/acl/self", "GET /v1/agent/health", "GET /v1/openapi.json", "POST /v1/acl/bootstrap"}; !slices.Equal(open, want) {
		t.Errorf("for anyone are %v; want %v", open, want)
	}
	if seen < 30 {
		t.Fatalf("saw %d guarded endpoints: the test looks at the wrong table", seen)
	}
}

// TestNamespacesAreApart: who may not read a namespace learns nothing of what is in it.
func TestNamespacesAreApart(t *testing.T) {
	s := guarded(t)
	ctx := context.Background()
	root := s.as(firstSecret)
	made, err := root.BootstrapACL(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.BootstrapACL(ctx, firstSecret); sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), "reset index") {
		t.Errorf("the first token is made twice: %v", err)
	}
	if strings.Contains(made.Accessor, made.Secret) || len(made.Secret) < 40 {
		t.Errorf("made %+v", made)
	}
	root = s.as(made.Secret)
	for _, ns := range []string{"red", "blue"} {
		if err := root.PutNamespace(ctx, ns, api.NamespaceRequest{Description: ns}); err != nil {
			t.Fatal(err)
		}
	}
	token := func(name, rules string) string {
		if err := root.PutPolicy(ctx, name, api.PolicyRequest{Rules: rules}); err != nil {
			t.Fatal(err)
		}
		return tokenOf(t, root, name)
	}
	redToken, lookerToken := token("red", `namespace "red" { policy = "write" }`), token("looker", `namespace "red" { capabilities = ["read-jobs"] }`)
	red, looker := s.as(redToken), s.as(lookerToken)
	submit := func(secret, id, namespace string) (int, string) {
		job := strings.Replace(mockJob("noop", 2), "{", fmt.Sprintf(`{"namespace":%q,`, namespace), 1)
		status, _, body := s.try("PUT", "/v1/jobs", fmt.Sprintf(`{"id":%q,"job":%s}`, id, job), secret)
		return status, body
	}
	for _, c := range []struct {
		secret, id, namespace string
		status                int
		says                  string
	}{
		{redToken, "red-1", "red", 200, ""},
		{redToken, "blue-0", "blue", 403, `lacks submit-jobs in namespace \"blue\"`},
		{redToken, "x", "green", 403, `lacks submit-jobs in namespace \"green\"`}, // as if it were there
		{made.Secret, "x", "green", 404, `"hint":"known: blue, default, red;`},
		{made.Secret, "blue-1", "blue", 200, ""},
		{lookerToken, "red-2", "red", 403, "lacks submit-jobs"},
	} {
		if status, body := submit(c.secret, c.id, c.namespace); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("submit %s to %s: %d %s", c.id, c.namespace, status, body)
		}
	}
	in := func(namespace string) api.Read {
		return api.Read{Params: map[string][]string{"namespace": {namespace}}}
	}
	list := func(c *api.Client, namespace string) string {
		runs, _, err := c.Runs(ctx, in(namespace))
		if err != nil {
			return string(sheaf.ClassOf(err))
		}
		var ids []string
		for _, r := range runs {
			ids = append(ids, string(r.ID))
		}
		return strings.Join(ids, " ")
	}
	for _, c := range []struct {
		who        *api.Client
		name, want string
	}{
		{root, "*", "blue-1 red-1"}, {root, "red", "red-1"}, {root, "", ""},
		{red, "*", "red-1"}, {red, "red", "red-1"}, {red, "blue", "denied"}, {red, "green", "denied"}, {red, "", "denied"}, {looker, "*", "red-1"},
		{s.as(""), "*", "no_identity"},
	} {
		if got := list(c.who, c.name); got != c.want {
			t.Errorf("listing %q gives %q, want %q", c.name, got, c.want)
		}
	}
	// Whether it is there or not, under whatever name, the answer to who may not read it is the same.
	for _, path := range []string{"", "/summary", "/partitions", "/errors", "/explain"} {
		for _, ref := range []string{"blue-1", "blue", "noop", "nowhere"} {
			_, err := get(ctx, t, s.base, red, "/v1/job/"+ref+path+"?namespace=blue")
			if sheaf.ClassOf(err) != sheaf.NotFound || !strings.Contains(err.Error(), fmt.Sprintf("no run or job is called %q", ref)) {
				t.Errorf("%s%s: %v", ref, path, err)
			}
		}
	}
	if err := root.Delete(ctx, "blue-1"); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a run of another namespace than that asked for: %v", err)
	}
	names, _, err := red.Namespaces(ctx, api.Read{})
	if err != nil || len(names) != 1 || names[0].Name != "red" {
		t.Errorf("red sees namespaces %v, %v", names, err)
	}
	if _, err := red.Namespace(ctx, "blue"); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("red is told of blue: %v", err)
	}
	// One that may read and no more is told so.
	status, _, body := s.try("POST", "/v1/job/red-1/stop?namespace=red", "{}", lookerToken)
	if status != http.StatusForbidden || !strings.Contains(body, "submit-jobs") {
		t.Errorf("who may only look stops a run: %d %s", status, body)
	}
	// What is not there for anonymous, a policy gives.
	if err := root.PutPolicy(ctx, sheaf.AnonymousPolicy, api.PolicyRequest{Rules: `namespace "red" { policy = "read" }`}); err != nil {
		t.Fatal(err)
	}
	if got := list(s.as(""), "*"); got != "red-1" {
		t.Errorf("anonymous sees %q", got)
	}
	if status, body := submit("", "x", "red"); status != http.StatusUnauthorized {
		t.Errorf("anonymous submits: %d %s", status, body)
	}
	self, err := s.as("").ACLSelf(ctx)
	if err != nil || self.Token != nil || len(self.Policies) != 1 {
		t.Errorf("anonymous is %+v, %v", self, err)
	}
}

func tokenOf(t *testing.T, root *api.Client, policy string) string {
	t.Helper()
	x, err := root.CreateToken(context.Background(), api.TokenRequest{Type: sheaf.TokenClient, Policies: []string{policy}})
	if err != nil {
		t.Fatal(err)
	}
	return x.Secret
}

// get reads a path that the client has no method for.
func get(ctx context.Context, t *testing.T, base string, c *api.Client, path string) (string, error) {
	t.Helper()
	ref, query, _ := strings.Cut(strings.TrimPrefix(path, "/v1/job/"), "?")
	name, what, _ := strings.Cut(ref, "/")
	r := api.Read{Params: map[string][]string{"namespace": {strings.TrimPrefix(query, "namespace=")}}}
	var err error
	switch what {
	case "":
		_, _, err = c.Run(ctx, name, r)
	case "summary":
		_, _, err = c.Summary(ctx, name, r)
	case "partitions":
		_, _, err = c.Partitions(ctx, name, r)
	case "errors":
		_, _, err = c.Errors(ctx, name, r)
	default:
		_, _, err = c.Partition(ctx, name, 0, r)
	}
	return base, err
}

// TestAStreamEndsWithItsToken: a stream, and a read that waits, end soon after the
// token that they were asked with is deleted, and say why.
func TestAStreamEndsWithItsToken(t *testing.T) {
	s := guarded(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	root := s.as(firstSecret)
	if _, err := root.BootstrapACL(ctx, firstSecret); err != nil {
		t.Fatal(err)
	}
	secret := s.grant("reader", `namespace "*" { policy = "read" }`)
	self, err := s.as(secret).ACLSelf(ctx)
	if err != nil || self.Token == nil {
		t.Fatalf("%+v, %v", self, err)
	}
	open := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	events := open("/v1/events?index=0")
	defer events.Body.Close()
	lines := bufio.NewScanner(events.Body)
	if events.StatusCode != http.StatusOK {
		t.Fatalf("events: %d", events.StatusCode)
	}
	_, m, err := s.as(secret).Runs(ctx, api.Read{})
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	waiter := s.as(secret)
	go func() {
		_, _, err := waiter.Runs(ctx, api.Read{Index: m.Index + 1_000_000, Wait: 10 * time.Minute})
		waited <- err
	}()
	if err := root.DeleteToken(ctx, self.Token.Accessor); err != nil {
		t.Fatal(err)
	}
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.Contains(last, "no_identity") {
		t.Errorf("the stream ended with %q, %v", last, lines.Err())
	}
	if err := <-waited; sheaf.ClassOf(err) != sheaf.NoIdentity {
		t.Errorf("the waiting read ended with %v", err)
	}
	if _, err := s.as(secret).ACLSelf(ctx); sheaf.ClassOf(err) != sheaf.NoIdentity {
		t.Errorf("a deleted token still is somebody: %v", err)
	}
}

// TestWithoutACLs: what would only seem to protect is refused.
func TestWithoutACLs(t *testing.T) {
	s := serve(t)
	c := s.as("")
	ctx := context.Background()
	if _, err := c.BootstrapACL(ctx, ""); sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), "ACLs are off") {
		t.Errorf("bootstrap: %v", err)
	}
	if err := c.PutPolicy(ctx, "p", api.PolicyRequest{Rules: `node { policy = "read" }`}); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("policy: %v", err)
	}
	if _, err := c.CreateToken(ctx, api.TokenRequest{Type: sheaf.TokenManagement}); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("token: %v", err)
	}
}
