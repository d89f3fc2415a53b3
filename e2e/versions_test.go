package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestVersionsOfObjects: in a bucket that keeps versions, objects that are overwritten and deleted between
// the split and the tasks are read as they were listed. A job may also name a version of one object.
func TestVersionsOfObjects(t *testing.T) {
	g := startGatewayWith(t, []string{"--versioning-dir", t.TempDir()}, "data", "results")
	c := g.client(t)
	if err := c.EnableVersioning(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	const n = 30
	want := g.fill(t, "data", n)
	changed := make(chan struct{})
	release := sync.OnceFunc(func() { close(changed) })
	reading := make(chan struct{}) // closed when the first object is asked for
	read := sync.OnceFunc(func() { close(reading) })
	endpoint := g.proxy(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/data/in/") {
			read()
			<-changed
		}
		return false
	})
	t.Cleanup(release) // before the proxy is closed
	a := startDaemon(t, portsBlock(t, freePort(t))+`server {
  enabled = true
}
client {
  enabled = true
  drivers = ["exec"]`+buckets(t, endpoint)+`
}`)
	copier := `command = "` + goBuild(t, "./testdata/copier") + `"`
	a.ok("job", "run", "-detach", "-id", "listed", jobspec(t, copyJob("exec", copier, 7, "")))
	<-reading
	for i := range n {
		name, err := fmt.Sprintf("in/000/object-%05d.txt", i), error(nil)
		switch i % 3 {
		case 0:
			_, err = c.PutObject(t.Context(), "data", name, strings.NewReader("another\n"), 8, minio.PutObjectOptions{DisableMultipart: true})
		case 1:
			err = c.RemoveObject(t.Context(), "data", name, minio.RemoveObjectOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	release()
	a.ok("job", "wait", "listed")
	checkPublished(t, filepath.Join(g.dir, "results"), "listed", want)

	for i, kind := range []string{"replaced", "deleted"} {
		name := fmt.Sprintf("object-%05d.txt", i)
		var version string
		for v := range c.ListObjects(t.Context(), "data", minio.ListObjectsOptions{Prefix: "in/000/" + name, Recursive: true, WithVersions: true}) {
			if v.Err != nil {
				t.Fatal(v.Err)
			}
			if !v.IsLatest && !v.IsDeleteMarker {
				version = v.VersionID
			}
		}
		spec := strings.NewReplacer("s3://data/in/", "s3://data/in/000/"+name+"?versionId="+version, "/*/*.txt", "/*.txt").Replace(copyJob("exec", copier, 1, kind))
		a.ok("job", "run", "-id", kind, jobspec(t, spec))
		checkPublished(t, filepath.Join(g.dir, "results", kind), kind, map[string]string{name: want["000/"+name]})
	}
}
