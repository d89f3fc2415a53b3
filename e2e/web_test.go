package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// website serves a directory over TLS; every seventh request fails, every eleventh is cut off, but none for one file three times in a
// row: how often a request is tried has a bound.
func website(t *testing.T, dir string) (url, ca string) {
	t.Helper()
	files := http.FileServer(http.Dir(dir))
	var mu sync.Mutex
	requests, failed := 0, map[string]int{} // in a row, by path
	fails := func(path string) (refused, cut bool) {
		mu.Lock()
		defer mu.Unlock()
		requests++
		refused, cut = requests%7 == 0, requests%11 == 0
		if failed[path]++; !refused && !cut || failed[path] > 2 {
			failed[path] = 0
			return false, false
		}
		return refused, cut
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch refused, cut := fails(r.URL.Path); {
		case refused:
			w.WriteHeader(http.StatusServiceUnavailable)
		case cut:
			panic(http.ErrAbortHandler)
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			files.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return s.URL, ca
}

// TestWeb: a file, a list of URLs and an archive on a web server are inputs like others, and what a job must
// not reach it does not.
func TestWeb(t *testing.T) {
	dir := t.TempDir()
	var list, want strings.Builder
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(z)
	for i := range 40 {
		text := fmt.Sprintf("file %d\n", i)
		want.WriteString(text)
		write(t, filepath.Join(dir, fmt.Sprintf("%d.dat", i)), text)
		fmt.Fprintf(&list, "%d.dat  %d/part%%20%02d.txt\n", i, i/10, i)
		if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("./%d/part %02d.txt", i/10, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(tw, text)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "all.tar.zst"), packed.String())
	write(t, filepath.Join(dir, "list"), list.String())
	write(t, filepath.Join(dir, "one.txt"), want.String())
	site, ca := website(t, dir)
	header := filepath.Join(t.TempDir(), "header")
	write(t, header, "Authorization: Bearer t0ken\n")
	a := startReader(t, fmt.Sprintf(`  https "127.0.0.1" {
    private     = true
    ca_file     = %q
    header_file = %q
  }
  https "*" {
  }`, ca, header))
	job := func(source, glob string) string {
		return jobspec(t, fmt.Sprintf(`job "web" {
  input "in" {
    source = %q
    mount  = "/in"
  }
  split {
    glob       = %q
    batch_size = 7
  }
  task "cat" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", "find /in -name '*.txt' | sort | tr '\\n' '\\0' | xargs -0 cat"]
    }
  }
}`, source, glob))
	}
	sum := sha256.Sum256([]byte(want.String()))
	for _, c := range [][2]string{
		{site + "/list#list", "/*/*.txt"}, {site + "/list#list", "/*"},
		{site + "/all.tar.zst#unpack", "/*/*.txt"}, {site + "/all.tar.zst#unpack", "/*"},
		{site + "/one.txt", "/*"}, {site + "/one.txt#name=x.txt&sha256=" + hex.EncodeToString(sum[:]), "/x.txt"},
	} {
		out := filepath.Join(t.TempDir(), "result")
		a.ok("job", "run", "-o", out, job(c[0], c[1]))
		if got := read(t, out, "stdout"); got != want.String() {
			t.Errorf("%s %s: the tasks read %q", c[0], c[1], got)
		}
	}
	wrong := jobspec(t, strings.Replace(read(t, job(site+"/one.txt#sha256="+strings.Repeat("ab", 32), "/*")), `split {`, "retry {\n    attempts = 1\n  }\n  split {", 1))
	if r := a.cli("job", "run", wrong); r.code != 3 || !strings.Contains(r.stderr, hex.EncodeToString(sum[:])) {
		t.Errorf("a file of another digest: exit %d, %s", r.code, r.stderr)
	}
	for source, says := range map[string]string{
		site + "/nothing":                        "404",
		site + "/one.txt#unpack":                 "no archive",
		"https://169.254.169.254/latest/":        "169.254.169.254",
		"https://2852039166/latest/x":            "neither a name nor an address",
		"https://[::ffff:169.254.169.254]/x":     "never read from",
		"https://localhost" + site[17:] + "/one": "private",
	} {
		r := a.cli("input", "preview", job(source, "/*"))
		if r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit %d, %s", source, r.code, r.stderr)
		}
	}
}
