package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

// kinds write files as archives of each kind.
var kinds = map[string]func(t *testing.T, files map[string]string) []byte{
	"tar": func(t *testing.T, files map[string]string) []byte {
		var all []tar.Header
		for name := range files {
			all = append(all, tar.Header{Name: name, Typeflag: tar.TypeReg})
		}
		return tarOf(t, files, all...)
	},
	"tar.gz": func(t *testing.T, files map[string]string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		all(t, w, tarFiles(t, files))
		return b.Bytes()
	},
	"tar.zst": func(t *testing.T, files map[string]string) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		all(t, w, tarFiles(t, files))
		return b.Bytes()
	},
	"zip": zipOf,
}

func all(t *testing.T, w io.WriteCloser, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func tarFiles(t *testing.T, files map[string]string) []byte {
	var all []tar.Header
	for name := range files {
		all = append(all, tar.Header{Name: "./" + name, Typeflag: tar.TypeReg})
	}
	return tarOf(t, files, all...)
}

func tarOf(t *testing.T, files map[string]string, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := files[strings.TrimPrefix(h.Name, "./")]
		h.Mode = 0o644
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, NonUTF8: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t *testing.T, content []byte, limits Limits) (*Files, error) {
	t.Helper()
	limits.Dir = t.TempDir()
	path := filepath.Join(t.TempDir(), "pack")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Pack(t.Context(), bytes.NewReader(content), f, limits)
	if left, _ := os.ReadDir(limits.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err != nil {
		return nil, err
	}
	x, err := Open(path, nil)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { x.Close() })
	return x, nil
}

func TestSuite(t *testing.T) {
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			sourcetest.Run(t, sourcetest.Harness{
				New: func(t *testing.T, files map[string]string) source.Source {
					x, err := packed(t, make(t, files), Limits{})
					if err != nil {
						t.Fatal(err)
					}
					return x
				},
				AnyBytes: name != "tar.gz" && name != "zip",
			})
		})
	}
}

func TestLinks(t *testing.T) {
	x, err := packed(t, tarOf(t, map[string]string{"d/file": "content"},
		tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "d/", Typeflag: tar.TypeDir},
		tar.Header{Name: "before", Typeflag: tar.TypeSymlink, Linkname: "d/file"},
		tar.Header{Name: "d/file", Typeflag: tar.TypeReg},
		tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/file"},
		tar.Header{Name: "d/up", Typeflag: tar.TypeSymlink, Linkname: "../before"},
		tar.Header{Name: "dir", Typeflag: tar.TypeSymlink, Linkname: "d"},
		tar.Header{Name: "through", Typeflag: tar.TypeSymlink, Linkname: "dir/./hard"},
		tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "d/../../x"},
		tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"},
		tar.Header{Name: "gone", Typeflag: tar.TypeSymlink, Linkname: "nothing"},
		tar.Header{Name: "loop", Typeflag: tar.TypeSymlink, Linkname: "loop"},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo},
		tar.Header{Name: "dev", Typeflag: tar.TypeChar},
	), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]sheaf.EntryKind{
		"d": sheaf.EntryDir, "before": sheaf.EntryFile, "d/file": sheaf.EntryFile, "d/hard": sheaf.EntryFile, "d/up": sheaf.EntryFile, "dir": sheaf.EntryDirLink,
		"through": sheaf.EntryFile, "out": sheaf.EntryEscape, "abs": sheaf.EntryEscape, "gone": sheaf.EntryDangling, "loop": sheaf.EntryDangling,
		"fifo": sheaf.EntryFIFO, "dev": sheaf.EntryDevice,
	}
	for _, e := range sourcetest.List(t, x, source.Scope{}) {
		if want[e.Path] != e.Kind {
			t.Errorf("%s is a %s, want a %s", e.Path, e.Kind, want[e.Path])
		}
		delete(want, e.Path)
		if e.Kind != sheaf.EntryFile {
			continue
		}
		f, err := x.Open(t.Context(), e.Path, e.Identity())
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
			t.Errorf("%s holds %q, %v", e.Path, b, err)
		}
		f.Close()
	}
	for path := range want {
		t.Errorf("%s is not listed", path)
	}
}

// TestHostile: what an archive must not do. Nothing of it is written under any name.
func TestHostile(t *testing.T) {
	reg := func(names ...string) []byte {
		var hs []tar.Header
		for _, n := range names {
			hs = append(hs, tar.Header{Name: n, Typeflag: tar.TypeReg})
		}
		return tarOf(t, nil, hs...)
	}
	link := func(h tar.Header) []byte { return tarOf(t, nil, tar.Header{Name: "a", Typeflag: tar.TypeDir}, h) }
	zeros := map[string]string{"zeros": strings.Repeat("\x00", 8<<20)}
	nested := kinds["zip"](t, zeros)
	for name, c := range map[string]struct {
		content []byte
		limits  Limits
		class   sheaf.Class
		says    string
	}{
		"climbs":               {content: reg("a/../../etc/passwd"), class: sheaf.Invalid, says: "leads out of the archive"},
		"climbs in a zip":      {content: kinds["zip"](t, map[string]string{"../../x": ""}), class: sheaf.Invalid, says: `"../../x"`},
		"absolute":             {content: reg("/etc/passwd"), class: sheaf.Invalid, says: "absolute path"},
		"absolute in a zip":    {content: kinds["zip"](t, map[string]string{"/x": ""}), class: sheaf.Invalid, says: "absolute path"},
		"long name":            {content: reg(strings.Repeat("x/", 3000) + "x"), class: sheaf.TooLarge, says: "6001 bytes"},
		"twice":                {content: reg("a", "a"), class: sheaf.Invalid, says: "twice"},
		"file and directory":   {content: reg("a", "a/b"), class: sheaf.Invalid, says: "lies below it"},
		"hard link out":        {content: link(tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}), class: sheaf.Invalid, says: "absolute path"},
		"hard link to no file": {content: link(tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "a"}), class: sheaf.Invalid, says: "hard link"},
		"link under a file":    {content: link(tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}), class: sheaf.Invalid, says: "twice"},
		"empty":                {class: sheaf.Invalid, says: "no archive"},
		"a program":            {content: []byte("\x7fELF" + strings.Repeat("x", 600)), class: sheaf.Invalid, says: "no archive"},
		"cut tar":              {content: kinds["tar"](t, zeros)[:4<<20], class: sheaf.Invalid, says: "damaged"},
		"cut gzip":             {content: cut(kinds["tar.gz"](t, zeros)), class: sheaf.Invalid, says: "damaged"},
		"cut zstd":             {content: cut(kinds["tar.zst"](t, zeros)), class: sheaf.Invalid, says: "damaged"},
		"cut zip":              {content: cut(kinds["zip"](t, zeros)), class: sheaf.Invalid, says: "damaged"},
		"more members":         {content: reg("a", "b", "c"), limits: Limits{Members: 2}, class: sheaf.TooLarge, says: "too many members"},
		"more bytes":           {content: kinds["tar.zst"](t, zeros), limits: Limits{Bytes: 1 << 20}, class: sheaf.TooLarge, says: `member "zeros"`},
		"a zip of more bytes":  {content: nested, limits: Limits{Bytes: 1 << 20}, class: sheaf.TooLarge, says: `member "zeros"`},
	} {
		if _, err := packed(t, c.content, c.limits); sheaf.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it %s and to say %q", name, err, c.class, c.says)
		}
	}
	// Archives within archives are files.
	x, err := packed(t, kinds["zip"](t, map[string]string{"42.zip": string(nested)}), Limits{Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if got := sourcetest.Paths(sourcetest.List(t, x, source.Scope{})); !slices.Equal(got, []string{"42.zip"}) {
		t.Errorf("lists %q", got)
	}
}

func cut(b []byte) []byte { return b[:len(b)*2/3] }

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestBomb: past what is free, what comes out is in proportion to what went in.
func TestBomb(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		z := gzip.NewWriter(w)
		tw := tar.NewWriter(z)
		if tw.WriteHeader(&tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Size: 1 << 40}) == nil {
			_, err := io.Copy(tw, zeros{})
			w.CloseWithError(err)
		}
	}()
	var out size
	err := Pack(t.Context(), r, &out, Limits{Ratio: 10, Free: 16 << 20})
	r.CloseWithError(errors.New("enough"))
	if sheaf.ClassOf(err) != sheaf.TooLarge || !strings.Contains(err.Error(), `"bomb"`) {
		t.Errorf("%v", err)
	}
	if out > 64<<20 {
		t.Errorf("%d bytes came out", out)
	}
}

type size int64

func (s *size) Write(b []byte) (int, error) { *s += size(len(b)); return len(b), nil }

// TestBrokenInput: what broke the reading is the error, not what the decoder made of it.
func TestBrokenInput(t *testing.T) {
	content := kinds["tar.gz"](t, map[string]string{"a": strings.Repeat("abc", 100_000)})
	broken := errors.New("the line is cut")
	r := io.MultiReader(bytes.NewReader(content[:len(content)/2]), failing{broken})
	if err := Pack(t.Context(), r, io.Discard, Limits{}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Pack(ctx, bytes.NewReader(content), io.Discard, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestDamagedPack(t *testing.T) {
	var b bytes.Buffer
	if err := Pack(t.Context(), bytes.NewReader(kinds["tar"](t, map[string]string{"a": "content", "b": "more"})), &b, Limits{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pack")
	for i := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := Open(path, nil)
		if err != nil {
			continue
		}
		noticed := 0
		for _, name := range []string{"a", "b"} {
			f, err := x.Open(t.Context(), name, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(f); err != nil {
				noticed++
			}
			f.Close()
		}
		x.Close()
		if noticed != 1 {
			t.Errorf("byte %d: %d members are damaged", i, noticed)
		}
	}
}
