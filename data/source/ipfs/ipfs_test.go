package ipfs

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2/storage"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// serve is a gateway that has the blocks of the files. answer, if set, answers in its place.
func serve(t *testing.T, files map[string]string, answer func(w http.ResponseWriter, block []byte) bool) (string, cid.Cid) {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x.car"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	root, err := car.Write(t.Context(), dir, f)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := storage.OpenReadable(f)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") != "raw" || r.Header.Get("Accept") != "application/vnd.ipld.raw" {
			http.Error(w, "this gateway gives raw blocks alone", http.StatusNotAcceptable)
			return
		}
		c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		block, err := blocks.Get(r.Context(), c.KeyString())
		if err != nil {
			http.NotFound(w, r)
			return
		}
		if answer == nil || !answer(w, block) {
			_, _ = w.Write(block)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, root
}

func open(t *testing.T, source string, gateways ...string) source.Source {
	t.Helper()
	open, err := Opener(gateways)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T, files map[string]string) source.Source {
		gateway, root := serve(t, files, nil)
		return open(t, "ipfs://"+root.String(), gateway)
	}, AnyBytes: true})
}

func content(t *testing.T, s source.Source, path string) (string, error) {
	t.Helper()
	f, err := s.Open(t.Context(), path, "")
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// TestGateways: one that lies, fails, breaks off or has nothing is passed over, and the bytes are those of the CID.
func TestGateways(t *testing.T) {
	files := map[string]string{"d/big": strings.Repeat("0123456789abcdef", 300_000), "d/small": "x"}
	var n atomic.Int64
	good, root := serve(t, files, func(w http.ResponseWriter, _ []byte) bool {
		switch n.Add(1) % 4 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, "the beginning of")
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	})
	liar, _ := serve(t, files, func(w http.ResponseWriter, block []byte) bool {
		block[0] ^= 1
		_, _ = w.Write(block)
		return true
	})
	endless, _ := serve(t, files, func(w http.ResponseWriter, _ []byte) bool {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return true
			}
		}
	})
	leads, _ := serve(t, files, func(w http.ResponseWriter, _ []byte) bool {
		w.Header().Set("Location", "http://169.254.169.254/")
		w.WriteHeader(http.StatusFound)
		return true
	})
	empty, _ := serve(t, nil, nil)
	for _, gateways := range [][]string{{good}, {liar, good}, {endless, empty, good}, {"http://127.0.0.1:1", leads, good + "/"}} {
		s := open(t, "ipfs://"+root.String()+"/d/", gateways...)
		for _, name := range []string{"big", "small"} {
			if got, err := content(t, s, name); err != nil || got != files["d/"+name] {
				t.Errorf("%v: %s holds %d bytes, %v", gateways, name, len(got), err)
			}
		}
	}
	if _, err := content(t, open(t, "ipfs://"+root.String(), liar), "d/small"); sheaf.ClassOf(err) != sheaf.Unavailable || !strings.Contains(err.Error(), "was changed") {
		t.Errorf("a gateway that lies: %v", err)
	}
	if _, err := content(t, open(t, "ipfs://"+root.String(), empty, empty), "d/small"); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("gateways that have nothing: %v", err)
	}
	if _, err := content(t, open(t, "ipfs://"+root.String(), leads), "d/small"); sheaf.ClassOf(err) != sheaf.Unavailable || !strings.Contains(err.Error(), "302") {
		t.Errorf("a gateway that leads on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, "ipfs://"+root.String(), good).Stat(ctx, "d"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	const good = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
	with, err := Opener([]string{"http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"ipfs://", "ipfs://example.org/x", "ipfs://not-a-cid", "ipfs://" + good[:40], "ipfs://" + good + "/../x", "ipfs://" + good + "/a%zz",
		"ipfs://" + good + "?format=car", "ipfs://" + good + "#x", "ipfs://bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"} {
		if _, err := with(u); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", u, err)
		}
	}
	without, err := Opener(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := without("ipfs://" + good); sheaf.ClassOf(err) != sheaf.Denied {
		t.Errorf("no gateway: %v", err)
	}
	for _, g := range []string{"", "127.0.0.1:8080", "ftp://x", (&url.URL{Scheme: "https", User: url.User("me"), Host: "x"}).String(), "https://x/?a"} {
		if _, err := Opener([]string{g}); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("gateway %q: %v", g, err)
		}
	}
}
