package server_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/seal"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/sheaf"
)

// withKeys gives a server the keys that *text lists at the time of each use.
func withKeys(text *string) func(*server.Config) {
	return func(c *server.Config) {
		c.Keys = func() (*seal.Keys, error) { return seal.Parse([]byte(*text)) }
	}
}

func using(name string) func(*sheaf.Job) {
	return func(j *sheaf.Job) { j.Task.Secrets = []sheaf.TaskSecret{{Name: name, Env: "TOKEN"}} }
}

// TestSecretsReachOnlyTheirNodes: a node is given the secrets of runs that it executes, in
// its present session, and nobody else is given anything.
func TestSecretsReachOnlyTheirNodes(t *testing.T) {
	keys, dir := seal.NewKey(), tempDir(t)
	h := startHost(t, dir, "", withKeys(&keys))
	holds := newFake(t, h, "holds", func(work) sheaf.Outcome { return 0 }).connect(nil)
	value := []byte("a value that must not lie open anywhere")
	stub, _, err := h.PutSecret(t.Context(), "default", "token", []string{"te*"}, sheaf.NewSecret(value))
	if err != nil || stub.Version == 0 {
		t.Fatalf("put: %+v, %v", stub, err)
	}
	if _, err := h.Submit(t.Context(), "no", job(count(1), using("other"))); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a job with a secret that is not there: %v", err)
	}
	h.submit(t, "r", job(count(1), using("token")))
	holds.await("work", func() bool { return len(holds.begun) == 1 })
	idle := newFake(t, h, "idle", succeed).connect(nil)
	ask := func(run, node string, session uint64) (*wire.ReadSecretsResponse, error) {
		return holds.servers.ReadSecrets(t.Context(), &wire.ReadSecretsRequest{Run: run, Node: node, Session: session})
	}
	got, err := ask("r", "holds", holds.session)
	if err != nil || len(got.Secrets) != 1 || !bytes.Equal(got.Secrets[0].Value, value) || got.Secrets[0].Name != "token" || got.Secrets[0].Version != stub.Version {
		t.Fatalf("the node that runs it gets %v, %v", got, err)
	}
	for what, refused := range map[string]struct {
		run, node string
		session   uint64
	}{
		"a node without the run":  {"r", "idle", idle.session},
		"an old session":          {"r", "holds", holds.session - 1},
		"a session to come":       {"r", "holds", holds.session + 1},
		"an unknown node":         {"r", "nobody", holds.session},
		"an unknown run":          {"x", "holds", holds.session},
		"a run that was refused":  {"no", "holds", holds.session},
		"nothing that has a name": {},
	} {
		if got, err := ask(refused.run, refused.node, refused.session); status.Code(err) != codes.Unavailable || len(got.GetSecrets()) > 0 {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	// Keys change without a restart; after resealing the old one is needed no more.
	old := keys
	keys = seal.NewKey()
	if _, err := ask("r", "holds", holds.session); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "cannot open secret") {
		t.Errorf("with another key: %v", err)
	}
	if _, err := h.ResealSecrets(t.Context()); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("resealed without the old key: %v", err)
	}
	only := keys
	keys += "\n" + old
	if n, err := h.ResealSecrets(t.Context()); n != 1 || err != nil {
		t.Errorf("resealed %d, %v", n, err)
	}
	keys = only
	if got, err := ask("r", "holds", holds.session); err != nil || !bytes.Equal(got.Secrets[0].Value, value) || got.Secrets[0].Version != stub.Version {
		t.Errorf("after resealing: %v, %v", got, err)
	}
	if n, err := h.ResealSecrets(t.Context()); n != 0 || err != nil {
		t.Errorf("resealed %d more, %v", n, err)
	}
	// What is withdrawn is not given out again.
	if _, _, err := h.GrantSecret(t.Context(), "default", "token", []string{"others"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("r", "holds", holds.session); status.Code(err) != codes.NotFound {
		t.Errorf("after the grant was withdrawn: %v", err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, value) || bytes.Contains(b, []byte(only)) {
			t.Errorf("%s holds the secret or its key", path)
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files of the server were looked through: %v", files, err)
	}
}

func TestSecretsAreBounded(t *testing.T) {
	keys := seal.NewKey()
	h := startHost(t, "", "", withKeys(&keys))
	most := make([]byte, sheaf.MaxSecret)
	grants := make([]string, sheaf.MaxSecretGrants)
	for i := range grants {
		grants[i] = strings.Repeat("x", sheaf.MaxNameLen)
	}
	name := strings.Repeat("n", sheaf.MaxNameLen)
	if _, _, err := h.PutSecret(t.Context(), name, name, grants, sheaf.NewSecret(most)); err != nil {
		t.Errorf("the largest secret: %v", err)
	}
	for what, err := range map[string]error{
		"a byte more":  second(h.PutSecret(t.Context(), "default", "x", nil, sheaf.NewSecret(append(most, 0)))),
		"no byte":      second(h.PutSecret(t.Context(), "default", "x", nil, sheaf.Secret{})),
		"a grant more": second(h.PutSecret(t.Context(), "default", "x", append(grants, "y"), sheaf.NewSecret(most))),
		"a bad grant":  second(h.PutSecret(t.Context(), "default", "x", []string{"[a"}, sheaf.NewSecret(most))),
		"a bad name":   second(h.PutSecret(t.Context(), "default", "../x", nil, sheaf.NewSecret(most))),
	} {
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	keyless := startHost(t, "", "")
	if _, _, err := keyless.PutSecret(t.Context(), "default", "x", nil, sheaf.NewSecret(most)); sheaf.ClassOf(err) != sheaf.Unavailable || !strings.Contains(err.Error(), "no key for secrets") {
		t.Errorf("without a key: %v", err)
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }
