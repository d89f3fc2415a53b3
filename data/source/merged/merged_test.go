package merged

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// result is a merged manifest and the parts that it lists.
type result struct {
	files []sheaf.File
	parts map[string]string // by partition and path
}

func key(p sheaf.Part, path string) string { return fmt.Sprintf("%d/%s", p.Partition, path) }

// add adds a file joined of parts, a partition each.
func (r *result) add(output, path string, parts ...string) {
	f := sheaf.File{Output: output, Path: path, SHA256: digest(strings.Join(parts, ""))}
	for i, content := range parts {
		p := sheaf.Part{Partition: len(r.files) + i, Attempt: 1, Node: "n1", Size: int64(len(content)), SHA256: digest(content)}
		f.Parts = append(f.Parts, p)
		f.Size += p.Size
		r.parts[key(p, path)] = content
	}
	if len(parts) > 1 {
		f.SHA256 = ""
	}
	r.files = append(r.files, f)
}

func (r *result) open(t *testing.T, output string) *Source {
	t.Helper()
	slices.SortFunc(r.files, func(a, b sheaf.File) int {
		return slices.Compare([]string{a.Output, a.Path}, []string{b.Output, b.Path})
	})
	var b []byte
	for _, f := range r.files {
		b = append(f.AppendJSON(b), '\n')
	}
	name := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	released := 0
	s := New(Config{
		Output:   output,
		Manifest: func(context.Context) (string, func(), error) { return name, func() { released++ }, nil },
		Open: func(_ context.Context, f *sheaf.File, p sheaf.Part, offset, length int64) (io.ReadCloser, error) {
			content := r.parts[key(p, f.Path)][offset:]
			if length > 0 {
				content = content[:length]
			}
			return io.NopCloser(strings.NewReader(content)), nil
		},
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil || released > 1 {
			t.Errorf("close: %v, released %d times", err, released)
		}
	})
	return s
}

func TestSuite(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{AnyBytes: true, New: func(t *testing.T, files map[string]string) source.Source {
		r := &result{parts: map[string]string{}}
		r.add("before", "x", "not in it")
		r.add("the-output", "x", "not in it either")
		for _, name := range slices.Sorted(maps.Keys(files)) {
			content := files[name]
			r.add("the", name, content[:len(content)/2], content[len(content)/2:])
		}
		return r.open(t, "the")
	}})
}

func TestIdentities(t *testing.T) {
	r := &result{parts: map[string]string{}}
	r.add("o", "one", "12345")
	r.add("o", "two", "123", "45")
	r.add("o", "same", "123", "45")
	r.add("o", "other", "12", "345")
	s := r.open(t, "o")
	tags := map[string]string{}
	for _, e := range sourcetest.List(t, s, source.Scope{}) {
		tags[e.Path] = e.Tag
	}
	if want := "sha256:" + digest("12345"); tags["one"] != want {
		t.Errorf("a file of one part is %s, want %s", tags["one"], want)
	}
	if tags["two"] != tags["same"] || tags["two"] == tags["other"] || !strings.HasPrefix(tags["two"], "etag:") {
		t.Errorf("files of several parts are %v", tags)
	}
}

func TestLinks(t *testing.T) {
	r := &result{parts: map[string]string{}}
	r.add("o", "d/a", "content")
	for name, to := range map[string]string{"ok": "d/a", "d/chain": "../ok", "dir": "d", "gone": "d/b", "out": "../x", "abs": "/etc/passwd", "round": "round"} {
		r.files = append(r.files, sheaf.File{Output: "o", Path: name, Link: to})
	}
	s := r.open(t, "o")
	want := map[string]sheaf.EntryKind{
		"d": sheaf.EntryDir, "d/a": sheaf.EntryFile, "ok": sheaf.EntryFile, "d/chain": sheaf.EntryFile, "dir": sheaf.EntryDirLink,
		"gone": sheaf.EntryDangling, "out": sheaf.EntryEscape, "abs": sheaf.EntryEscape, "round": sheaf.EntryDangling,
	}
	got := map[string]sheaf.EntryKind{}
	for _, e := range sourcetest.List(t, s, source.Scope{}) {
		got[e.Path] = e.Kind
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	f, err := s.Open(t.Context(), "d/chain", "sha256:"+digest("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("the link leads to %q, %v", b, err)
	}
}

// What is not as its digest says is never handed out whole.
func TestDamagedParts(t *testing.T) {
	for name, become := range map[string]string{"flipped": "12X", "longer": "1234", "shorter": "12", "empty": ""} {
		r := &result{parts: map[string]string{}}
		r.add("o", "a", "abc", "123")
		for k, v := range r.parts {
			if v == "123" {
				r.parts[k] = become
			}
		}
		f, err := r.open(t, "o").Open(t.Context(), "a", "")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); err == nil || !strings.Contains(err.Error(), "partition 1") {
			t.Errorf("%s: read %q, %v", name, b, err)
		}
		f.Close()
	}
}

func TestReadAtAcrossParts(t *testing.T) {
	r := &result{parts: map[string]string{}}
	r.add("o", "a", "0123", "", "45", "6789")
	f, err := r.open(t, "o").Open(t.Context(), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := range int64(11) {
		for n := range 12 {
			b := make([]byte, n)
			got, err := f.ReadAt(b, off)
			want := []byte("0123456789")[off:min(10, off+int64(n))]
			if !bytes.Equal(b[:got], want) || (err == nil) != (got == n) {
				t.Errorf("%d bytes at %d: %q, %v", n, off, b[:got], err)
			}
		}
	}
}

func TestManifestsThatCannotBe(t *testing.T) {
	for name, paths := range map[string][]string{"climbs": {"../a"}, "out of order": {"b", "a"}, "twice": {"a", "a"}} {
		var b []byte
		for _, p := range paths {
			b = append((&sheaf.File{Output: "o", Path: p}).AppendJSON(b), '\n')
		}
		file := filepath.Join(t.TempDir(), "manifest")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := New(Config{Output: "o", Manifest: func(context.Context) (string, func(), error) { return file, func() {}, nil }})
		if _, err := s.Stat(t.Context(), "a"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
