package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// TestTaskFiles: modules, and archives of images, come from wherever inputs do, and are what their digest says.
func TestTaskFiles(t *testing.T) {
	in, site, data := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(in, "word"), "a word\n")
	module := []byte(read(t, goModule(t, "./testdata/copier")))
	image := []byte(read(t, containerdtest.DockerArchive(t, containerdtest.Busybox(t))))
	backend := s3mem.New()
	if err := backend.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"copier.wasm": module, "busybox.tar": image} {
		if err := os.WriteFile(filepath.Join(site, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backend.PutObject("data", "bin/"+name, map[string]string{"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}, strings.NewReader(string(content)), int64(len(content)), nil); err != nil {
			t.Fatal(err)
		}
	}
	bucket := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(bucket.Close)
	web, ca := website(t, site)
	header := filepath.Join(t.TempDir(), "header")
	write(t, header, "Authorization: Bearer t0ken\n")
	packed := filepath.Join(data, "site.car")
	root := strings.TrimSpace(runCLI(t, nil, "input", "pack", site, "-o", packed).stdout)
	a := startClient(t, `"wasm", "containerd"`, fmt.Sprintf(`  file_root %q {
  }
  file_root %q {
  }
  s3 "data" {
    endpoint   = %q
    region     = "us-east-1"
    path_style = true
    anonymous  = true
  }
  https "127.0.0.1" {
    private     = true
    ca_file     = %q
    header_file = %q
  }
  ipfs {
    gateways = [%q]
  }`, in, data, bucket.URL, ca, header, blockGateway(t, packed)))
	job := func(driver, config string) string {
		return jobspec(t, fmt.Sprintf(`job "copy" {
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  task "copy" {
    driver = %q
    config {
      %s
    }
  }
  output "out" {
    path = "/out"
  }
}`, in, driver, config))
	}
	wasm := func(url string) string { return job("wasm", fmt.Sprintf("module = %q", url)) }
	archive := func(url string) string {
		return job("containerd", fmt.Sprintf("image = %q\nargs  = [\"sh\", \"-c\", \"cp /in/* /out/\"]", "docker-archive:"+url))
	}
	sum := sha256.Sum256(module)
	for name, spec := range map[string]string{
		"wasm s3":           wasm("s3://data/bin/copier.wasm"),
		"wasm https":        wasm(web + "/copier.wasm"),
		"wasm https digest": wasm(web + "/copier.wasm#sha256=" + hex.EncodeToString(sum[:])),
		"wasm car":          wasm("car://" + packed + "#/copier.wasm"),
		"wasm ipfs":         wasm("ipfs://" + root + "/copier.wasm"),
		"image s3":          archive("s3://data/bin/busybox.tar"),
		"image https":       archive(web + "/busybox.tar"),
		"image car":         archive("car://" + packed + "#/busybox.tar"),
		"image ipfs":        archive("ipfs://" + root + "/busybox.tar"),
	} {
		out := filepath.Join(t.TempDir(), "result")
		if r := a.cli("job", "run", "-o", out, spec); r.code != 0 {
			t.Errorf("%s: exit %d, %s%s", name, r.code, r.stdout, r.stderr)
		} else if got := read(t, out, "outputs", "out", "word"); got != "a word\n" {
			t.Errorf("%s: it has copied %q", name, got)
		}
	}
	for name, c := range map[string]struct {
		spec, says string
	}{
		"another digest": {wasm(web + "/copier.wasm?v=2#sha256=" + strings.Repeat("0", 64)),
			web + "/copier.wasm is sha256:" + hex.EncodeToString(sum[:]) + ", and sha256:" + strings.Repeat("0", 64) + " is wanted"},
		"another image": {archive(web + "/busybox.tar?v=2#sha256=" + strings.Repeat("0", 64)), web + "/busybox.tar is sha256:"},
		"no such image": {archive("car://" + packed + "#/nothing.tar"), "nothing.tar"},
		"a directory":   {wasm("s3://data/bin/"), "a file is needed"},
		"nothing there": {wasm(web + "/nothing.wasm"), "nothing.wasm"},
		"no module":     {wasm("s3://data/bin/busybox.tar"), "no WebAssembly module"},
	} {
		if r := a.cli("job", "run", c.spec); r.code != 3 || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%s: exit %d, %s%s", name, r.code, r.stdout, r.stderr)
		}
	}
	// Where it comes from says who can run it.
	if r := a.cli("job", "plan", wasm("https://elsewhere.example/copier.wasm")); r.code != 5 || !strings.Contains(r.stdout+r.stderr, "cannot fetch the module by https://") {
		t.Errorf("a module that no node can fetch: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
}
