package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// TestBuckets: objects are split, staged, read by tasks and merged like files; every tenth request fails,
// and what was fetched once is not fetched again.
func TestBuckets(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	put := func(key, content string) {
		t.Helper()
		if _, err := backend.PutObject("data", key, map[string]string{"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}, strings.NewReader(content), int64(len(content)), nil); err != nil {
			t.Fatal(err)
		}
	}
	var want strings.Builder
	for i := range 300 {
		put(fmt.Sprintf("in/%d/part-%03d.txt", i/100, i), fmt.Sprintf("object %d\n", i))
		fmt.Fprintf(&want, "object %d\n", i)
	}
	put("in/0/skipped.bin", "not matched")
	inner := gofakes3.New(backend).Server()
	var requests, objects atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/in/") {
			objects.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	defer service.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "s3cret\n")
	a := startReader(t, fmt.Sprintf(`  s3 "da*" {
    endpoint        = %q
    region          = "us-east-1"
    path_style      = true
    access_key      = "key"
    secret_key_file = %q
  }`, service.URL, secret))
	job := func(source, glob string) string {
		return jobspec(t, fmt.Sprintf(`job "objects" {
  input "in" {
    source = %q
    mount  = "/in"
  }
  split {
    glob       = %q
    batch_size = 50
  }
  task "cat" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", "find /in -name '*.txt' | sort | xargs cat"]
    }
  }
}`, source, glob))
	}
	for i, glob := range []string{"/*/*.txt", "/*"} { // files, and directories
		out := filepath.Join(t.TempDir(), "result")
		before := objects.Load()
		a.ok("job", "run", "-o", out, job("s3://data/in/", glob))
		if got := read(t, out, "stdout"); got != want.String() {
			t.Errorf("%s: the tasks read %d bytes, want %d", glob, len(got), want.Len())
		}
		if n := objects.Load() - before; i > 0 && n > 2 {
			t.Errorf("%s: %d objects were fetched again", glob, n)
		}
	}
	// What it has of the bucket is a reason to place a run there.
	gate := filepath.Join(t.TempDir(), "gate")
	run := strings.TrimSpace(a.ok("job", "run", "-detach", "-q", jobspec(t, fmt.Sprintf(`job "gated" {
  input "in" {
    source = "s3://data/in/0/"
    mount  = "/in"
  }
  task "wait" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", "until [ -e %s ]; do sleep 0.1; done"]
    }
  }
}`, gate))))
	await(t, "the node being preferred", func() bool { return strings.Contains(a.ok("job", "explain", run), "is preferred: it has") })
	write(t, gate, "")
	a.ok("job", "wait", run)
	for source, says := range map[string]string{
		"s3://data/nothing/": "matched nothing",
		"s3://other/in/":     "s3",
	} {
		if r := a.cli("input", "preview", job(source, "/*")); r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit %d, %s", source, r.code, r.stderr)
		}
	}
}
