package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// service is an S3 service with one bucket.
type service struct {
	*httptest.Server
	backend gofakes3.Backend
	fail    atomic.Pointer[func(http.ResponseWriter, *http.Request) bool] // answers in the service's place
}

func start(t *testing.T) *service {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(backend).Server()
	s := &service{backend: backend}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail := s.fail.Load(); fail != nil && (*fail)(w, r) {
			return
		}
		if r.Method == http.MethodHead && r.URL.Query().Has("versionId") { // of which this service does not know
			r = r.Clone(r.Context())
			r.Method = http.MethodGet
			w = headOnly{w}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// headOnly is an answer without its body.
type headOnly struct{ http.ResponseWriter }

func (headOnly) Write(p []byte) (int, error) { return len(p), nil }

func (s *service) open(url string) (source.Source, error) {
	return Opener([]Bucket{{Pattern: "data", Endpoint: s.URL, Region: "us-east-1", PathStyle: true, AccessKey: "key", SecretKey: "secret"}})(url)
}

func (s *service) put(t *testing.T, key, content string) {
	t.Helper()
	if _, err := s.backend.PutObject("data", key, map[string]string{"Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}, strings.NewReader(content), int64(len(content)), nil); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

func TestSuite(t *testing.T) {
	var last *service
	sourcetest.Run(t, sourcetest.Harness{
		New: func(t *testing.T, files map[string]string) source.Source {
			last = start(t)
			for name, content := range files {
				last.put(t, "in/"+name, content)
			}
			last.put(t, "in-other/x", "not in it")
			s, err := last.open("s3://data/in/")
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Replace: func(t *testing.T, path, content string) { last.put(t, "in/"+path, content) },
	})
}

// TestDirectoriesAcrossPages guards their place: a directory whose objects come
// pages later stands before names that only begin like it.
func TestDirectoriesAcrossPages(t *testing.T) {
	s := start(t)
	var want []string
	add := func(key string) {
		s.put(t, key, key)
		want = append(want, key)
	}
	for i := range 1500 {
		add(fmt.Sprintf("img-2024.%04d.jpg", i))
	}
	for i := range 1200 {
		add(fmt.Sprintf("img/%04d/x", i))
		want = append(want, fmt.Sprintf("img/%04d", i))
	}
	add("img0")
	want = append(want, "img")
	slices.Sort(want)
	src, err := s.open("s3://data")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	count := func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false }
	s.fail.Store(&count)
	var got []string
	for _, e := range sourcetest.List(t, src, source.Scope{}) {
		got = append(got, e.Path)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("entry %d is %q, want %q", i, got[i], want[i])
			}
		}
	}
	if n := requests.Load(); n > 8 {
		t.Errorf("%d requests for 2,701 objects", n)
	}
	requests.Store(0)
	got = sourcetest.Paths(sourcetest.List(t, src, source.Scope{Descend: func(dir string) bool { return dir != "img" }}))
	if len(got) != 1502 || got[0] != "img/" || got[1501] != "img0" {
		t.Errorf("%d entries where img is not wanted", len(got))
	}
}

func TestSingleObjectsAndPrefixes(t *testing.T) {
	s := start(t)
	s.put(t, "a/b.txt", "b")
	s.put(t, "a/b.txt.bak", "other")
	s.put(t, "a/d/", "")
	for url, want := range map[string][]string{
		"s3://data/a/b.txt": {"b.txt"},
		"s3://data/a":       {"b.txt", "b.txt.bak", "d/"},
		"s3://data/a/":      {"b.txt", "b.txt.bak", "d/"},
		"s3://data":         {"a/", "a/b.txt", "a/b.txt.bak", "a/d/"},
		"s3://data/zzz/":    nil,
	} {
		src, err := s.open(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := sourcetest.Paths(sourcetest.List(t, src, source.Scope{})); !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", url, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := start(t)
	s.put(t, "bad//name", "")
	s.put(t, "both/x", "")
	s.put(t, "both", "")
	for url, class := range map[string]sheaf.Class{
		"s3://":                sheaf.Invalid,
		"s3://user:pw@data/x":  sheaf.Invalid,
		"s3://data/../x":       sheaf.Invalid,
		"s3://other/x":         sheaf.Denied,
		"s3://data/bad/":       sheaf.Invalid,
		"s3://data/":           sheaf.Invalid,
		"s3://data?versionId=": sheaf.Invalid,
	} {
		src, err := s.open(url)
		if err == nil {
			err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
		}
		if sheaf.ClassOf(err) != class {
			t.Errorf("%s: %v, want it %s", url, err, class)
		}
	}
	wrong := Opener([]Bucket{{Pattern: "*", Endpoint: s.URL, Region: "us-east-1", PathStyle: true, AccessKey: "k", SecretKey: "s"}})
	src, err := wrong("s3://nothere/x/")
	if err == nil {
		err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
	}
	if sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a bucket that is not there: %v", err)
	}
	forbid := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
	s.fail.Store(&forbid)
	src, err = s.open("s3://data/in/")
	if err == nil {
		err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
	}
	if sheaf.ClassOf(err) != sheaf.Denied {
		t.Errorf("forbidden: %v", err)
	}
}

// TestBrokenTransfers: what a service cuts off is read on from where it broke, and from the same object only.
func TestBrokenTransfers(t *testing.T) {
	s := start(t)
	content := strings.Repeat("0123456789abcdef", 64<<10)
	s.put(t, "big", content)
	src, err := s.open("s3://data/")
	if err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int32
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.Header.Get("Range") == "" {
			return false
		}
		if reads.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		var from, to int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.Header().Set("ETag", r.Header.Get("If-Match"))
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, content[from:min(to+1, from+100_000)]) // and the rest never comes
		return true
	}
	s.fail.Store(&cut)
	f, err := src.Open(t.Context(), "big", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != content {
		t.Errorf("read %d bytes of %d: %v", len(got), len(content), err)
	}
	part := make([]byte, 300_000)
	if n, err := f.ReadAt(part, 5); err != nil || string(part[:n]) != content[5:300_005] {
		t.Errorf("read %d bytes at 5: %v", n, err)
	}
	s.fail.Store(nil)
	s.put(t, "big", strings.ToUpper(content))
	if err := f.Check(); !errors.Is(err, source.ErrChanged) {
		t.Errorf("an object that was replaced: %v", err)
	}
	if _, err := f.ReadAt(part, 5); err == nil {
		t.Error("the bytes of another object were read")
	}
}

// TestWhoAsks: credentials that are wrong, too weak or expired are named as such, whatever status the service gives them.
func TestWhoAsks(t *testing.T) {
	s := &bucketSource{bucket: "data"}
	for _, r := range []minio.ErrorResponse{
		{StatusCode: http.StatusForbidden, Code: minio.AccessDenied}, {StatusCode: http.StatusUnauthorized},
		{StatusCode: http.StatusBadRequest, Code: "ExpiredToken"}, {StatusCode: http.StatusBadRequest, Code: "TokenRefreshRequired"},
	} {
		if err := s.failed("list it", r); sheaf.ClassOf(err) != sheaf.Denied {
			t.Errorf("%+v is %s: %v", r, sheaf.ClassOf(err), err)
		}
	}
	if err := s.failed("list it", minio.ErrorResponse{StatusCode: http.StatusBadRequest, Code: "SlowDown"}); sheaf.ClassOf(err) != sheaf.Unavailable {
		t.Errorf("a busy service is %v", err)
	}
}

// TestNoETag: an object that cannot be known again is refused when it is listed, by its key.
func TestNoETag(t *testing.T) {
	s := start(t)
	answer := func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.WriteString(w, `<ListBucketResult><Name>data</Name><Contents><Key>in/a</Key><Size>3</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents></ListBucketResult>`)
		return true
	}
	s.fail.Store(&answer)
	src, err := s.open("s3://data/in/")
	if err != nil {
		t.Fatal(err)
	}
	err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
	if sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), "in/a has no ETag") {
		t.Errorf("listed with %v", err)
	}
}
