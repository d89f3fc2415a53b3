package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

const (
	s3Key    = "key"
	s3Secret = "secretsecret"
)

// gateway is an S3 service in a process of its own, that keeps objects as files.
type gateway struct {
	dir string // with a folder for each bucket
	url *url.URL
}

// startGateway starts a service with buckets. The test's end stops it.
func startGateway(t *testing.T, buckets ...string) *gateway {
	t.Helper()
	return startGatewayWith(t, nil, buckets...)
}

// startGatewayWith starts it with options of how it keeps files.
func startGatewayWith(t *testing.T, options []string, buckets ...string) *gateway {
	t.Helper()
	program, err := filepath.Abs("../bin/tools/versitygw")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: make bin/tools/versitygw", err)
	}
	address := "127.0.0.1:" + freePort(t)
	g := &gateway{dir: t.TempDir(), url: &url.URL{Scheme: "http", Host: address}}
	for _, b := range buckets {
		if err := os.Mkdir(filepath.Join(g.dir, b), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, append(append([]string{"--quiet", "--port", address, "posix"}, options...), g.dir)...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Key, "ROOT_SECRET_KEY="+s3Secret)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	})
	await(t, "the S3 service listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return g
}

// proxy stands before the service. What answers gives true for has been answered.
func (g *gateway) proxy(t *testing.T, answers func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	through := httputil.NewSingleHostReverseProxy(g.url)
	through.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answers(w, r) {
			through.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// failing answers every tenth request with an error.
func failing() func(http.ResponseWriter, *http.Request) bool {
	var requests atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if requests.Add(1)%10 != 0 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
}

// client is one of the service, past any proxy.
func (g *gateway) client(t *testing.T) *minio.Client {
	t.Helper()
	c, err := minio.New(g.url.Host, &minio.Options{Creds: credentials.NewStaticV4(s3Key, s3Secret, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill puts n objects of a few bytes below in/ of a bucket, and gives their digests by path.
func (g *gateway) fill(t *testing.T, bucket string, n int) map[string]string {
	t.Helper()
	c := g.client(t)
	want := map[string]string{}
	puts, ctx := errgroup.WithContext(t.Context())
	puts.SetLimit(16)
	for i := range n {
		name, content := fmt.Sprintf("%03d/object-%05d.txt", i/100, i), fmt.Sprintf("content of %d\n", i)
		want[name] = digestOf(content)
		puts.Go(func() error {
			_, err := c.PutObject(ctx, bucket, "in/"+name, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{DisableMultipart: true})
			return err
		})
	}
	if err := puts.Wait(); err != nil {
		t.Fatal(err)
	}
	return want
}

// unfinished are the uploads in parts of a bucket that were begun and not ended.
func (g *gateway) unfinished(t *testing.T, bucket string) (keys []string) {
	t.Helper()
	for u := range g.client(t).ListIncompleteUploads(t.Context(), bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		keys = append(keys, u.Key)
	}
	return keys
}

// copyJob copies the objects of the bucket data to a place in the bucket results.
func copyJob(driver, config string, batch int, to string) string {
	return fmt.Sprintf(`job "copy" {
  input "in" {
    source = "s3://data/in/"
    mount  = "/in"
  }
  split {
    glob       = "/*/*.txt"
    batch_size = %d
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
  publish {
    to = "s3://results/%s"
  }
}`, batch, driver, config, to)
}

// objectsOr is how many objects SHEAF_OBJECTS asks for.
func objectsOr(t *testing.T, n int) int {
	t.Helper()
	set := os.Getenv("SHEAF_OBJECTS")
	if set == "" {
		return n
	}
	n, err := strconv.Atoi(set)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// buckets is the part of a client's configuration by which it reaches the service.
func buckets(t *testing.T, endpoint string) string {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, s3Secret)
	return fmt.Sprintf(`
  s3 "*" {
    endpoint        = %q
    region          = "us-east-1"
    path_style      = true
    access_key      = %q
    secret_key_file = %q
    writable        = true
  }`, endpoint, s3Key, secret)
}

// checkPublished holds what lies in a folder against the wanted digests of the files of one output, and
// nothing else may lie there.
func checkPublished(t *testing.T, dir, run string, want map[string]string) {
	t.Helper()
	var manifest struct {
		Run, List  string
		Files      int
		ListSHA256 string `json:"list_sha256"`
	}
	if err := json.Unmarshal([]byte(read(t, dir, run, "manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	list := read(t, dir, run, manifest.List)
	if manifest.Run != run || digestOf(list) != manifest.ListSHA256 || manifest.Files != len(want) {
		t.Errorf("the manifest is %+v for %d files", manifest, len(want))
	}
	named := map[string]bool{"manifest.json": true, manifest.List: true, filepath.Join(filepath.Dir(manifest.List), "result.json"): true}
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d files are listed, not %d", len(lines), len(want))
	}
	for _, line := range lines {
		var f struct{ Path, SHA256, Name string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		named[f.Name] = true
		if got := digestOf(read(t, dir, run, f.Name)); got != want[f.Path] || f.SHA256 != got {
			t.Errorf("%s has the digest %s, is listed with %s and should have %s", f.Path, got, f.SHA256, want[f.Path])
		}
	}
	for _, path := range filesIn(t, dir) {
		if rel, ok := strings.CutPrefix(path, run+"/"); !ok || !named[rel] {
			t.Errorf("%s was left behind", path)
		}
	}
}

// filesIn lists the files below a directory.
func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, rel)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

// TestPublishToBucket: objects of one bucket are split, read by tasks and published to another, where all
// digests are right and nothing else lies, while every tenth request fails. SHEAF_OBJECTS says how many there
// are; with it, WebAssembly and containers take their turn too.
func TestPublishToBucket(t *testing.T) {
	n := objectsOr(t, 2000)
	copier := goBuild(t, "./testdata/copier")
	configs := [][2]string{{"exec", `command = "` + copier + `"`}}
	if os.Getenv("SHEAF_OBJECTS") != "" {
		program, err := os.ReadFile(copier)
		if err != nil {
			t.Fatal(err)
		}
		image := containerdtest.Image{Ref: "sheaf.test/copier:1", Files: map[string][]byte{"bin/copier": program}, Entrypoint: []string{"/bin/copier"}}
		configs = append(configs,
			[2]string{"wasm", `module = "` + goModule(t, "./testdata/copier") + `"`},
			[2]string{"containerd", `image = "docker-archive:` + containerdtest.DockerArchive(t, image) + `"`})
	}
	g := startGateway(t, "data", "results")
	want := g.fill(t, "data", n)
	a := startDaemon(t, portsBlock(t, freePort(t))+`server {
  enabled = true
}
client {
  enabled = true
  drivers = ["exec", "wasm", "containerd"]`+buckets(t, g.proxy(t, failing()))+`
}`)
	for _, c := range configs {
		began := time.Now()
		a.ok("job", "run", "-id", "copy-"+c[0], jobspec(t, copyJob(c[0], c[1], 100, c[0]+"/")))
		t.Logf("%s: %d objects copied and published in %s", c[0], n, time.Since(began).Round(100*time.Millisecond))
		if got, want := a.status("copy-"+c[0]).Published, "s3://results/"+c[0]+"/copy-"+c[0]+"/manifest.json"; got != want {
			t.Errorf("%s: published is %q, not %q", c[0], got, want)
		}
		checkPublished(t, filepath.Join(g.dir, "results", c[0]), "copy-"+c[0], want)
		if left := g.unfinished(t, "results"); len(left) > 0 {
			t.Errorf("uploads were left unfinished: %q", left)
		}
	}
}

// TestPublisherIsKilled: a client is killed while it publishes, with some files written and one half. Nothing
// is there to be taken for a result; another client publishes the whole, and nothing of the first one's stays.
func TestPublisherIsKilled(t *testing.T) {
	n := objectsOr(t, 400)
	enough := int64(min(n/8, 200)) // puts, before the publisher is killed; while the first file waits, no more than publish.ahead of others follow it
	g := startGateway(t, "data", "results")
	want := g.fill(t, "data", n)
	large := strings.Repeat("0123456789abcde\n", 33<<20/16) // in three parts, and the first to be published
	want["00/large.txt"] = digestOf(large)
	if _, err := g.client(t).PutObject(t.Context(), "data", "in/00/large.txt", strings.NewReader(large), int64(len(large)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	gossip := freePort(t)
	server := startDaemon(t, "name = \"server\"\n"+portsBlock(t, gossip)+`server {
  enabled = true
  heartbeat {
    lease   = "5s"
    grace   = "2s"
    outputs = "1s"
  }
}`)
	clients := map[string]*agent{}
	gone := make(chan struct{}) // closed when who waits for an answer has been killed
	release := sync.OnceFunc(func() { close(gone) })
	reached := make(chan string, 2) // the client that has written enough, and waits
	for _, name := range []string{"one", "two"} {
		var puts atomic.Int64
		var written, parted sync.Once
		both := make(chan struct{}, 2)
		go func() {
			for range 2 {
				select {
				case <-both:
				case <-gone:
					return
				}
			}
			reached <- name
		}()
		fails := failing()
		endpoint := g.proxy(t, func(w http.ResponseWriter, r *http.Request) bool {
			select {
			case <-gone:
				return fails(w, r)
			default:
			}
			if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/outputs/out/") {
				return fails(w, r)
			}
			switch part := r.URL.Query().Get("partNumber"); {
			case part == "2":
				parted.Do(func() { both <- struct{}{} })
			case part != "" || puts.Add(1) < enough:
				return fails(w, r)
			default:
				written.Do(func() { both <- struct{}{} })
			}
			<-gone
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		t.Cleanup(release) // before the proxy is closed
		clients[name] = startDaemon(t, fmt.Sprintf("name = %q\njoin = [\"127.0.0.1:%s\"]\n", name, gossip)+portsBlock(t, freePort(t))+`client {
  enabled = true
  drivers = ["exec"]`+buckets(t, endpoint)+`
}`)
	}
	c := server.client()
	await(t, "both clients are ready", func() bool {
		nodes, _, err := c.Nodes(t.Context(), api.Read{})
		return err == nil && len(nodes) == 2
	})
	began := time.Now()
	server.ok("job", "run", "-detach", "-id", "killed", jobspec(t, copyJob("exec", `command = "`+goBuild(t, "./testdata/copier")+`"`, 40, "")))
	var publisher string
	select {
	case publisher = <-reached:
	case <-time.After(10 * patience):
		t.Fatalf("nothing is being published: %s", server.cli("job", "explain", "killed").stdout)
	}
	found := strings.Join(filesIn(t, filepath.Join(g.dir, "results", "killed")), "\n")
	if strings.Contains(found, "manifest.json") || !strings.Contains(found, "/outputs/out/") {
		t.Errorf("half-way there is:\n%s", found)
	}
	if half := g.unfinished(t, "results"); len(half) != 1 {
		t.Errorf("half-way these uploads in parts are begun, not one: %q", half)
	}
	clients[publisher].kill()
	release()
	server.ok("job", "wait", "killed")
	t.Logf("%d objects copied and published, the publisher killed in between, in %s", n+1, time.Since(began).Round(100*time.Millisecond))
	if left := g.unfinished(t, "results"); len(left) > 0 {
		t.Errorf("uploads were left unfinished: %q", left)
	}
	if err := os.RemoveAll(filepath.Join(g.dir, "results", ".sgwtmp")); err != nil { // the service's own
		t.Fatal(err)
	}
	checkPublished(t, filepath.Join(g.dir, "results"), "killed", want)
}

// TestPublishToDirectory: a cancelled run and one that fails publish nothing, and a deleted run's publication stays.
func TestPublishToDirectory(t *testing.T) {
	a, to := startAgent(t), t.TempDir()
	publishing := func(name, script string) string {
		return jobspec(t, shell(name, 3, script, fmt.Sprintf(`
  retry {
    attempts = 1
  }
  output "out" {
    path  = "/out"
    merge = "concat"
  }
  publish {
    to = "file://%s"
  }`, to)))
	}
	if r := a.cli("job", "run", "-id", "bad", publishing("bad", "echo x > $SHEAF_OUTPUT_OUT/all; exit $SHEAF_PARTITION_INDEX")); r.code != 3 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if left := filesIn(t, to); len(left) > 0 {
		t.Errorf("a run that failed has published %q", left)
	}
	r := a.cli("job", "run", "-id", "good", publishing("good", "echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_OUT/all"))
	if r.code != 0 || !strings.Contains(r.stderr, "published: file://"+to+"/good/manifest.json") {
		t.Errorf("exit %d, without saying where the result is:\n%s", r.code, r.stderr)
	}
	want := map[string]string{"all": digestOf("0\n1\n2\n")}
	checkPublished(t, to, "good", want)
	a.ok("job", "delete", "good")
	a.ok("job", "delete", "bad")
	checkPublished(t, to, "good", want)
}
