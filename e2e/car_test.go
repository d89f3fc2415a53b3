package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2/storage"
)

// TestContentAddressed: a directory becomes a CID and a CAR file, is read by path from that file and from a
// gateway, and a flipped block is refused by its CID.
func TestContentAddressed(t *testing.T) {
	dir := t.TempDir()
	var want strings.Builder
	for i := range 30 {
		text := fmt.Sprintf("file %d\n", i)
		want.WriteString(text)
		write(t, filepath.Join(dir, fmt.Sprintf("in/%d/part %02d.txt", i/10, i)), text)
	}
	data := t.TempDir()
	good := filepath.Join(data, "good.car")
	gateway := blockGateway(t, good)
	a := startReader(t, fmt.Sprintf(`  file_root %q {
  }
  ipfs {
    gateways = ["http://127.0.0.1:1", %q]
  }`, data, gateway))
	root := strings.TrimSpace(a.ok("input", "pack", dir, "-o", good))
	if again := strings.TrimSpace(a.ok("input", "pack", dir, "-o", good)); again != root || !strings.HasPrefix(root, "bafybei") {
		t.Fatalf("the CID is %q, and then %q", root, again)
	}
	bytes := []byte(read(t, good))
	at := strings.Index(string(bytes), "file 17\n")
	bytes[at] = 'F'
	write(t, filepath.Join(data, "flipped.car"), string(bytes))
	job := func(source, glob string) string {
		return jobspec(t, fmt.Sprintf(`job "content" {
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
  retry {
    attempts = 1
  }
}`, source, glob))
	}
	for _, c := range [][2]string{{"car://" + good, "/in/*/*.txt"}, {"car://" + good + "#/in", "/*"}, {"ipfs://" + root, "/*/*"}, {"ipfs://" + root + "/in", "/*/*.txt"}} {
		out := filepath.Join(t.TempDir(), "result")
		a.ok("job", "run", "-o", out, job(c[0], c[1]))
		if got := read(t, out, "stdout"); got != want.String() {
			t.Errorf("%s %s: the tasks read %q", c[0], c[1], got)
		}
	}
	for source, says := range map[string]string{
		"ipfs://not-a-cid":            "no CID",
		"car://" + good + "#/nothing": "nothing",
		"car:///etc/passwd":           "no directory",
	} {
		if r := a.cli("input", "preview", job(source, "/*")); r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit %d, %s", source, r.code, r.stderr)
		}
	}
	// What was fetched before is known by its CID; only what was flipped is read from the flipped file.
	other := strings.ReplaceAll(read(t, job("car://"+filepath.Join(data, "flipped.car"), "/in/*/*.txt")), `"content"`, `"flipped"`)
	fresh := startReader(t, fmt.Sprintf("  file_root %q {\n  }", data))
	flipped, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}.Sum([]byte("file 17\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r := fresh.cli("job", "run", jobspec(t, other)); r.code != 3 || !strings.Contains(r.stdout+r.stderr, flipped.String()) {
		t.Errorf("a flipped block: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

// blockGateway gives the blocks of a CAR file that is there by the time somebody asks.
func blockGateway(t *testing.T, path string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		blocks, err := storage.OpenReadable(f)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		block, err := blocks.Get(r.Context(), c.KeyString())
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(block)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
