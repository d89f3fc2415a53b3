package s3

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// keepVersions has the bucket keep versions from now on.
func (s *service) keepVersions(t *testing.T) {
	t.Helper()
	if err := s.backend.(gofakes3.VersionedBackend).SetVersioningConfiguration("data", gofakes3.VersioningConfiguration{Status: gofakes3.VersioningEnabled}); err != nil {
		t.Fatal(err)
	}
}

func (s *service) remove(t *testing.T, key string) {
	t.Helper()
	if _, err := s.backend.DeleteObject("data", key); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, s *service, url string) source.Source {
	t.Helper()
	src, err := s.open(url)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// tags are the identities of what a source lists.
func tags(t *testing.T, src source.Source) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, e := range sourcetest.List(t, src, source.Scope{}) {
		if e.Kind == sheaf.EntryFile {
			all[e.Path] = e.Tag
		}
	}
	return all
}

// reads holds a file of an identity against the wanted content, read whole, in part and from the middle.
func reads(t *testing.T, src source.Source, path, identity, want string) {
	t.Helper()
	f, err := src.Open(t.Context(), path, identity)
	if err != nil {
		t.Errorf("open %s as %q: %v", path, identity, err)
		return
	}
	defer f.Close()
	part := make([]byte, len(want)-1)
	n, perr := f.ReadAt(part, 1)
	b, err := io.ReadAll(f)
	if err != nil || perr != nil || string(b) != want || string(part[:n]) != want[1:] {
		t.Errorf("%s as %q reads as %q (%v), from its second byte as %q (%v), want %q", path, identity, b, err, part[:n], perr, want)
	}
	if err := f.Check(); err != nil {
		t.Errorf("%s as %q: %v", path, identity, err)
	}
	if e := f.Entry(); e.Size != int64(len(want)) || identity != "" && e.Tag != identity {
		t.Errorf("%s as %q is %+v", path, identity, e)
	}
}

func TestSuiteOfVersions(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T, files map[string]string) source.Source {
		s := start(t)
		s.keepVersions(t)
		for name := range files {
			s.put(t, "in/"+name, "an earlier version")
		}
		s.put(t, "in/gone", "deleted since")
		for name, content := range files {
			s.put(t, "in/"+name, content)
		}
		s.remove(t, "in/gone")
		return mustOpen(t, s, "s3://data/in/")
	}})
}

// What was listed is read, whatever was put or deleted since, and is the same to a run
// before the bucket kept versions and after.
func TestVersionThatWasListed(t *testing.T) {
	s := start(t)
	s.put(t, "in/old", "before versions")
	s.put(t, "in/a", "first")
	src := mustOpen(t, s, "s3://data/in/")
	before := tags(t, src)
	s.keepVersions(t)
	s.put(t, "in/a.bak", "another")
	s.put(t, "in/b", "stays")
	listed := tags(t, src)
	if listed["a"] != before["a"] || listed["old"] != before["old"] || len(listed) != 4 {
		t.Fatalf("identities were %v and are %v", before, listed)
	}
	s.put(t, "in/a", "second")
	s.put(t, "in/a", "third!")
	s.put(t, "in/old", "with versions")
	s.remove(t, "in/b")
	s.put(t, "in/b/below", "where an object was")
	reads(t, src, "a", listed["a"], "first")
	reads(t, src, "a", "", "third!")
	reads(t, src, "old", listed["old"], "before versions")
	reads(t, src, "b", listed["b"], "stays")
	for path, identity := range map[string]string{"a": "etag:0123456789abcdef0123456789abcdef:5", "b": "etag:0123456789abcdef0123456789abcdef:5"} {
		if _, err := src.Open(t.Context(), path, identity); !errors.Is(err, source.ErrChanged) {
			t.Errorf("%s as what it never was: %v", path, err)
		}
	}
}

// An object that is replaced or deleted under the reader's hands is read on as it was.
func TestReplacedWhileRead(t *testing.T) {
	s := start(t)
	s.keepVersions(t)
	content := map[string]string{"replaced": strings.Repeat("as it was ", 10), "deleted": strings.Repeat("it was there ", 10)}
	files := map[string]source.File{}
	src := mustOpen(t, s, "s3://data/")
	for name, text := range content {
		s.put(t, name, text)
		f, err := src.Open(t.Context(), name, "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[name] = f
	}
	s.put(t, "replaced", "other")
	s.remove(t, "deleted")
	for name, f := range files {
		if err := f.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != content[name] {
			t.Errorf("%s reads as %q: %v", name, got, err)
		}
		if err := f.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where versions may not be seen, an object that was replaced is one that has changed.
func TestVersionsUntold(t *testing.T) {
	s := start(t)
	s.keepVersions(t)
	s.put(t, "in/a", "first")
	src := mustOpen(t, s, "s3://data/in/")
	listed := tags(t, src)
	s.put(t, "in/a", "second")
	var status int
	fail := func(w http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("versions") {
			return false
		}
		w.WriteHeader(status)
		return true
	}
	s.fail.Store(&fail)
	for _, status = range []int{http.StatusForbidden, http.StatusNotImplemented, http.StatusMethodNotAllowed} {
		if _, err := src.Open(t.Context(), "a", listed["a"]); !errors.Is(err, source.ErrChanged) || sheaf.ClassOf(err) != sheaf.Conflict {
			t.Errorf("with status %d: %v", status, err)
		}
	}
	other := func(w http.ResponseWriter, r *http.Request) bool { // a service that knows no versions
		if q := r.URL.Query(); q.Has("versions") {
			q.Del("versions")
			r.URL.RawQuery = q.Encode()
		}
		return false
	}
	s.fail.Store(&other)
	if _, err := src.Open(t.Context(), "a", listed["a"]); !errors.Is(err, source.ErrChanged) {
		t.Errorf("without versions: %v", err)
	}
}

// What a service cannot say for the moment must not be taken for what it has not.
func TestTemporary(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{minio.ErrorResponse{StatusCode: http.StatusServiceUnavailable}, true},
		{minio.ErrorResponse{StatusCode: http.StatusTooManyRequests}, true},
		{&url.Error{Op: "Get", URL: "http://x", Err: io.ErrUnexpectedEOF}, true},
		{minio.ErrorResponse{StatusCode: http.StatusNotImplemented}, false},
		{minio.ErrorResponse{StatusCode: http.StatusForbidden}, false},
		{errors.New("unrecognized option:Contents"), false},
	} {
		if got := temporary(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

func TestOneVersion(t *testing.T) {
	s := start(t)
	s.keepVersions(t)
	s.put(t, "in/a", "first")
	versions, err := s.backend.(gofakes3.VersionedBackend).ListBucketVersions("data", &gofakes3.Prefix{HasPrefix: true, Prefix: "in/a"}, &gofakes3.ListBucketVersionsPage{})
	if err != nil || len(versions.Versions) != 1 {
		t.Fatalf("%+v: %v", versions, err)
	}
	id := string(versions.Versions[0].GetVersionID())
	pinned := "s3://data/in/a?versionId=" + id
	s.put(t, "in/a", "second")
	check := func() {
		t.Helper()
		one := mustOpen(t, s, pinned)
		list := tags(t, one)
		if len(list) != 1 || list["a"] == "" {
			t.Fatalf("it lists %v", list)
		}
		reads(t, one, "a", list["a"], "first")
		reads(t, one, "a", "", "first")
		if _, err := one.Open(t.Context(), "a", "etag:0123456789abcdef0123456789abcdef:5"); !errors.Is(err, source.ErrChanged) {
			t.Errorf("as what it is not: %v", err)
		}
	}
	check()
	s.remove(t, "in/a")
	check()
	// The object as it is now was deleted: it is none, and no prefix of others either.
	deleted := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead || r.URL.Path != "/data/in/a" {
			return false
		}
		w.Header().Set("X-Amz-Delete-Marker", "true") // which this service forgets
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	s.fail.Store(&deleted)
	src := mustOpen(t, s, "s3://data/in/a")
	if err := src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a deleted object lists with %v", err)
	}
	s.put(t, "in/a/b", "below")
	if got := tags(t, mustOpen(t, s, "s3://data/in/a")); len(got) != 1 || got["b"] == "" {
		t.Errorf("what was put below where an object was: %v", got)
	}
	s.fail.Store(nil)
	for url, class := range map[string]sheaf.Class{
		"s3://data/in/a?versionId=3/" + strings.Repeat("0", 60): sheaf.NotFound,
		"s3://data/in/none?versionId=" + id:                     sheaf.NotFound,
		"s3://data/in/?versionId=" + id:                         sheaf.Invalid,
		"s3://data/?versionId=" + id:                            sheaf.Invalid,
		"s3://data/in/a?versionId=":                             sheaf.Invalid,
		"s3://data/in/a?versionId=%zz":                          sheaf.Invalid,
		"s3://data/in/a?versionId=" + strings.Repeat("x", 1025): sheaf.Invalid,
	} {
		if _, err := s.open(url); sheaf.ClassOf(err) != class {
			t.Errorf("%s: %v", url, err)
		}
	}
	s.put(t, "in/a?versionId=x", "a name like another")
	src = mustOpen(t, s, "s3://data/in/a%3FversionId=x")
	reads(t, src, "a?versionId=x", "", "a name like another")
	if _, _, _, err := Writable([]Bucket{{Pattern: "data", Endpoint: s.URL, Writable: true}}, pinned); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("a version to be written: %v", err)
	}
}
