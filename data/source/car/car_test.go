package car

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

func put(t *testing.T, dir, path, content string) {
	t.Helper()
	path = filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// packed writes the files as a CAR file and gives its URL.
func packed(t *testing.T, files map[string]string) (string, cid.Cid) {
	t.Helper()
	dir := t.TempDir()
	for p, content := range files {
		put(t, dir, p, content)
	}
	path := filepath.Join(t.TempDir(), "x y.car")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := Write(t.Context(), dir, f)
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "car", Path: path}).String(), root
}

func open(t *testing.T, url string) source.Source {
	t.Helper()
	s, err := Opener([]source.Root{{Path: "/", Shared: true}})(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T, files map[string]string) source.Source {
		url, _ := packed(t, files)
		return open(t, url)
	}, AnyBytes: true})
}

// TestKnownCIDs: what ipfs add --cid-version=1 prints for these.
func TestKnownCIDs(t *testing.T) {
	if _, root := packed(t, nil); root.String() != "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" {
		t.Errorf("an empty directory is %s", root)
	}
	url, root := packed(t, map[string]string{"d/hello": "hello world\n"})
	e, err := open(t, url).Stat(t.Context(), "d/hello")
	if err != nil || e.Tag != "cid:bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4" {
		t.Errorf("hello world is %+v, %v", e, err)
	}
	// The same files give the same bytes, in whatever order they are found.
	again, root2 := packed(t, map[string]string{"d/hello": "hello world\n"})
	if root != root2 || !bytes.Equal(bytesOf(t, url), bytesOf(t, again)) {
		t.Errorf("%s and %s", root, root2)
	}
}

func bytesOf(t *testing.T, carURL string) []byte {
	t.Helper()
	u, err := url.Parse(carURL)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(u.Path)
	if err != nil {
		t.Fatal(err)
	}
	return b
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

func TestParts(t *testing.T) {
	url, root := packed(t, map[string]string{"d/e/a": "x", "b": "y"})
	for fragment, want := range map[string]string{
		"": "b d/ d/e/ d/e/a", "#" + root.String(): "b d/ d/e/ d/e/a", "#/d": "e/ e/a", "#" + root.String() + "/d/e/": "a", "#/d/e/a": "a",
	} {
		s := open(t, url+fragment)
		if got := strings.Join(sourcetest.Paths(sourcetest.List(t, s, source.Scope{})), " "); got != want {
			t.Errorf("%s lists %q, want %q", fragment, got, want)
		}
	}
	s := open(t, url)
	f, err := s.Open(t.Context(), "d/e/a", "")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "x" {
		t.Errorf("a file that stays open gives %q, %v", b, err)
	}
	f.Close()
}

// TestFlips: whatever byte of a CAR file is flipped, nothing that was not written is read.
func TestFlips(t *testing.T) {
	files := map[string]string{"a": "some content", "d/b": "and more of it"}
	url, root := packed(t, files)
	good := bytesOf(t, url)
	path := filepath.Join(t.TempDir(), "x.car")
	noticed := 0
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Opener([]source.Root{{Path: "/"}})("car://" + path + "#" + root.String())
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range files {
			got, err := content(t, s, name)
			if err != nil {
				noticed++
			} else if got != want {
				t.Errorf("byte %d: %s holds %q", i, name, got)
			}
		}
		s.Close()
	}
	if noticed < len(good) {
		t.Errorf("%d flips of %d were noticed", noticed, len(good))
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "empty.car", "")
	put(t, dir, "text.car", "hello")
	put(t, dir, "long.car", "\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
	put(t, dir, "elf.car", "\x7fELF"+strings.Repeat("\x00", 100))
	put(t, dir, "d/x", "")
	good, root := packed(t, map[string]string{"a": "x"})
	put(t, dir, "cut.car", string(bytesOf(t, good)[:len(bytesOf(t, good))-20]))
	var two bytes.Buffer
	if _, err := storage.NewWritable(&two, []cid.Cid{root, root}, carv2.WriteAsCarV1(true)); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "two.car", two.String())
	var rootless bytes.Buffer
	if _, err := storage.NewWritable(&rootless, []cid.Cid{root}, carv2.WriteAsCarV1(true)); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "rootless.car", rootless.String())
	for url, class := range map[string]sheaf.Class{
		"car://" + dir + "/empty.car":          sheaf.Invalid,
		"car://" + dir + "/text.car":           sheaf.Invalid,
		"car://" + dir + "/long.car":           sheaf.Invalid,
		"car://" + dir + "/elf.car":            sheaf.Invalid,
		"car://" + dir + "/cut.car":            sheaf.Unavailable,
		"car://" + dir + "/two.car":            sheaf.Invalid,
		"car://" + dir + "/rootless.car":       sheaf.NotFound,
		"car://" + dir + "/d":                  sheaf.Invalid,
		"car://" + dir + "/nothing.car":        sheaf.NotFound,
		"car://" + dir + "/text.car#bafy":      sheaf.Invalid,
		"car://" + dir + "/text.car#/../x":     sheaf.Invalid,
		"car://host/x.car":                     sheaf.Invalid,
		"car://x.car":                          sheaf.Invalid,
		"car:///etc/shadow":                    sheaf.Denied,
		"car://" + dir + "/d/../../../etc/x":   sheaf.Denied,
		good[:len("car://")] + good[6:] + "?x": sheaf.Invalid,
	} {
		s, err := Opener([]source.Root{{Path: dir}})(url)
		if err == nil {
			err = s.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { return nil })
			s.Close()
		}
		if sheaf.ClassOf(err) != class {
			t.Errorf("%s: %v, want it %s", url, err, class)
		}
	}
}

// TestLarge: files of several chunks and directories in shards come back as they were.
func TestLarge(t *testing.T) {
	files := map[string]string{"big": strings.Repeat("0123456789abcdef", 200_000)}
	for i := range 7000 {
		files[fmt.Sprintf("many/%06d", i)] = fmt.Sprint(i % 10)
	}
	url, _ := packed(t, files)
	s := open(t, url)
	var names []string
	for _, e := range sourcetest.List(t, s, source.Scope{}) {
		if e.Kind == sheaf.EntryFile {
			names = append(names, e.Path)
			if e.Size != int64(len(files[e.Path])) {
				t.Fatalf("%s has %d bytes", e.Path, e.Size)
			}
		}
	}
	if len(names) != len(files) || !slices.IsSorted(names) {
		t.Errorf("%d files of %d", len(names), len(files))
	}
	if got, err := content(t, s, "big"); err != nil || got != files["big"] {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := len(bytesOf(t, url)); n > len(files["big"])+2<<20 {
		t.Errorf("the file has %d bytes", n)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "d/a", "x")
	if err := os.Symlink("d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), dir, io.Discard); sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), `"link"`) {
		t.Errorf("a link to a directory: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("the disk is full")
	if _, err := Write(t.Context(), dir, failing{full}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, dir, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Write(t.Context(), filepath.Join(dir, "nothing"), io.Discard); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("nothing there: %v", err)
	}
	changes := &changing{Source: open(t, first(packed(t, map[string]string{"a": "x"})))}
	if _, err := WriteFiles(t.Context(), changes, io.Discard); !errors.Is(err, source.ErrChanged) {
		t.Errorf("files that change: %v", err)
	}
}

func first(url string, _ cid.Cid) string { return url }

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// changing gives files that differ each time.
type changing struct {
	source.Source
	n int
}

func (c *changing) Open(ctx context.Context, path, identity string) (source.File, error) {
	f, err := c.Source.Open(ctx, path, identity)
	c.n++
	return &changed{File: f, r: strings.NewReader(fmt.Sprint(c.n))}, err
}

type changed struct {
	source.File
	r io.Reader
}

func (c *changed) Read(p []byte) (int, error) { return c.r.Read(p) }
