package source

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

var everything = Config{Files: []Root{{Path: "/"}}}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// openBoth runs a test with the kernel's own check of paths and with os.Root's.
func openBoth(t *testing.T, dir string, test func(*testing.T, Source)) {
	for _, portable := range []bool{false, true} {
		name := "kernel"
		if portable {
			name = "portable"
		}
		t.Run(name, func(t *testing.T) {
			s, err := Open(dir, everything)
			must(t, err)
			defer s.Close()
			if portable {
				usePortable(t, s)
			} else if s.(*fileSource).dir.root != nil {
				t.Fatal("the kernel of this machine cannot do what the test is about")
			}
			test(t, s)
		})
	}
}

func usePortable(t *testing.T, s Source) {
	f := s.(*fileSource)
	must(t, f.dir.Close())
	var err error
	f.dir, err = openPortableRoot(f.real)
	must(t, err)
}

func kinds(t *testing.T, s Source) map[string]sheaf.EntryKind {
	t.Helper()
	all := map[string]sheaf.EntryKind{}
	must(t, s.List(t.Context(), Scope{}, func(batch []sheaf.Entry) error {
		for _, e := range batch {
			all[e.Path] = e.Kind
		}
		return nil
	}))
	return all
}

func TestLinks(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "source")
	put(t, filepath.Join(dir, "d/file"), "content")
	put(t, filepath.Join(top, "secret"), "secret")
	put(t, filepath.Join(top, "other/file"), "other")
	for name, target := range map[string]string{
		"inside":         "d/file",
		"through":        "inside",
		"d/up":           "../d/file",
		"absolute":       filepath.Join(dir, "d/file"),
		"around":         "../source/d/file",
		"dirlink":        "d",
		"absdir":         filepath.Join(dir, "d"),
		"self":           ".",
		"parent":         "..",
		"escape":         "../secret",
		"absolute-out":   filepath.Join(top, "secret"),
		"passwd":         "/etc/passwd",
		"out-by-dir":     "../other/file",
		"out-and-round":  "../other/../source/d/file",
		"out-to-nothing": "../nothing",
		"dangling":       "nothing",
		"loop":           "loop",
		"loop1":          "loop2",
		"loop2":          "loop1",
		"below-file":     "d/file/x",
		"proc":           "/proc/self/root/etc/passwd",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	want := map[string]sheaf.EntryKind{
		"d": sheaf.EntryDir, "d/file": sheaf.EntryFile,
		"inside": sheaf.EntryFile, "through": sheaf.EntryFile, "d/up": sheaf.EntryFile, "absolute": sheaf.EntryFile, "around": sheaf.EntryFile,
		"dirlink": sheaf.EntryDirLink, "absdir": sheaf.EntryDirLink, "self": sheaf.EntryDirLink,
		"parent": sheaf.EntryEscape, "escape": sheaf.EntryEscape, "absolute-out": sheaf.EntryEscape, "passwd": sheaf.EntryEscape, "out-by-dir": sheaf.EntryEscape, "out-to-nothing": sheaf.EntryEscape, "proc": sheaf.EntryEscape,
		"out-and-round": sheaf.EntryEscape,
		"dangling":      sheaf.EntryDangling, "loop": sheaf.EntryDangling, "loop1": sheaf.EntryDangling, "loop2": sheaf.EntryDangling, "below-file": sheaf.EntryDangling,
	}
	openBoth(t, dir, func(t *testing.T, s Source) {
		got := kinds(t, s)
		for path, kind := range want {
			if got[path] != kind {
				t.Errorf("%s is listed as %s, want %s", path, got[path], kind)
			}
			f, err := s.Open(t.Context(), path, "")
			if kind != sheaf.EntryFile {
				if err == nil {
					f.Close()
					t.Errorf("%s was opened", path)
				}
				continue
			}
			must(t, err)
			b, err := io.ReadAll(f)
			if f.Close(); err != nil || string(b) != "content" {
				t.Errorf("%s holds %q, %v", path, b, err)
			}
			if host, ok := s.Local(path); !ok || host != filepath.Join(s.(*fileSource).real, "d/file") {
				t.Errorf("%s lies at %q", path, host)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d entries, want %d", len(got), len(want))
		}
		if host, ok := s.Local(""); !ok || host != s.(*fileSource).real {
			t.Errorf("the root lies at %q, %v", host, ok)
		}
		link, err := s.Stat(t.Context(), "through")
		must(t, err)
		file, err := s.Stat(t.Context(), "d/file")
		must(t, err)
		if link.Identity() != file.Identity() {
			t.Errorf("the link is %s, its target %s", link.Identity(), file.Identity())
		}
		if _, ok := s.Local("escape"); ok {
			t.Error("a link out of the source has a path")
		}
	})
}

func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer l.Close()
	must(t, os.Symlink("fifo", filepath.Join(dir, "to-fifo")))
	put(t, filepath.Join(dir, "names\n\xff\"'/\x01"), "")
	openBoth(t, dir, func(t *testing.T, s Source) {
		want := map[string]sheaf.EntryKind{"fifo": sheaf.EntryFIFO, "socket": sheaf.EntrySocket, "to-fifo": sheaf.EntryFIFO, "names\n\xff\"'": sheaf.EntryDir, "names\n\xff\"'/\x01": sheaf.EntryFile}
		got := kinds(t, s)
		for path, kind := range want {
			if got[path] != kind {
				t.Errorf("%q is a %s, want %s", path, got[path], kind)
			}
		}
		// Opening a FIFO that nobody writes to must not wait.
		for _, path := range []string{"fifo", "socket", "to-fifo"} {
			if _, err := s.Open(t.Context(), path, ""); err == nil {
				t.Errorf("%s was opened", path)
			}
		}
	})
	dev, err := Open("/dev", everything)
	must(t, err)
	defer dev.Close()
	if e, err := dev.Stat(t.Context(), "null"); err != nil || e.Kind != sheaf.EntryDevice {
		t.Errorf("/dev/null is %+v, %v", e, err)
	}
}

func TestOneFile(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.txt"), "content")
	put(t, filepath.Join(dir, "b.txt"), "neighbour")
	must(t, os.Symlink("a.txt", filepath.Join(dir, "link.csv")))
	for _, name := range []string{"a.txt", "link.csv"} {
		s, err := Open("file://"+filepath.Join(dir, name), everything)
		must(t, err)
		defer s.Close()
		var got []sheaf.Entry
		must(t, s.List(t.Context(), Scope{}, func(b []sheaf.Entry) error { got = append(got, b...); return nil }))
		if len(got) != 1 || got[0].Path != name || got[0].Size != 7 || got[0].Kind != sheaf.EntryFile {
			t.Errorf("%s lists %+v", name, got)
		}
		f, err := s.Open(t.Context(), name, got[0].Identity())
		must(t, err)
		b, err := io.ReadAll(f)
		if f.Close(); string(b) != "content" {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
		if host, ok := s.Local(name); !ok || filepath.Base(host) != "a.txt" {
			t.Errorf("%s lies at %q", name, host)
		}
		if _, err := s.Open(t.Context(), "b.txt", ""); sheaf.ClassOf(err) != sheaf.NotFound {
			t.Errorf("the neighbour of %s: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	put(t, filepath.Join(top, "allowed/in/a"), "")
	put(t, filepath.Join(top, "allowed-not/a"), "")
	must(t, os.Symlink("../allowed-not", filepath.Join(top, "allowed/link")))
	must(t, unix.Mkfifo(filepath.Join(top, "allowed/fifo"), 0o644))
	cfg := Config{Files: []Root{{Path: filepath.Join(top, "allowed")}, {Path: filepath.Join(top, "allowed/in"), Shared: true}, {Path: filepath.Join(top, "gone")}}}
	for _, c := range []struct {
		url    string
		class  sheaf.Class
		shared bool
	}{
		{"file://" + top + "/allowed", "", false},
		{"file://localhost" + top + "/allowed/in", "", true},
		{top + "/allowed/in/../in/", "", true},
		{top + "/allowed/in/a", "", true},
		{"file://" + top + "/allowed%2Fin", "", true},
		{top + "/allowed-not", sheaf.Denied, false},
		{top + "/allowed/link", sheaf.Denied, false},
		{top + "/allowed/../allowed-not", sheaf.Denied, false},
		{top, sheaf.Denied, false},
		{"/etc", sheaf.Denied, false},
		{"/nothing/there", sheaf.Denied, false},
		{top + "/allowed/nothing", sheaf.NotFound, false},
		{top + "/allowed/in/a/b", sheaf.NotFound, false},
		{top + "/allowed/fifo", sheaf.Invalid, false},
		{"", sheaf.Invalid, false},
		{"relative/path", sheaf.Invalid, false},
		{"file://relative/path", sheaf.Invalid, false},
		{"file:///%zz", sheaf.Invalid, false},
		{"/a\x00b", sheaf.Invalid, false},
		{"ftp://host/x", sheaf.Invalid, false},
		{"s3://bucket/x", sheaf.Unsupported, false},
		{"https://host/x", sheaf.Unsupported, false},
		{"job://name/out", sheaf.Unsupported, false},
		{"ipfs://not-a-cid", sheaf.Unsupported, false},
		{"car:///data/x.car", sheaf.Unsupported, false},
		{"http://169.254.169.254/latest/meta-data/", sheaf.Invalid, false},
		{"http://[::ffff:169.254.169.254]/", sheaf.Invalid, false},
		{"https://0xa9fea9fe/", sheaf.Unsupported, false},
		{"HTTP://169.254.169.254/", sheaf.Invalid, false},
		{"file://169.254.169.254/latest", sheaf.Invalid, false},
	} {
		s, err := Open(c.url, cfg)
		if c.class == "" {
			if err != nil || s.Shared() != c.shared {
				t.Errorf("%q: %v", c.url, err)
				continue
			}
			s.Close()
			continue
		}
		var e *sheaf.Error
		if !errors.As(err, &e) || e.Class != c.class || e.Field != "source" {
			t.Errorf("%q: %s error %v, want %s", c.url, sheaf.ClassOf(err), err, c.class)
			continue
		}
		if e.Hint == "" {
			t.Errorf("%q: %v names no way out", c.url, e)
		}
		if e.Class == sheaf.Denied && !strings.Contains(e.Hint, "file_root") {
			t.Errorf("%q: the hint %q names no configuration", c.url, e.Hint)
		}
	}
}

func TestChangeIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	put(t, path, "before")
	s, err := Open(dir, everything)
	must(t, err)
	defer s.Close()
	f, err := s.Open(t.Context(), "a", "")
	must(t, err)
	defer f.Close()
	must(t, f.Check())
	if f.Host() == nil {
		t.Error("a file of this machine has no handle")
	}
	put(t, path, "longer than before")
	if err := f.Check(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "stat:6:") {
		t.Errorf("another size: %v", err)
	}
	put(t, path, "before")
	must(t, os.Chtimes(path, time.Time{}, time.Unix(0, f.Entry().MTime+1)))
	if err := f.Check(); !errors.Is(err, ErrChanged) {
		t.Errorf("another time: %v", err)
	}
	must(t, os.Chtimes(path, time.Time{}, time.Unix(0, f.Entry().MTime)))
	if err := f.Check(); err != nil {
		t.Errorf("the same size and time: %v", err)
	}
}

func TestUnreadableDirectoryIsAnError(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a"), "")
	put(t, filepath.Join(dir, "d/b"), "")
	s, err := Open(dir, everything)
	must(t, err)
	defer s.Close()
	// A link in its place stands for every reason that a directory cannot be
	// read: the tests may run as root, whom no mode stops.
	w := s.(*fileSource)
	if _, err := w.readDir("a", make([]byte, direntBuffer)); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file as a directory: %v", err)
	}
	must(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")))
	must(t, os.Symlink("e", filepath.Join(dir, "d")))
	if _, err := w.readDir("d", make([]byte, direntBuffer)); err == nil {
		t.Error("a link was descended")
	}
}

// TestFarAhead guards the bound on what is read ahead: a tree of far more
// entries than that is listed whole, with a consumer that waits for them.
func TestFarAhead(t *testing.T) {
	dir := t.TempDir()
	for d := range 40 {
		put(t, filepath.Join(dir, strings.Repeat("x", d+1), "y/z"), "")
	}
	s, err := Open(dir, everything)
	must(t, err)
	defer s.Close()
	w := &walker{source: s.(*fileSource), scratch: make([]byte, direntBuffer), yield: func([]sheaf.Entry) error { return nil }}
	w.wake.L = &w.mu
	w.root, w.ahead = newNode(""), maxAhead+1 // no reader would begin anything
	var got []string
	w.yield = func(batch []sheaf.Entry) error {
		for _, e := range batch {
			got = append(got, e.Path)
		}
		return nil
	}
	must(t, w.emit(t.Context(), w.root))
	must(t, w.flush(t.Context()))
	if len(got) != 120 || !slices.IsSorted(got) {
		t.Fatalf("%d entries", len(got))
	}
}
