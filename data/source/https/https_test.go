package https

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/archive"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// server is a web server with files that may change.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string]string // by path
	no     string            // what it does not do: "etag", "modified", "range", "length"
	answer func(w http.ResponseWriter, r *http.Request) bool
	asked  atomic.Int64
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{files: map[string]string{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) put(path, content string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files["/"+path] = content
	return s.URL + (&url.URL{Path: "/" + path}).EscapedPath()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.mu.Lock()
	content, ok := s.files[r.URL.Path]
	answer, no := s.answer, s.no
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	var changed time.Time
	if !strings.Contains(no, "modified") {
		changed = time.Date(2024, 1, 1, 0, 0, len(content), 0, time.UTC)
	}
	if !strings.Contains(no, "etag") {
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(content))))
	}
	if strings.Contains(no, "range") {
		r.Header.Del("Range")
	}
	if strings.Contains(no, "length") {
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, content)
		return
	}
	http.ServeContent(w, r, "", changed, strings.NewReader(content))
}

// host is the server's block of a configuration.
func (s *server) host() Host {
	return Host{Pattern: "127.0.0.1", Private: true, CAs: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}

func (s *server) open(t *testing.T, url string) source.Source {
	t.Helper()
	src, err := opener(t, s.host())(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func opener(t *testing.T, hosts ...Host) source.Opener {
	t.Helper()
	open, err := Opener(Options{Hosts: hosts, Keep: &folder{dir: t.TempDir()}, Limits: archive.Limits{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// folder keeps everything.
type folder struct {
	mu  sync.Mutex
	dir string
}

func (f *folder) Make(ctx context.Context, name string, make func(context.Context, io.Writer) error) (string, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(f.dir, hex.EncodeToString(sum[:]))
	if _, err := os.Stat(path); err == nil {
		return path, func() {}, nil
	}
	var b bytes.Buffer
	if err := make(ctx, &b); err != nil {
		return "", nil, err
	}
	return path, func() {}, os.WriteFile(path, b.Bytes(), 0o600)
}

// list writes a list of the files.
func (s *server) list(files map[string]string) string {
	var b strings.Builder
	b.WriteString("# URL, and where it stands\n\n")
	i := 0
	for path, content := range files {
		i++
		u := s.put(fmt.Sprintf("file/%d", i), content)
		if i%2 == 0 {
			u = strings.TrimPrefix(u, s.URL)
		}
		fmt.Fprintf(&b, "%s %s\r\n", u, strings.ReplaceAll(url.PathEscape(path), "%2F", "/"))
	}
	return s.put("list.txt", b.String()) + "#list"
}

func TestSuiteOfLists(t *testing.T) {
	for _, no := range []string{"", "etag", "range"} {
		t.Run("without "+no, func(t *testing.T) {
			var last *server
			var at map[string]string
			sourcetest.Run(t, sourcetest.Harness{
				New: func(t *testing.T, files map[string]string) source.Source {
					last, at = start(t), files
					last.no = no
					return last.open(t, last.list(files))
				},
				Replace: func(_ *testing.T, path, content string) {
					last.mu.Lock()
					defer last.mu.Unlock()
					for p, c := range last.files {
						if c == at[path] {
							last.files[p] = content
						}
					}
					if no == "etag" { // times are whole seconds there
						last.no = "modified"
						last.answer = func(w http.ResponseWriter, _ *http.Request) bool {
							w.Header().Set("Last-Modified", "Mon, 02 Jan 2023 15:04:05 GMT")
							w.Header().Set("ETag", "")
							return false
						}
					}
				},
				AnyBytes: true,
			})
		})
	}
}

func tarOf(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSuiteOfArchives(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T, files map[string]string) source.Source {
		s := start(t)
		return s.open(t, s.put("all.tar", tarOf(t, files))+"#unpack")
	}, AnyBytes: true})
}

func content(t *testing.T, src source.Source, path, identity string) (string, error) {
	t.Helper()
	f, err := src.Open(t.Context(), path, identity)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), errors.Join(err, f.Check())
}

func TestOneFile(t *testing.T) {
	s := start(t)
	const text = "0123456789"
	u := s.put("d/a b.txt", text)
	sum := sha256.Sum256([]byte(text))
	for fragment, want := range map[string]string{"": "a b.txt", "#name=x": "x", "#sha256=" + hex.EncodeToString(sum[:]): "a b.txt", "#name=y%2Fz": ""} {
		src, err := opener(t, s.host())(u + fragment)
		if want == "" {
			if sheaf.ClassOf(err) != sheaf.Invalid {
				t.Errorf("%s: %v", fragment, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all := sourcetest.List(t, src, source.Scope{})
		if len(all) != 1 || all[0].Path != want || all[0].Size != 10 || strings.HasPrefix(all[0].Tag, "sha256:") != strings.Contains(fragment, "sha256") {
			t.Errorf("%s lists %+v", fragment, all)
		}
		if got, err := content(t, src, want, all[0].Identity()); err != nil || got != text {
			t.Errorf("%s holds %q, %v", fragment, got, err)
		}
		if _, err := content(t, src, "other", ""); sheaf.ClassOf(err) != sheaf.NotFound {
			t.Errorf("another file: %v", err)
		}
	}
	src := s.open(t, u+"#sha256="+strings.Repeat("ab", 32))
	if _, err := content(t, src, "a b.txt", ""); sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), hex.EncodeToString(sum[:])) {
		t.Errorf("another digest: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	s := start(t)
	s.put("a", "x")
	s.put("lists/words", s.URL+"/a b c")
	s.put("lists/twice", s.URL+"/a\n/a")
	s.put("lists/climbs", s.URL+"/a ../a")
	s.put("lists/elsewhere", "https://example.org/a")
	s.put("lists/plain", "http://127.0.0.1/a")
	s.put("lists/nested", "/lists/words#list")
	s.put("lists/long", strings.Repeat("#", maxListBytes+1))
	s.put("climbs.tar", tarOf(t, map[string]string{"../../x": "y"}))
	for url, want := range map[string]struct {
		class sheaf.Class
		says  string
	}{
		s.URL + "/nothing":              {sheaf.NotFound, "404"},
		s.URL + "/":                     {sheaf.Invalid, "#name="},
		s.URL + "/a#list&unpack":        {sheaf.Invalid, "list and an archive"},
		s.URL + "/a#other":              {sheaf.Invalid, `"other"`},
		s.URL + "/a#sha256=12":          {sheaf.Invalid, "malformed digest"},
		s.URL + "/a#unpack":             {sheaf.Invalid, "no archive"},
		s.URL + "/climbs.tar#unpack":    {sheaf.Invalid, `"../../x"`},
		s.URL + "/lists/words#list":     {sheaf.Invalid, "line 1"},
		s.URL + "/lists/twice#list":     {sheaf.Invalid, `line 2`},
		s.URL + "/lists/climbs#list":    {sheaf.Invalid, `"../a"`},
		s.URL + "/lists/elsewhere#list": {sheaf.Denied, "example.org"},
		s.URL + "/lists/plain#list":     {sheaf.Invalid, "no https"},
		s.URL + "/lists/nested#list":    {sheaf.Invalid, "list or an archive"},
		s.URL + "/lists/long#list":      {sheaf.TooLarge, "too long"},
		"https://user:pw@127.0.0.1/a":   {sheaf.Invalid, "password"},
		"https://other.example/a":       {sheaf.Denied, `https "other.example"`},
		"https://127.0.0.1:1/a":         {sheaf.Unavailable, "refused"},
	} {
		src, err := opener(t, s.host())(url)
		if err == nil {
			err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
		}
		var own *sheaf.Error
		if !errors.As(err, &own) || own.Class != want.class || !strings.Contains(err.Error()+own.Hint, want.says) {
			t.Errorf("%s: %v, want it %s and to say %q", url, err, want.class, want.says)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: the password is told", url)
		}
	}
	for _, no := range []string{"length", "etag modified"} {
		s.no = no
		if err := s.open(t, s.URL+"/a").List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("without %s: %v", no, err)
		}
	}
	s.no = ""
	other := s.host()
	other.CAs = nil
	src, err := opener(t, other)(s.URL + "/a")
	if err == nil {
		err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}

// TestBrokenTransfers: what a server cuts off is read on from where it broke, and from the same file only.
func TestBrokenTransfers(t *testing.T) {
	for _, no := range []string{"", "range", "etag"} {
		s := start(t)
		s.no = no
		text := strings.Repeat("0123456789abcdef", 32<<10)
		u := s.put("big", text)
		src := s.open(t, u)
		f, err := src.Open(t.Context(), "big", "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var n atomic.Int32
		s.mu.Lock()
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			switch n.Add(1) % 3 {
			case 0:
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			case 1:
				cut(s, w, r)
				return true
			}
			return false
		}
		s.mu.Unlock()
		if got, err := io.ReadAll(f); err != nil || string(got) != text {
			t.Errorf("without %s: read %d bytes of %d: %v", no, len(got), len(text), err)
		}
		part := make([]byte, 300_000)
		if n, err := f.ReadAt(part, 5); err != nil || string(part[:n]) != text[5:300_005] {
			t.Errorf("without %s: read %d bytes at 5: %v", no, n, err)
		}
		s.mu.Lock()
		s.answer = nil
		s.mu.Unlock()
		s.put("big", strings.ToUpper(text)+"!")
		if err := f.Check(); !errors.Is(err, source.ErrChanged) {
			t.Errorf("without %s: a file that was replaced: %v", no, err)
		}
		if _, err := f.ReadAt(part, 5); !errors.Is(err, source.ErrChanged) {
			t.Errorf("without %s: the bytes of another file were read: %v", no, err)
		}
	}
}

// cut answers, and breaks off after 100,000 bytes.
func cut(s *server, w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	s.mu.Lock()
	answer := s.answer
	s.answer = nil
	s.mu.Unlock()
	s.ServeHTTP(rec, r)
	s.mu.Lock()
	s.answer = answer
	s.mu.Unlock()
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:min(rec.Body.Len(), 100_000)])
	if rec.Body.Len() > 100_000 {
		panic(http.ErrAbortHandler)
	}
}

func TestCancel(t *testing.T) {
	s := start(t)
	u := s.put("big", strings.Repeat("x", 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	src := s.open(t, u)
	f, err := src.Open(ctx, "big", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(f); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if err := src.List(ctx, source.Scope{}, func([]sheaf.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
}

// TestRedirects: each hop is a new question, and what identifies us goes to its host alone.
func TestRedirects(t *testing.T) {
	s, storage := start(t), start(t)
	storage.put("a", "content")
	var told sync.Map
	storage.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		told.Store("storage", r.Header.Get("Authorization"))
		return false
	}
	to := map[string]string{
		"/there":    strings.Replace(storage.URL, "127.0.0.1", "localhost", 1) + "/a?signature=secret",
		"/loop":     "/loop",
		"/plain":    "http://127.0.0.1/a",
		"/file":     "file:///etc/passwd",
		"/metadata": "https://169.254.169.254/latest/meta-data/",
		"/mapped":   "https://[::ffff:169.254.169.254]/",
		"/nowhere":  "",
	}
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		told.Store("server", r.Header.Get("Authorization"))
		w.Header().Set("Location", to[r.URL.Path])
		if to[r.URL.Path] == "" {
			w.Header().Del("Location")
		}
		w.WriteHeader(http.StatusFound)
		return true
	}
	mine, theirs := s.host(), storage.host()
	mine.Headers = map[string]string{"Authorization": "Bearer secret"}
	theirs.Pattern = "localhost"
	theirs.CAs = append(theirs.CAs, mine.CAs...)
	anywhere := Host{Pattern: "*", Private: true}
	for path, want := range map[string]struct {
		class sheaf.Class
		says  string
	}{
		"/loop": {sheaf.Invalid, "on and on"}, "/plain": {sheaf.Denied, "not https"}, "/file": {sheaf.Denied, "not https"},
		"/metadata": {sheaf.Denied, "169.254.169.254"}, "/mapped": {sheaf.Denied, "169.254.169.254"}, "/nowhere": {sheaf.Invalid, "302"},
	} {
		src, err := opener(t, mine, theirs, anywhere)(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
		if sheaf.ClassOf(err) != want.class || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want it %s and to say %q", path, err, want.class, want.says)
		}
	}
	// The storage's certificate is for example.com and 127.0.0.1: the name does not fit, and the error tells no signature.
	src, err := opener(t, mine, theirs)(s.URL + "/there")
	if err != nil {
		t.Fatal(err)
	}
	err = src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
	if err == nil || strings.Contains(err.Error(), "signature=secret") {
		t.Errorf("a certificate for another name: %v", err)
	}
	to["/there"] = storage.URL + "/a"
	src, err = opener(t, Host{Pattern: "127.0.0.1", Private: true, CAs: mine.CAs, Headers: mine.Headers})(s.URL + "/there")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := content(t, src, "there", ""); err != nil || got != "content" {
		t.Errorf("a redirect gives %q, %v", got, err)
	}
	if v, _ := told.Load("server"); v != "Bearer secret" {
		t.Errorf("the server was told %q", v)
	}
}

func TestPrivateAddressesNeedLeave(t *testing.T) {
	s := start(t)
	u := s.put("a", "x")
	h := s.host()
	h.Private = false
	src, err := opener(t, h)(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.Denied || !strings.Contains(err.Error(), "private") {
		t.Errorf("%v", err)
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

func TestUnpackedOnce(t *testing.T) {
	s := start(t)
	u := s.put("all.tar", tarOf(t, map[string]string{"a": "x", "d/b": "y"})) + "#unpack"
	open := opener(t, s.host())
	var bodies atomic.Int64
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "bytes=0-0" {
			bodies.Add(1)
		}
		return false
	}
	for range 3 {
		src, err := open(u)
		if err != nil {
			t.Fatal(err)
		}
		if got := sourcetest.Paths(sourcetest.List(t, src, source.Scope{})); !slices.Equal(got, []string{"a", "d/", "d/b"}) {
			t.Errorf("lists %q", got)
		}
		f, err := src.Open(t.Context(), "d/b", "")
		if err != nil {
			t.Fatal(err)
		}
		src.Close()
		if b, err := io.ReadAll(f); err != nil || string(b) != "y" {
			t.Errorf("a file that stays open gives %q, %v", b, err)
		}
		f.Close()
	}
	if n := bodies.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}
