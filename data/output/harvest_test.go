package output

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

func write(t *testing.T, root, path, content string) {
	t.Helper()
	full := root + "/" + path
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestHarvestListsEverythingInOrder(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	big := strings.Repeat("0123456789abcdef", readBuffer/16) // exactly one buffer
	write(t, a, "z", "zz")
	write(t, a, "d/x", big)
	write(t, a, "d.txt", big+"1")
	write(t, a, "bad\xff\n", "")
	if err := os.Mkdir(a+"/empty", 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"d/rel": "../z", "abs": "/out/d/x", "toDir": "d"} {
		if err := os.Symlink(target, a+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	write(t, b, "only", "b")
	m, err := Harvest(context.Background(), []Dir{{"second", a, "/out"}, {"first", b, "/b"}}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range m.Files {
		got = append(got, fmt.Sprintf("%s %q %d %s %s", f.Output, f.Path, f.Size, f.Link, f.SHA256))
	}
	want := []string{
		`first "only" 1  ` + sum("b"),
		`second "abs" 0 d/x `,
		`second "bad\xff\n" 0  ` + sum(""),
		fmt.Sprintf(`second "d.txt" %d  %s`, readBuffer+1, sum(big+"1")),
		`second "d/rel" 0 ../z `,
		fmt.Sprintf(`second "d/x" %d  %s`, readBuffer, sum(big)),
		`second "toDir" 0 d `,
		`second "z" 2  ` + sum("zz"),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	enc := m.Encode()
	back, err := Decode(enc)
	if err != nil || !bytes.Equal(back.Encode(), enc) || back.Bytes != m.Bytes {
		t.Errorf("decoded: %v, %d bytes of %d", err, back.Bytes, m.Bytes)
	}
}

func TestHarvestRefuses(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "secret", "s")
	symlink := func(target, at string) func(*testing.T, string) {
		return func(t *testing.T, d string) {
			write(t, d, "in/file", "x")
			if err := os.Symlink(target, d+"/"+at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		make   func(*testing.T, string)
		limits Limits
		class  sheaf.Class
		says   string
	}{
		"link to the host":        {symlink(outside+"/secret", "l"), Limits{}, sheaf.Invalid, `link "l" leads to`},
		"link up":                 {symlink("../../etc/passwd", "in/l"), Limits{}, sheaf.Invalid, "outside"},
		"link up within a name":   {symlink("in/../../x", "l"), Limits{}, sheaf.Invalid, "outside"},
		"link to nothing":         {symlink("gone", "l"), Limits{}, sheaf.Invalid, "where nothing is"},
		"link to itself":          {symlink("l", "l"), Limits{}, sheaf.Invalid, "circle"},
		"absolute, near the name": {symlink("/outside/x", "l"), Limits{}, sheaf.Invalid, "outside"},
		"directory to the host":   {symlink("/etc", "in/l"), Limits{}, sheaf.Invalid, `"/etc", outside`},
		"fifo": {func(t *testing.T, d string) {
			if err := unix.Mkfifo(d+"/pipe", 0o644); err != nil {
				t.Fatal(err)
			}
		}, Limits{}, sheaf.Invalid, `"pipe" is a FIFO`},
		"socket": {func(t *testing.T, d string) {
			l, err := net.Listen("unix", d+"/s")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, Limits{}, sheaf.Invalid, `"s" is a socket`},
		"device": {func(t *testing.T, d string) {
			if err := unix.Mknod(d+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
				t.Fatal(err)
			}
		}, Limits{}, sheaf.Invalid, `"null" is a device`},
		"huge sparse file": {func(t *testing.T, d string) {
			write(t, d, "huge", "")
			if err := os.Truncate(d+"/huge", 8<<40); err != nil {
				t.Fatal(err)
			}
		}, Limits{Bytes: 1 << 20}, sheaf.TooLarge, `"huge" has 8796093022208 bytes`},
		"many files over the quota": {func(t *testing.T, d string) {
			for i := range 4 {
				write(t, d, fmt.Sprint("d", i, "/f"), "0123456789")
			}
		}, Limits{Bytes: 39}, sheaf.TooLarge, "39B"},
		"too many files": {func(t *testing.T, d string) {
			for i := range 4 {
				write(t, d, fmt.Sprint(i), "")
			}
		}, Limits{Files: 3}, sheaf.TooLarge, "more than 3 files"},
		"a long path": {func(t *testing.T, d string) {
			at, err := unix.Open(d, unix.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			long := strings.Repeat("n", 250)
			for range MaxPath/len(long) + 1 { // longer than the kernel takes in one piece
				err := unix.Mkdirat(at, long, 0o755)
				next, open := unix.Openat(at, long, unix.O_RDONLY, 0)
				_ = unix.Close(at)
				if err != nil || open != nil {
					t.Fatal(err, open)
				}
				at = next
			}
			_ = unix.Close(at)
		}, Limits{}, sheaf.TooLarge, fmt.Sprintf("limit %d bytes", MaxPath)},
		"too deep": {func(t *testing.T, d string) {
			if err := os.MkdirAll(d+strings.Repeat("/d", MaxDepth+2), 0o755); err != nil {
				t.Fatal(err)
			}
		}, Limits{}, sheaf.TooLarge, "nested too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			d := t.TempDir()
			c.make(t, d)
			_, err := Harvest(context.Background(), []Dir{{"o", d, "/out"}}, c.limits)
			if err == nil || sheaf.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q (%s), want %s saying %q", err, sheaf.ClassOf(err), c.class, c.says)
			}
			var e *sheaf.Error
			if errors.As(err, &e) && (e.Hint == "" || c.class == sheaf.TooLarge && e.Limit == "") {
				t.Errorf("%q names the limit %q and the way out %q", err, e.Limit, e.Hint)
			}
			if err != nil && !strings.Contains(err.Error(), `"o"`) {
				t.Errorf("%q does not name the output", err)
			}
		})
	}
}

func TestHarvestOutputThatIsALink(t *testing.T) {
	d := t.TempDir()
	if err := os.Symlink("/etc", d+"/o"); err != nil {
		t.Fatal(err)
	}
	m, err := Harvest(context.Background(), []Dir{{"o", d + "/o", "/out"}}, Limits{})
	if err == nil {
		t.Fatalf("listed %d files of the host", len(m.Files))
	}
	if sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), `"o"`) || !strings.Contains(err.Error(), "cannot be opened") {
		t.Errorf("got %q (%s)", err, sheaf.ClassOf(err))
	}
}

func TestHarvestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := t.TempDir()
	write(t, d, "a", "a")
	if _, err := Harvest(ctx, []Dir{{"o", d, "/o"}}, Limits{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	line := func(p string) string { return string(sheaf.File{Output: "o", Path: p}.AppendJSON(nil)) + "\n" }
	for name, s := range map[string]string{
		"up": line("../x"), "absolute": line("/x"), "empty": line(""), "unclean": line("a//b"), "inner up": line("a/../../b"),
		"twice": line("a") + line("a"), "order": line("b") + line("a"), "cut": line("a")[:10], "nul": line("a\x00b"),
		"long": line(strings.Repeat("x", MaxPath+1)), "negative": `{"output":"o","path":"a","size":-1}` + "\n",
	} {
		if _, err := Decode([]byte(s)); err == nil {
			t.Errorf("%s: accepted %q", name, s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"output":"o","path":"a","size":1,"sha256":"","mode":420}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(m.Encode())
		if err != nil || len(again.Files) != len(m.Files) {
			t.Fatalf("%q decoded, its encoding does not: %v", b, err)
		}
	})
}

func BenchmarkHarvest(b *testing.B) {
	d := b.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", d, i), make([]byte, 2048), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := Harvest(context.Background(), []Dir{{"o", d, "/o"}}, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/file")
}
