package secret

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func set(t *testing.T, values ...string) *Set {
	t.Helper()
	job := &sheaf.Job{}
	var given []*wire.SecretValue
	for i, v := range values {
		name := string(rune('a' + i))
		job.Task.Secrets = append(job.Task.Secrets, sheaf.TaskSecret{Name: name, File: "/secrets/" + name})
		given = append(given, &wire.SecretValue{Name: name, Value: []byte(v)})
	}
	s, err := NewSet(job, given)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMask(t *testing.T) {
	key := "-----BEGIN KEY-----\nabcdefghijkl\nshort\nmnopqrstuvwx\n-----END KEY-----\n"
	for _, c := range []struct {
		values     []string
		text, want string
	}{
		{nil, "nothing here", "nothing here"},
		{[]string{"hunter2hunter2"}, "say hunter2hunter2!", "say ***!"},
		{[]string{"hunter2hunter2\n"}, "hunter2hunter2", "***"},
		{[]string{"hunter2hunter2"}, "hunter2hunter", "hunter2hunter"},
		{[]string{"hunter2hunter2"}, "hunter2hunter2hunter2hunter2", "***"},
		{[]string{"hunter2hunter2"}, "hunter2hunter2 hunter2hunter2", "*** ***"},
		{[]string{"hunter2hunter2"}, "hunter2hunter2hunter2", "***"},
		{[]string{"hunter2"}, "hunter2", "hunter2"}, // seven bytes stand there by chance
		{[]string{"aaaaaaaa"}, strings.Repeat("a", 1000) + "b", "***b"},
		{[]string{"abcdefgh", "cdefghij"}, "xabcdefghijx", "x***x"},
		{[]string{"abcdefgh", "xxabcdefghxx"}, "xxabcdefghxx-xxabcdefghx", "***-xx***x"},
		{[]string{"abcdefgh", "bcdefghi", "abcdefg\xff"}, "abcdefg\xffabcdefghi", "******"},
		{[]string{key}, key, "***\n"},
		{[]string{key}, "abcdefghijkl short mnopqrstuvwx", "*** short ***"},
	} {
		s := set(t, c.values...)
		if got := s.Mask(c.text); got != c.want {
			t.Errorf("%q of %q is %q, want %q", c.text, c.values, got, c.want)
		}
		for n := 1; n <= 5; n++ { // the same in pieces
			k := s.Masker()
			var got []byte
			for piece := range slices.Chunk([]byte(c.text), n) {
				got = append(got, k.Write(piece)...)
			}
			if got = append(got, k.End()...); string(got) != c.want {
				t.Errorf("%q of %q by %d is %q, want %q", c.text, c.values, n, got, c.want)
			}
		}
	}
}

// TestMaskHoldsLittle: a stream that never ends takes no more memory than its
// secrets, whatever it prints.
func TestMaskHoldsLittle(t *testing.T) {
	for _, text := range []string{"a", "ab", "aaaaaaab"} {
		k := set(t, "aaaaaaaa", "abababababab", "aaaaaaab").Masker()
		for range 100_000 {
			k.Write([]byte(text))
			if len(k.held) > 32 || len(k.hidden) > 32 {
				t.Fatalf("%q: %d bytes and %d spans are held", text, len(k.held), len(k.hidden))
			}
		}
	}
}

// FuzzMask holds the masker against a plain search over texts of few letters.
func FuzzMask(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		word := func(n int) []byte {
			w := make([]byte, n)
			for i := range w {
				w[i] = "ab"[r.IntN(2)]
			}
			return w
		}
		var values [][]byte
		for range 1 + r.IntN(4) {
			values = append(values, word(minMasked+r.IntN(4)))
		}
		text := word(r.IntN(200))
		hidden := make([]bool, len(text))
		for _, v := range values {
			for i := range text {
				if bytes.HasPrefix(text[i:], v) {
					for j := range v {
						hidden[i+j] = true
					}
				}
			}
		}
		var want []byte
		for i, c := range text {
			if !hidden[i] {
				want = append(want, c)
			} else if i == 0 || !hidden[i-1] {
				want = append(want, mark...)
			}
		}
		k := Masker{m: newMatcher(values)}
		var got []byte
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			got, rest = append(got, k.Write(rest[:n])...), rest[n:]
		}
		got = append(got, k.End()...)
		// Two secrets side by side have a mark each.
		if got = marks.ReplaceAll(got, []byte(mark)); !bytes.Equal(got, want) {
			t.Errorf("%q of %q is %q, want %q", text, values, got, want)
		}
	})
}

var marks = regexp.MustCompile(`(\*\*\*)+`)

func TestSetIsChecked(t *testing.T) {
	job := &sheaf.Job{Task: sheaf.Task{Secrets: []sheaf.TaskSecret{{Name: "a", Env: "Z"}, {Name: "b", Env: "A"}}, Config: map[string]any{sheaf.RegistrySecret: "r"}}}
	value := func(name, v string) *wire.SecretValue { return &wire.SecretValue{Name: name, Value: []byte(v)} }
	if _, err := NewSet(job, []*wire.SecretValue{value("a", "x"), value("b", "y")}); err == nil {
		t.Error("a set without one of its secrets")
	}
	if _, err := NewSet(job, []*wire.SecretValue{value("a", "x\x00y"), value("b", "y"), value("r", "u:p")}); sheaf.ClassOf(err) != sheaf.Invalid || strings.Contains(err.Error(), "y\"") {
		t.Errorf("a NUL in a variable: %v", err)
	}
	s, err := NewSet(job, []*wire.SecretValue{value("a", "${x}"), value("b", "y=z"), value("r", "u:p")})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Env([]string{"B=1", "Y=2"}); !slices.Equal(got, []string{"A=y=z", "B=1", "Y=2", "Z=${x}"}) {
		t.Errorf("the environment is %q", got)
	}
	if got := s.Registry(&job.Task); string(got) != "u:p" {
		t.Errorf("the registry gets %q", got)
	}
}

func TestFiles(t *testing.T) {
	of := t.TempDir() // nobody else's, also of another run of this test
	f := NewFiles(of)
	if f.dir == "" {
		t.Fatal("this machine has no tmpfs at /run or /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(f.dir) })
	task := &sheaf.Task{Secrets: []sheaf.TaskSecret{{Name: "a", File: "/secrets/a"}, {Name: "b", File: "/secrets/b"}, {Name: "a", File: "/etc2/x/a.pem"}, {Name: "b", Env: "B"}}}
	s, err := NewSet(&sheaf.Job{Task: *task}, []*wire.SecretValue{{Name: "a", Value: []byte("one")}, {Name: "b", Value: []byte("two")}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again is the same
		mounts, err := f.Make("run", task, s)
		if err != nil || len(mounts) != 2 || mounts[0].Target != "/etc2/x" || mounts[1].Target != "/secrets" {
			t.Fatalf("mounts %v, %v", mounts, err)
		}
		for path, want := range map[string]string{mounts[0].Source + "/a.pem": "one", mounts[1].Source + "/a": "one", mounts[1].Source + "/b": "two"} {
			b, err := os.ReadFile(path)
			if err != nil || string(b) != want {
				t.Errorf("%s holds %q, %v", path, b, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		for _, m := range mounts {
			if !m.ReadOnly || !m.Secret || inMemory(m.Source) != nil {
				t.Errorf("mount %v", m)
			}
		}
	}
	if info, err := os.Stat(f.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others enter it: %v, %v", info.Mode(), err)
	}
	if _, err := f.Make("other", task, s); err != nil {
		t.Fatal(err)
	}
	if err := NewFiles(of).Clean(func(run sheaf.RunID) bool { return run == "other" }); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("after a restart there are %v, %v", left, err)
	}
	if err := f.Remove("other"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("its directory is left: %v", err)
	}
}

// TestFilesAreNotOthers: in a place where all may write, a directory or link
// that somebody else put there first is not used.
func TestFilesAreNotOthers(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "sheaf-test-*")
	if err != nil || inMemory(dir) != nil {
		t.Fatal("this machine has no tmpfs at /dev/shm", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	task := &sheaf.Task{Secrets: []sheaf.TaskSecret{{Name: "a", File: "/secrets/a"}}}
	s := set(t, "value of a")
	for what, make := range map[string]func(path string) error{
		"a link":                    func(path string) error { return os.Symlink(t.TempDir(), path) },
		"a directory open to all":   func(path string) error { return os.Mkdir(path, 0o755) },
		"a file":                    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a mount point of no tmpfs": func(path string) error { return os.Symlink("/proc", path) },
	} {
		f := &Files{dir: filepath.Join(dir, "x")}
		if err := make(f.dir); err != nil {
			t.Fatal(err)
		}
		if mounts, err := f.Make("r", task, s); err == nil {
			t.Errorf("%s is used: %v", what, mounts)
		}
		if err := os.RemoveAll(f.dir); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &st); err == nil && st.Type != unix.TMPFS_MAGIC {
		f := &Files{dir: filepath.Join(t.TempDir(), "x")}
		if mounts, err := f.Make("r", task, s); err == nil {
			t.Errorf("a disk is used: %v", mounts)
		}
	}
	if _, err := (&Files{}).Make("r", task, s); sheaf.ClassOf(err) != sheaf.Unavailable {
		t.Errorf("no memory file system: %v", err)
	}
}
