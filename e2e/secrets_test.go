package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// ofPartition is what a log's lines begin with.
var ofPartition = regexp.MustCompile(`(?m)^\d+@[0-9a-f]+\| `)

// TestSecrets: tasks of every driver get a secret as a variable and as a file, and
// nothing else shows it: no log, no status, no file of the agent's.
func TestSecrets(t *testing.T) {
	token, key := "tok-4f1e-never-to-be-seen", "-----BEGIN KEY-----\nc2VjcmV0IGxpbmUgb25l\n-----END KEY-----\n"
	a := startAgent(t)
	put := func(name, value string, more ...string) ran {
		cmd := exec.Command(binary, append([]string{"secret", "put", name}, more...)...)
		cmd.Env = append(os.Environ(), "SHEAF_ADDR="+a.address)
		cmd.Stdin = strings.NewReader(value)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return ran{stdout: string(out), code: cmd.ProcessState.ExitCode()}
	}
	job := func(name, driver, config, env string) string {
		return jobspec(t, fmt.Sprintf(`
job %q {
  count = 2
  task "t" {
    driver = %q
    config {
      %s
    }
    env = {
      FAIL = %q
    }
    secret "token" {
      env = "TOKEN"
    }
    secret "key" {
      file = "/keys/private/key.pem"
    }
  }
  retry {
    attempts = 1
  }
}`, name, driver, config, env))
	}
	native := goBuild(t, "./testdata/secrets")
	program, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	archive := containerdtest.DockerArchive(t, containerdtest.Image{Ref: "sheaf.test/secrets:1", Files: map[string][]byte{"bin/secrets": program}, Entrypoint: []string{"/bin/secrets"}})
	user := containerdtest.DockerArchive(t, containerdtest.Image{Ref: "sheaf.test/secrets-user:1", Files: map[string][]byte{"bin/secrets": program}, Entrypoint: []string{"/bin/secrets"}, User: "1234:1234"})
	configs := map[string]struct{ driver, config string }{
		"exec":       {"exec", `command = "` + native + `"`},
		"wasm":       {"wasm", `module = "` + goModule(t, "./testdata/secrets") + `"`},
		"containerd": {"containerd", `image = "docker-archive:` + archive + `"`},
		"user":       {"containerd", `image = "docker-archive:` + user + `"`},
	}

	early := a.cli("job", "run", job("exec-1", "exec", configs["exec"].config, ""))
	if early.code == 0 || !strings.Contains(early.stderr, `has no secret "token"`) {
		t.Errorf("without its secrets: exit %d, %s", early.code, early.stderr)
	}
	for _, r := range []ran{put("token", token, "-job", "*-1"), put("key", key), put("other", "for another job", "-job", "other")} {
		if r.code != 0 || strings.Contains(r.stdout, token) {
			t.Fatalf("put: exit %d, %s", r.code, r.stdout)
		}
	}
	if r := put("large", strings.Repeat("x", 40<<10)); r.code != 2 || !strings.Contains(r.stdout, "32 KiB") {
		t.Errorf("40 KiB: exit %d, %s", r.code, r.stdout)
	}
	if r := put("../x", "x"); r.code != 2 {
		t.Errorf("a name that is none: exit %d, %s", r.code, r.stdout)
	}
	denied := a.cli("job", "run", job("not-granted", "exec", configs["exec"].config, ""))
	if denied.code == 0 || !strings.Contains(denied.stderr, `has no secret "token" for job "not-granted"`) {
		t.Errorf("not granted: exit %d, %s", denied.code, denied.stderr)
	}

	var shown strings.Builder
	sums := fmt.Sprintf("sums %x %x\n", sha256.Sum256([]byte(token)), sha256.Sum256([]byte(key)))
	for name, c := range configs {
		a.ok("job", "run", "-id", name, job(name+"-1", c.driver, c.config, ""))
		out, errs := a.ok("job", "logs", "-partition", "1", name), a.ok("job", "logs", "-partition", "1", "-stderr", name)
		out, errs = ofPartition.ReplaceAllString(out, ""), ofPartition.ReplaceAllString(errs, "")
		if out != sums+"the token is ***.\n***\n" || errs != "it failed with ***\n" {
			t.Errorf("%s printed %q and %q", name, out, errs)
		}
		shown.WriteString(out + errs + a.ok("job", "inspect", name) + a.ok("job", "explain", name))
	}
	failed := a.cli("job", "run", "-id", "failed", job("failed-1", "exec", configs["exec"].config, "yes"))
	if failed.code != 3 || !strings.Contains(failed.stdout+failed.stderr, "it failed with ***") {
		t.Errorf("a failure: exit %d\n%s%s", failed.code, failed.stdout, failed.stderr)
	}
	shown.WriteString(failed.stdout + failed.stderr + a.ok("job", "status", "failed") + a.ok("job", "status", "-json", "failed") + a.ok("secret", "list") + a.ok("secret", "list", "-json"))
	if list := a.ok("secret", "list"); !strings.Contains(list, "token") || !strings.Contains(list, "*-1") {
		t.Errorf("the list is\n%s", list)
	}

	a.ok("secret", "delete", "key")
	if gone := a.cli("job", "run", job("exec-1", "exec", configs["exec"].config, "")); gone.code == 0 || !strings.Contains(gone.stderr, `has no secret "key"`) {
		t.Errorf("after it was deleted: exit %d, %s", gone.code, gone.stderr)
	}
	shown.WriteString(said(t, a))
	left := func() []string {
		var all []string
		for _, p := range []string{"/run", "/dev/shm", os.Getenv("XDG_RUNTIME_DIR")} {
			if p == "" {
				continue
			}
			found, err := filepath.Glob(filepath.Join(p, "sheaf-secrets-*", "*", "*", "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, found...)
		}
		return all
	}
	a.stop()
	for _, path := range left() {
		if b, err := os.ReadFile(path); err == nil && string(b) == key {
			t.Errorf("%s is left", path)
		}
	}
	shown.WriteString(a.stderr.String())
	for _, s := range []string{token, "c2VjcmV0IGxpbmUgb25l"} {
		if strings.Contains(shown.String(), s) {
			t.Errorf("%q is shown in\n%s", s, shown.String())
		}
	}
	files := 0
	err = filepath.WalkDir(a.dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(token)) || bytes.Contains(b, []byte("c2VjcmV0IGxpbmUgb25l")) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files of the agent were looked through: %v", files, err)
	}
}

// said is all that an agent says of itself: its events up to the deletion of a secret, and a bundle for support.
func said(t *testing.T, a *agent) string {
	t.Helper()
	var all strings.Builder
	deleted := false
	for line, err := range a.client().Events(t.Context(), api.EventOptions{After: new(uint64), Namespace: "*"}) {
		b, marshalErr := json.Marshal(line)
		if err := errors.Join(err, marshalErr); err != nil {
			t.Fatal(err)
		}
		all.Write(b)
		if deleted = strings.Contains(string(b), "SecretDeleted"); deleted {
			break
		}
	}
	if !deleted {
		t.Error("the deletion of a secret is no event")
	}
	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	a.ok("operator", "debug", "-duration", "1s", "-o", bundle)
	f, err := os.Open(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(&all, plain); err != nil || n == 0 {
		t.Errorf("the bundle has %d bytes, %v", n, err)
	}
	return all.String()
}
