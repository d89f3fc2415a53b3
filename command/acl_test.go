package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhoMayDoWhat walks through what an operator does with policies, tokens and namespaces, and what a person with a token then may.
func TestWhoMayDoWhat(t *testing.T) {
	startDev(t, "-acl")
	ctx := context.Background()
	dir := t.TempDir()
	for _, name := range []string{"SHEAF_TOKEN", "SHEAF_NAMESPACE"} {
		t.Setenv(name, "")
	}
	first := "first-secret-1234567890-1234567890-1234567890"
	secret := write(t, filepath.Join(dir, "secret"), first+"\n")
	short := write(t, filepath.Join(dir, "short"), "abc\n")
	empty := write(t, filepath.Join(dir, "empty"), "\n")
	large := write(t, filepath.Join(dir, "large"), strings.Repeat("x", 2000))
	rules := write(t, filepath.Join(dir, "team.hcl"), "namespace \"team-*\" { policy = \"write\" }\nnode { policy = \"read\" }\n")
	wrong := write(t, filepath.Join(dir, "wrong.hcl"), "namespace \"team-*\" {\n  policy = \"reed\"\n}\n")
	hugeRules := write(t, filepath.Join(dir, "huge.hcl"), strings.Repeat("# rules\n", 10_000))
	job := write(t, filepath.Join(dir, "job.hcl"), "job \"there\" {\n  count = 1\n  task \"t\" {\n    driver = \"mock\"\n    config {}\n  }\n}\n")

	belongs := write(t, filepath.Join(dir, "belongs.hcl"), "job \"there\" {\n  namespace = \"team-a\"\n  count     = 1\n  task \"t\" {\n    driver = \"mock\"\n    config {}\n  }\n}\n")

	type step struct {
		name, token string
		args        []string
		code        int
		out, err    string // stand in stdout and stderr
	}
	steps := func(all ...step) {
		t.Helper()
		for _, c := range all {
			args := c.args
			if c.token != "" {
				args = append([]string{"-token", c.token}, args...)
			}
			got := command(ctx, args...)
			if got.code != c.code || !strings.Contains(got.out, c.out) || !strings.Contains(got.err, c.err) {
				t.Errorf("%s: exit %d, want %d\nstdout: %s\n  want: %s\nstderr: %s\n  want: %s", c.name, got.code, c.code, got.out, c.out, got.err, c.err)
			}
		}
	}
	steps(
		step{"without a token", "", []string{"job", "list"}, 1, "", "set SHEAF_TOKEN or give -token"},
		step{"nobody yet", "", []string{"acl", "token", "self", "-q"}, 0, "anonymous\n", ""},
		step{"a secret that is too short", "", []string{"acl", "bootstrap", short}, 2, "", "36 to 128 letters"},
		step{"an empty one", "", []string{"acl", "bootstrap", empty}, 2, "", "is empty"},
		step{"one that is too long", "", []string{"acl", "bootstrap", large}, 2, "", "more than 1024 bytes"},
		step{"the first token", "", []string{"acl", "bootstrap", "-q", secret}, 0, first + "\n", ""},
		step{"the first token again", "", []string{"acl", "bootstrap"}, 2, "", "server/acl-bootstrap-reset"},
		step{"a policy with a mistake", first, []string{"acl", "policy", "apply", "team", wrong}, 2, "", "wrong.hcl:2:13"},
		step{"a policy that is too large", first, []string{"acl", "policy", "apply", "team", hugeRules}, 2, "", "more than 49152 bytes"},
		step{"a policy", first, []string{"acl", "policy", "apply", "-description", "the team", "team", rules}, 0, "", "team is in force"},
		step{"policies", first, []string{"acl", "policy", "list"}, 0, "team  the team", ""},
		step{"one policy", first, []string{"acl", "policy", "show", "team"}, 0, "namespace \"team-*\" { policy = \"write\" }\n", ""},
		step{"no such policy", first, []string{"acl", "policy", "show", "nope"}, 2, "", "agent acl policy list"},
		step{"a token of no policy that is there", first, []string{"acl", "token", "create", "-policy", "nope"}, 2, "", "no policy \"nope\""},
		step{"a namespace", first, []string{"namespace", "apply", "-description", "ours", "team-a"}, 0, "", ""},
		step{"namespaces", first, []string{"namespace", "list", "-q"}, 0, "default\nteam-a\n", ""},
		step{"a name that is none", first, []string{"namespace", "apply", "../x"}, 2, "", "name"},
	)
	made := command(ctx, "-token", first, "acl", "token", "create", "-name", "ci", "-policy", "team", "-ttl", "1h", "-t", "{{.accessor}} {{.secret}}")
	accessor, ours, ok := strings.Cut(strings.TrimSpace(made.out), " ")
	if made.code != 0 || !ok {
		t.Fatalf("made %q: exit %d, %s", made.out, made.code, made.err)
	}
	steps(
		step{"an unknown token", "sheaf-nobody", []string{"job", "list"}, 1, "", "the token is not known"},
		step{"who I am", ours, []string{"acl", "token", "self"}, 0, "policy team\n  namespace \"team-*\"", ""},
		step{"a token that is too weak", ours, []string{"acl", "token", "list"}, 1, "", "lacks manage-acl"},
		step{"the wrong namespace", ours, []string{"job", "run", job}, 1, "", "lacks submit-jobs in namespace \"default\""},
		step{"the right one", ours, []string{"-namespace", "team-a", "job", "run", "-id", "one", job}, 0, "", "one succeeded"},
		step{"a job that says where it belongs", ours, []string{"job", "run", "-id", "inside", belongs}, 0, "", "agent job logs -namespace team-a inside"},
		step{"a plan for it", ours, []string{"-namespace", "team-a", "job", "plan", job}, 0, "would run 1 partition", ""},
		step{"its list", ours, []string{"-namespace", "team-a", "job", "list", "-q"}, 0, "one\n", ""},
		step{"all lists", ours, []string{"-namespace", "*", "job", "list", "-q"}, 0, "one\n", ""},
		step{"nodes", ours, []string{"node", "list", "-q"}, 0, "", ""},
		step{"and no more of them", ours, []string{"node", "drain", "dev"}, 1, "", "lacks write-nodes"},
		step{"no such namespace", first, []string{"namespace", "delete", "nope"}, 2, "", "no namespace \"nope\""},
		step{"tokens", first, []string{"acl", "token", "list"}, 0, accessor + "  ci ", ""},
		step{"one token", first, []string{"acl", "token", "show", accessor}, 0, "policies  team\n", ""},
	)
	if all := command(ctx, "-token", first, "acl", "token", "list", "-json"); strings.Contains(all.out, ours) || strings.Contains(all.out, first) {
		t.Errorf("the list of tokens has secrets: %s", all.out)
	}
	// The environment and the person's own file, the nearer first.
	file := tokenFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, file, ours+"\n")
	steps(step{"a file that others may read", "", []string{"acl", "token", "self"}, 2, "", "others may read " + file})
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	steps(step{"the file", "", []string{"acl", "token", "self", "-q"}, 0, accessor, ""})
	t.Setenv("SHEAF_TOKEN", first)
	t.Setenv("SHEAF_NAMESPACE", "team-a")
	steps(
		step{"the environment", "", []string{"acl", "token", "self", "-t", "{{.token.type}}"}, 0, "management", ""},
		step{"a flag", ours, []string{"acl", "token", "self", "-q"}, 0, accessor, ""},
		step{"its namespace", "", []string{"job", "run", "-id", "two", "-exec", "--", "true"}, 0, "", "two succeeded"},
		step{"of which it is", "", []string{"job", "inspect", "two", "-t", "{{.job.namespace}}"}, 0, "team-a\n", ""},
		step{"no token", "", []string{"acl", "token", "delete", "nope"}, 2, "", "no token has the accessor \"nope\""},
		step{"delete the token", "", []string{"acl", "token", "delete", accessor}, 0, "", ""},
		step{"what it is then", ours, []string{"job", "list"}, 1, "", "the token is not known"},
		step{"a run that goes on", "", []string{"job", "run", "-detach", "-id", "long", "-exec", "--", "sleep", "600"}, 0, "long\n", ""},
		step{"its namespace is kept", "", []string{"namespace", "delete", "team-a"}, 2, "", "long"},
		step{"stop it", "", []string{"job", "stop", "long"}, 0, "long cancelled", ""},
		step{"delete the policy", "", []string{"acl", "policy", "delete", "team"}, 0, "", ""},
		step{"what is over goes with its namespace", "", []string{"namespace", "delete", "team-a"}, 0, "", ""},
		step{"what is left", "", []string{"namespace", "list", "-q"}, 0, "default\n", ""},
	)
}
