// Package sourcetest is the suite that every kind of source passes. A source's
// own tests call [Run] with a way to make one, and add what is its own.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Harness makes sources of one kind.
type Harness struct {
	// New gives a source that holds the files, whose paths are relative to the root, and
	// nothing else. It cleans up with the test.
	New func(t *testing.T, files map[string]string) source.Source

	// Replace gives a file of the last source made by New other content of the same
	// length; nil for sources whose files never change.
	Replace func(t *testing.T, path, content string)

	// AnyBytes says that names may be any bytes but slashes and NUL.
	AnyBytes bool
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("listing", h.listing)
	t.Run("order", h.order)
	t.Run("scope", h.scope)
	t.Run("many", h.many)
	t.Run("stop", h.stop)
	t.Run("read", h.read)
	t.Run("change", h.change)
	t.Run("refuse", h.refuse)
	t.Run("together", h.together)
}

// List is a whole listing. It fails the test where batches are too large.
func List(t *testing.T, s source.Source, scope source.Scope) []sheaf.Entry {
	t.Helper()
	var all []sheaf.Entry
	err := s.List(t.Context(), scope, func(batch []sheaf.Entry) error {
		if len(batch) == 0 || len(batch) > source.BatchEntries {
			t.Errorf("a batch of %d entries", len(batch))
		}
		all = append(all, batch...)
		clear(batch) // it is the source's again, which must not need it
		return nil
	})
	if err != nil {
		t.Fatalf("list %+v: %v", scope.Below, err)
	}
	return all
}

// Paths are the paths of entries, directories with a slash behind.
func Paths(entries []sheaf.Entry) []string {
	var paths []string
	for _, e := range entries {
		if e.Kind == sheaf.EntryDir {
			e.Path += "/"
		}
		paths = append(paths, e.Path)
	}
	return paths
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func (h Harness) listing(t *testing.T) {
	s := h.New(t, map[string]string{"a.txt": "12345", "d/b": "", "d/e/c": "x"})
	all := List(t, s, source.Scope{})
	equal(t, "listing", Paths(all), []string{"a.txt", "d/", "d/b", "d/e/", "d/e/c"})
	for _, e := range all {
		want := map[string]int64{"a.txt": 5, "d/b": 0, "d/e/c": 1}[e.Path]
		if e.Size != want {
			t.Errorf("%s: size %d, want %d", e.Path, e.Size, want)
		}
		if e.Kind == sheaf.EntryFile && e.Tag == "" && e.MTime == 0 {
			t.Errorf("%s has neither a tag nor a time", e.Path)
		}
		if e.Kind != sheaf.EntryFile && e.Kind != sheaf.EntryDir {
			t.Errorf("%s is a %s", e.Path, e.Kind)
		}
		st, err := s.Stat(t.Context(), e.Path)
		if err != nil || st.Kind != e.Kind || st.Size != e.Size || st.Identity() != e.Identity() || st.Path != e.Path {
			t.Errorf("Stat %s gives %+v (%v), the listing %+v", e.Path, st, err, e)
		}
	}
	if all := List(t, h.New(t, nil), source.Scope{}); len(all) != 0 {
		t.Errorf("an empty source lists %q", Paths(all))
	}
}

// order guards that the whole path is what is ordered, in which "/" stands
// behind "-" and "." and before "0".
func (h Harness) order(t *testing.T) {
	names := []string{"a/x", "a-b/x", "a-b.x", "a.txt", "a0", "a/a/a", "a/a.b", "A", "b", "a-/x", "é/x", "\u00e9.x", " /x", "!"}
	if h.AnyBytes {
		names = append(names, "\xff", "\xfe/x", "new\nline", "quo\"te'", "\x01/\x02", "tab\t")
	}
	files := map[string]string{}
	dirs := map[string]bool{}
	for _, n := range names {
		files[n] = n
		for i := range n {
			if n[i] == '/' {
				dirs[n[:i]] = true
			}
		}
	}
	want := names
	for d := range dirs {
		want = append(want, d)
	}
	slices.Sort(want)
	var got []string
	s := h.New(t, files)
	for _, e := range List(t, s, source.Scope{}) {
		got = append(got, e.Path)
	}
	equal(t, "order", got, want)
	for n := range files {
		if got := content(t, s, n, ""); got != n {
			t.Errorf("%q holds %q", n, got)
		}
	}
}

func (h Harness) scope(t *testing.T) {
	s := h.New(t, map[string]string{"a/b/c": "", "a/b/d/e": "", "a/f": "", "ab/g": "", "z": ""})
	equal(t, "below a", Paths(List(t, s, source.Scope{Below: "a"})), []string{"a/b/", "a/b/c", "a/b/d/", "a/b/d/e", "a/f"})
	equal(t, "below a/b", Paths(List(t, s, source.Scope{Below: "a/b"})), []string{"a/b/c", "a/b/d/", "a/b/d/e"})
	only := func(dirs ...string) func(string) bool {
		return func(dir string) bool { return slices.Contains(dirs, dir) }
	}
	equal(t, "descend a", Paths(List(t, s, source.Scope{Descend: only("a")})), []string{"a/", "a/b/", "a/f", "ab/", "z"})
	equal(t, "descend nothing", Paths(List(t, s, source.Scope{Descend: only()})), []string{"a/", "ab/", "z"})
	equal(t, "descend below", Paths(List(t, s, source.Scope{Below: "a", Descend: only("a/b")})), []string{"a/b/", "a/b/c", "a/b/d/", "a/f"})
}

// many is more than fits in a batch, in wide and in deep directories.
func (h Harness) many(t *testing.T) {
	files := map[string]string{}
	for i := range source.BatchEntries + 7 {
		files[fmt.Sprintf("wide/%d", i)] = ""
		if i%20 == 0 {
			files[fmt.Sprintf("tree/%d/%d", i%13, i)] = ""
		}
	}
	files[strings.Repeat("deep/", 100)+"end"] = ""
	all := List(t, h.New(t, files), source.Scope{})
	n := 0
	for i, e := range all {
		if i > 0 && e.Path <= all[i-1].Path {
			t.Fatalf("%q stands behind %q", e.Path, all[i-1].Path)
		}
		if e.Kind == sheaf.EntryFile {
			if _, ok := files[e.Path]; !ok {
				t.Fatalf("%q was never made", e.Path)
			}
			n++
		}
	}
	if n != len(files) {
		t.Fatalf("listed %d files of %d", n, len(files))
	}
}

func (h Harness) stop(t *testing.T) {
	files := map[string]string{}
	for i := range source.BatchEntries + 500 {
		files[fmt.Sprintf("d%d/%d", i%7, i)] = ""
	}
	s := h.New(t, files)
	enough, calls := errors.New("enough"), 0
	err := s.List(t.Context(), source.Scope{}, func([]sheaf.Entry) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("yield failed: %d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls = 0
	err = s.List(ctx, source.Scope{}, func([]sheaf.Entry) error { cancel(); calls++; return nil })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("cancelled: %d calls, %v", calls, err)
	}
}

func content(t *testing.T, s source.Source, path, identity string) string {
	t.Helper()
	f, err := s.Open(t.Context(), path, identity)
	if err != nil {
		t.Fatalf("open %q: %v", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatalf("read %q: %v", path, err)
	}
	if err := f.Check(); err != nil {
		t.Fatalf("check %q: %v", path, err)
	}
	return string(b)
}

func (h Harness) read(t *testing.T) {
	s := h.New(t, map[string]string{"d/a": "0123456789", "empty": ""})
	for _, e := range List(t, s, source.Scope{}) {
		if e.Kind != sheaf.EntryFile {
			continue
		}
		want := map[string]string{"d/a": "0123456789"}[e.Path]
		if got := content(t, s, e.Path, e.Identity()); got != want {
			t.Errorf("%s holds %q, want %q", e.Path, got, want)
		}
	}
	f, err := s.Open(t.Context(), "d/a", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := make([]byte, 3)
	if _, err := f.ReadAt(part, 4); err != nil || string(part) != "456" {
		t.Errorf("ReadAt gives %q, %v", part, err)
	}
	if e := f.Entry(); e.Path != "d/a" || e.Size != 10 || e.Kind != sheaf.EntryFile {
		t.Errorf("Entry is %+v", e)
	}
}

func (h Harness) change(t *testing.T) {
	s := h.New(t, map[string]string{"a": "before"})
	e, err := s.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "a", "stat:1:1"); !errors.Is(err, source.ErrChanged) || sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("another identity: %v", err)
	}
	if h.Replace == nil {
		return
	}
	h.Replace(t, "a", "behind")
	if _, err := s.Open(t.Context(), "a", e.Identity()); !errors.Is(err, source.ErrChanged) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("a changed file: %v", err)
	}
	if got := content(t, s, "a", ""); got != "behind" {
		t.Errorf("holds %q", got)
	}
}

func (h Harness) refuse(t *testing.T) {
	s := h.New(t, map[string]string{"d/a": "x"})
	for _, path := range []string{"", "/", "/d/a", "../d/a", "d/../d/a", "d//a", "./d/a", "d/a/", ".", "..", "d/\x00"} {
		if _, err := s.Open(t.Context(), path, ""); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("open %q: %v", path, err)
		}
		if _, err := s.Stat(t.Context(), path); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("stat %q: %v", path, err)
		}
		// The empty path is the root, which may lie on this machine though it is no file.
		if host, ok := s.Local(path); ok && path != "" {
			t.Errorf("%q lies at %q", path, host)
		}
	}
	for _, path := range []string{"b", "d/b", "d/a/b"} {
		if _, err := s.Open(t.Context(), path, ""); err == nil || errors.Is(err, source.ErrChanged) {
			t.Errorf("open %q: %v", path, err)
		}
		if _, err := s.Stat(t.Context(), path); err == nil {
			t.Errorf("stat %q: no error", path)
		}
	}
	if _, err := s.Open(t.Context(), "b", ""); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := s.Open(t.Context(), "d", ""); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("open a directory: %v", err)
	}
	if err := s.List(t.Context(), source.Scope{Below: "nowhere"}, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("list what is not there: %v", err)
	}
}

// together lists from several goroutines at once.
func (h Harness) together(t *testing.T) {
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("%d/%d", i%17, i)] = ""
	}
	s := h.New(t, files)
	want := Paths(List(t, s, source.Scope{}))
	results := make(chan []string)
	for range 4 {
		go func() {
			var all []sheaf.Entry
			if err := s.List(t.Context(), source.Scope{}, func(b []sheaf.Entry) error { all = append(all, b...); return nil }); err != nil {
				t.Error(err)
			}
			results <- Paths(all)
		}()
	}
	for range 4 {
		equal(t, "a listing beside others", <-results, want)
	}
}
