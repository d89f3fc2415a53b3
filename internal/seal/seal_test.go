package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func keys(t *testing.T, lines ...string) *Keys {
	t.Helper()
	k, err := Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal(t *testing.T) {
	a, b := NewKey(), NewKey()
	old, both, other := keys(t, a), keys(t, "# newest", b, "", a), keys(t, b)
	value := []byte("correct horse battery staple")
	sealed := old.Seal("ns/name", value)
	if len(sealed) != len(value)+Overhead || bytes.Contains(sealed, value[:8]) {
		t.Fatalf("sealed is %d bytes: %q", len(sealed), sealed)
	}
	if again := old.Seal("ns/name", value); bytes.Equal(again, sealed) {
		t.Error("two sealings are the same")
	}
	for _, k := range []*Keys{old, both} {
		if got, err := k.Open("ns/name", sealed); err != nil || !bytes.Equal(got, value) {
			t.Errorf("opened is %q, %v", got, err)
		}
	}
	if _, err := other.Open("ns/name", sealed); !errors.Is(err, ErrNoKey) {
		t.Errorf("without its key: %v", err)
	}
	if _, err := old.Open("ns/other", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("under another name: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := old.Open("ns/name", bad); err == nil {
			t.Errorf("byte %d may be flipped", i)
		}
	}
	for n := range len(sealed) {
		if _, err := old.Open("ns/name", sealed[:n]); err == nil {
			t.Errorf("%d bytes of it open", n)
		}
	}
	if KeyOf(sealed) != old.Newest() || KeyOf(both.Seal("x", value)) != other.Newest() || KeyOf([]byte("x")) != "" {
		t.Error("keys are named otherwise")
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server", "secrets.key")
	made, err := LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file made is %v, %v", info.Mode(), err)
	}
	again, err := LoadOrMake(path)
	if err != nil || again.Newest() != made.Newest() {
		t.Errorf("a second start has another key: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "server", ".key-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrMake(path); err == nil || !strings.Contains(err.Error(), "others can read it") {
		t.Errorf("a key that the group can read: %v", err)
	}
	good := NewKey()
	for name, text := range map[string]string{
		"empty": "", "only a comment": "# none\n", "short": good[:20], "no base64": strings.Repeat("!", 44), "twice": good + "\n" + good,
		"a directory": "",
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if name == "a directory" {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if err == nil {
			t.Errorf("%s: it is taken", name)
		} else if strings.Contains(err.Error(), good[:16]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	k, err := Parse([]byte(NewKey()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Seal("a", []byte("value")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if got, err := k.Open("b", sealed); err == nil {
			t.Errorf("%x opens to %q", sealed, got)
		}
	})
}
