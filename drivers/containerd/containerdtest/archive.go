package containerdtest

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/namespaces"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func withNamespace(ctx context.Context, ns string) context.Context {
	return namespaces.WithNamespace(ctx, ns)
}

// Image is what an image is made of.
type Image struct {
	Ref        string            // its name, as in "sheaf.test/busybox:1"
	Files      map[string][]byte // executable, by path without a leading slash
	Links      map[string]string // symlinks, by path
	Passwd     string            // of /etc/passwd; empty is none
	Entrypoint []string
	User       string
	Arch       string // amd64 unless told
}

// Busybox is Debian's busybox-static with the usual names.
func Busybox(t testing.TB) Image {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the tests need Debian's busybox-static (make system-packages): %v", err)
	}
	img := Image{Ref: "sheaf.test/busybox:1", Files: map[string][]byte{"bin/busybox": program}, Links: map[string]string{}}
	for _, applet := range []string{"sh", "echo", "ls", "cat", "sleep", "touch", "find", "env", "head", "sha256sum", "expr", "test", "true", "false", "id", "mkdir", "ln", "rm", "wc", "date", "kill", "dd", "grep", "tail", "cut", "mount", "mknod", "chroot", "unshare", "readlink"} {
		img.Links["bin/"+applet] = "busybox"
	}
	return img
}

// Build makes the image.
func Build(t testing.TB, in Image) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, data []byte) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "tmp/", "etc/", "proc/", "dev/", "sys/"} {
		add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	for path, data := range in.Files {
		add(&tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}, data)
	}
	if in.Passwd != "" {
		add(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(in.Passwd))}, []byte(in.Passwd))
	}
	for path, target := range in.Links {
		add(&tar.Header{Name: path, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf = conf.DeepCopy()
	conf.Architecture, conf.OS = "amd64", "linux"
	if in.Arch != "" {
		conf.Architecture = in.Arch
	}
	conf.Config = v1.Config{Entrypoint: in.Entrypoint, Env: []string{"PATH=/bin"}, User: in.User}
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	return img
}

// DockerArchive writes the image as `docker save` does.
func DockerArchive(t testing.TB, in Image) string {
	t.Helper()
	tag, err := name.NewTag(in.Ref)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(path, tag, Build(t, in)); err != nil {
		t.Fatal(err)
	}
	return path
}
