package containerd_test

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

func prepare(t *testing.T, image string) (*driverpb.PrepareResponse, error) {
	t.Helper()
	d := containerd.New()
	if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return d.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "r", ConfigJson: config(t, image, "true")})
}

// TestImages: an OCI archive whose index names nothing, and a registry, give
// the same digest each time they are asked.
func TestImages(t *testing.T) {
	img := containerdtest.Build(t, containerdtest.Busybox(t))
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := index.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "oci.tar")
	tarFolder(t, dir, archive)

	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/busybox:1"
	if err := crane.Push(img, ref); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"oci-archive:" + archive, ref, ref} {
		got, err := prepare(t, image)
		if err != nil {
			t.Errorf("%s: %v", image, err)
			continue
		}
		if again, err := prepare(t, image); err != nil || again.GetDigest() != got.GetDigest() || got.GetDigest() == "" {
			t.Errorf("%s: digest %q, then %q, %v", image, got.GetDigest(), again.GetDigest(), err)
		}
	}
	if got, err := prepare(t, ref); err != nil || got.Digest != want.String() {
		t.Errorf("from the registry: %v, %v; want %s", got, err, want)
	}
}

// TestImportTogether: the agents of one machine find an archive at the same time, that none has imported.
func TestImportTogether(t *testing.T) {
	image := "docker-archive:" + containerdtest.DockerArchive(t, containerdtest.Busybox(t))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := prepare(t, image); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestHostileImages: what can never run here is refused when it is prepared,
// in a class that is not tried again.
func TestHostileImages(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	elsewhere := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	arm := containerdtest.Busybox(t)
	arm.Arch = "s390x"
	giant := containerdtest.Busybox(t)
	giant.User = "4294967297"
	garbage := filepath.Join(t.TempDir(), "garbage.tar")
	if err := os.WriteFile(garbage, []byte("this is no archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, image := range map[string]string{
		"missing":              host + "/no/such:1",
		"wrong architecture":   "docker-archive:" + containerdtest.DockerArchive(t, arm),
		"user 4294967297":      "docker-archive:" + containerdtest.DockerArchive(t, giant),
		"garbage":              "docker-archive:" + garbage,
		"a folder":             "oci-archive:" + t.TempDir(),
		"a relative path":      "oci-archive:x.tar",
		"a reference with ://": "https://example.org/x",
		"a metadata address":   "169.254.169.254/x:1",
		"the same by redirect": strings.TrimPrefix(elsewhere.URL, "http://") + "/x:1",
	} {
		got, err := prepare(t, image)
		var said *sheaf.Error
		if !errors.As(err, &said) || said.Class != sheaf.Invalid || said.Field != "config.image" || said.Hint == "" || !strings.Contains(err.Error(), image) && !strings.Contains(err.Error(), "archive") {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func tarFolder(t *testing.T, dir, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRegistryCredentials: a registry that wants credentials gets those of the
// run, and who brings none, or others, is refused without quoting them.
func TestRegistryCredentials(t *testing.T) {
	img := containerdtest.Build(t, containerdtest.Busybox(t))
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != "hunter2hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref := host + "/team/closed:1"
	if err := crane.Push(img, ref, crane.WithAuth(&authn.Basic{Username: "ann", Password: "hunter2hunter2"})); err != nil {
		t.Fatal(err)
	}
	ask := func(credentials string) error {
		d := containerd.New()
		if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		_, err := d.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "r", ConfigJson: config(t, ref, "true"), RegistryCredentials: []byte(credentials)})
		return err
	}
	for _, bad := range []string{"", "ann:hunter2", "bob:hunter2hunter2", `{"auths":{"elsewhere":{"auth":"YW5uOmh1bnRlcjJodW50ZXIy"}}}`} {
		if err := ask(bad); sheaf.ClassOf(err) != sheaf.Invalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("with %q: %s, %v", bad, sheaf.ClassOf(err), err)
		}
	}
	for _, good := range []string{"ann:hunter2hunter2", `{"auths":{"` + host + `":{"auth":"YW5uOmh1bnRlcjJodW50ZXIy"}}}`} {
		if err := ask(good); err != nil {
			t.Errorf("with the right ones: %v", err)
		}
	}
}
