package operations

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2/storage"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// furnish puts what the documents' examples read into the world: images, an archive on a web server, a gateway
// of IPFS that has the blocks of a CAR file which is there by the time somebody asks, and buckets.
func furnish(s *site, car string) {
	s.t.Helper()
	program := func(script string) containerdtest.Image {
		image := containerdtest.Busybox(s.t)
		image.Files["bin/program"] = []byte("#!/bin/sh\nset -eu\n" + script)
		image.Entrypoint = []string{"/bin/program"}
		return image
	}
	// As in -resize 100x100 -path /thumbs /photos/*.jpg, where the program itself looks for the files.
	s.world.put(s.t, "dpokidov/imagemagick:7", program(`[ "$1 $2 $3" = "-resize 100x100 -path" ]; for f in $5; do head -c 100 $f > $4/${f##*/}; done`))
	s.world.put(s.t, "team/loader:3", program(`[ -n "$PGPASSWORD" ]; cat /secrets/key.pem > /dev/null; echo loaded`))
	s.world.others["registry.example"] = closed("team:drowssap", s.world.handler)
	s.world.others["data.example.org"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/census/2024.tar.gz" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "2024.tar.gz", time.Unix(1700000000, 0), bytes.NewReader(archive(s.t, "north/a.csv", "south/b.csv", "south/readme.txt")))
	})
	s.world.others["ipfs.example.org"] = blocks(car)
	s.write("jobspec/srv/images/align.tar", string(ociArchive(s.t, program(`[ $1 = --shard-file ]; cat $SHEAF_SHARD_FILE > /sam/$SHEAF_PARTITION_INDEX`))))
	serveBuckets(s, map[string][]string{"photos": {"2024/may/a.jpg", "2024/may/b.jpg", "2024/june/c.jpg"}, "results": nil})
}

// closed lets in who shows user and password.
func closed(login string, inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user+":"+password != login {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// archive is a tar.gz of files that hold their names.
func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(n))}); err != nil {
			t.Error(err)
		}
		if _, err := w.Write([]byte(n)); err != nil {
			t.Error(err)
		}
	}
	for _, err := range []error{w.Close(), z.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
	return b.Bytes()
}

// blocks gives those of a CAR file by their CIDs.
func blocks(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		store, err := storage.OpenReadable(f)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		block, err := store.Get(r.Context(), c.KeyString())
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(block)
	})
}

// ociArchive is an image as `buildah push oci-archive:FILE` writes it.
func ociArchive(t testing.TB, image containerdtest.Image) []byte {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(containerdtest.Build(t, image))
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// disk is where the S3 service keeps its buckets: a machine sees them as files.
const disk = "jobspec/opt/buckets/"

// serveBuckets serves an S3 service with buckets, whose objects hold their names, until the test's end.
func serveBuckets(s *site, buckets map[string][]string) {
	s.t.Helper()
	program, err := filepath.Abs("../../bin/tools/versitygw")
	if err != nil {
		s.t.Fatal(err)
	}
	if !exists(program) {
		s.t.Fatalf("%s is not there: make bin/tools/versitygw", program)
	}
	if err := os.MkdirAll(s.path(disk), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write("s3.key", s.world.key)
	if err := os.Chmod(s.path("s3.key"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(s.pid), "--net", "--", program, "--quiet",
		"--port", elsewhere+":9000", "--cert", s.path("authority.pem"), "--key", s.path("s3.key"), "posix", s.path(disk))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=sheaf", "ROOT_SECRET_KEY=drowssap")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(s.t, "the S3 service listens", func() bool {
		var conn net.Conn
		conn, err := s.dial(elsewhere + ":9000")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	client, err := minio.New("s3.example.org:9000", &minio.Options{
		Creds: credentials.NewStaticV4("sheaf", "drowssap", ""), Secure: true,
		Transport: &http.Transport{
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return s.dial(elsewhere + ":9000") },
			TLSClientConfig: &tls.Config{RootCAs: s.world.pool()},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for bucket, objects := range buckets {
		if err := client.MakeBucket(s.t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
			s.t.Fatal(err)
		}
		for _, o := range objects {
			if _, err := client.PutObject(s.t.Context(), bucket, o, strings.NewReader(o), int64(len(o)), minio.PutObjectOptions{}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}
