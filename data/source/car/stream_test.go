package car

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ipfs/go-cid"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// begin begins a CAR file.
func begin(t *testing.T) (*Writer, string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.car"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w, err := NewWriter(t.Context(), f, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, f.Name()
}

// streamed writes the files one by one, in the order of their paths.
func streamed(t *testing.T, files map[string]string) (string, cid.Cid) {
	t.Helper()
	w, path := begin(t)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, err := w.Add(name, strings.NewReader(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	root, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return "car://" + path, root
}

func TestStreamSuite(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T, files map[string]string) source.Source {
		url, _ := streamed(t, files)
		return open(t, url)
	}, AnyBytes: true})
}

// inMemory are files without a disk.
type inMemory map[string]string

func (m inMemory) List(_ context.Context, _ source.Scope, yield func([]sheaf.Entry) error) error {
	all := map[string]sheaf.Entry{}
	for name := range m {
		all[name] = sheaf.Entry{Path: name, Kind: sheaf.EntryFile}
		for dir := above(name); dir != ""; dir = above(dir) {
			all[dir] = sheaf.Entry{Path: dir, Kind: sheaf.EntryDir}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := yield([]sheaf.Entry{all[name]}); err != nil {
			return err
		}
	}
	return nil
}

func (m inMemory) Open(_ context.Context, path, _ string) (source.File, error) {
	return &memoryFile{Reader: strings.NewReader(m[path])}, nil
}

// memoryFile has what a CAR file's writer asks of a file.
type memoryFile struct {
	source.File
	io.Reader
}

func (f *memoryFile) Read(p []byte) (int, error) { return f.Reader.Read(p) }
func (*memoryFile) Check() error                 { return nil }
func (*memoryFile) Close() error                 { return nil }

// numbered are n files in a directory.
func numbered(dir string, n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("%s%06d", dir, i)] = fmt.Sprint(i % 10)
	}
	return files
}

// TestStreamsTheSame: what is written in one go has the root of what is read twice, whatever the shape of the tree is.
func TestStreamsTheSame(t *testing.T) {
	full := 256 << 10 / (6 + 36) // names of six bytes and their CIDs, in a directory that is not yet put into shards
	for name, files := range map[string]map[string]string{
		"nothing":         nil,
		"order":           {"a": "1", "a-b": "2", "a/b": "3", "a/b-c": "4", "a.b": "5", "b/c/d": "6", "b/c.d": "7", "b/c0/d": "8"}, // "a" is left out below
		"large":           {"big": strings.Repeat("0123456789abcdef", 200_000), "d/empty": ""},
		"just one block":  numbered("d/", full),
		"just in shards":  numbered("d/", full+1),
		"root in shards":  numbered("", 20_000),
		"more than held":  numbered("some directory with a long name, so that its files do not fit/and another file name that is long ", 60_000),
		"shards, and not": {"a/x": "1", "z/x": "2"},
	} {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "order":
				delete(files, "a")
			case "shards, and not":
				for k, v := range numbered("m/", 9000) {
					files[k] = v
				}
			}
			url, root := streamed(t, files)
			if want, err := WriteFiles(t.Context(), inMemory(files), io.Discard); err != nil || root != want {
				t.Errorf("the root is %s, not %s, %v", root, want, err)
			}
			s := open(t, url)
			n := 0
			for _, e := range sourcetest.List(t, s, source.Scope{}) {
				if e.Kind != sheaf.EntryFile {
					continue
				}
				if n++; n%997 != 1 {
					continue
				}
				if got, err := content(t, s, e.Path); err != nil || got != files[e.Path] {
					t.Fatalf("%q holds %q, %v", e.Path, got, err)
				}
			}
			if n != len(files) {
				t.Errorf("%d files of %d", n, len(files))
			}
		})
	}
}

// TestStreamAgain: a file that could not be read leaves nothing and is added again, and before its end a CAR file is none.
func TestStreamAgain(t *testing.T) {
	w, path := begin(t)
	want, wantRoot := streamed(t, map[string]string{"a": "x", "d/big": strings.Repeat("b", 3<<20)})
	if _, err := w.Add("a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the node is gone")
	for range 2 {
		half := io.MultiReader(strings.NewReader(strings.Repeat("c", 2<<20)), iotest.ErrReader(broken))
		if _, err := w.Add("d/big", half); !errors.Is(err, broken) {
			t.Fatalf("a reader that fails: %v", err)
		}
	}
	if _, err := w.Add("d/big", strings.NewReader(strings.Repeat("b", 3<<20))); err != nil {
		t.Fatal(err)
	}
	s, err := Opener([]source.Root{{Path: "/"}})("car://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "a"); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("half a CAR file is read: %v", err)
	}
	s.Close()
	root, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if root != wantRoot || !bytes.Equal(bytesOf(t, "car://"+path), bytesOf(t, want)) {
		t.Errorf("the root is %s, not %s, or the bytes differ", root, wantRoot)
	}
}

// TestStreamLinks: a link stays one.
func TestStreamLinks(t *testing.T) {
	w, path := begin(t)
	_, err := w.Add("d/file", strings.NewReader("x"))
	if err == nil {
		_, err = w.AddLink("link", "d/file")
	}
	if err == nil {
		_, err = w.AddLink("away", "../../etc")
	}
	if err == nil {
		_, err = w.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "car://"+path)
	if got, err := content(t, s, "link"); err != nil || got != "x" {
		t.Errorf("the link leads to %q, %v", got, err)
	}
	if e, err := s.Stat(t.Context(), "away"); err != nil || e.Kind != sheaf.EntryEscape {
		t.Errorf("a link that leads out is %+v, %v", e, err)
	}
}

// TestStreamRefuses: what cannot be a directory is none.
func TestStreamRefuses(t *testing.T) {
	for name, files := range map[string][]string{
		"a name twice":                 {"d/a", "d/a"},
		"a directory twice":            {"d/a", "e", "d/b"},
		"a file that is a directory":   {"d", "d/b"},
		"a name twice among very many": nil,
	} {
		w, _ := begin(t)
		if files == nil {
			for i := range 9000 {
				files = append(files, fmt.Sprintf("%06d", i))
			}
			files = append(files, "004711")
		}
		var err error
		for _, f := range files {
			if err == nil {
				_, err = w.Add(f, strings.NewReader(f))
			}
		}
		if err == nil {
			_, err = w.Finish()
		}
		if sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(fmt.Sprint(err), "twice") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
