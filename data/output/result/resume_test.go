package result

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// cutting serves files whose transfers end after so many bytes with a failure, and counts what it gave.
type cutting struct {
	*world
	after int

	mu    sync.Mutex
	given map[string]int // bytes, by partition and path
}

func (c *cutting) source() Source {
	src := c.world.source()
	src.Fetch = func(_ context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
		at := fmt.Sprintf("%d/%s", p.Partition, f.Path)
		rest := c.content[at][offset:]
		if c.after < len(rest) {
			rest = rest[:c.after]
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.given == nil {
			c.given = map[string]int{}
		}
		c.given[at] += len(rest)
		return io.NopCloser(io.MultiReader(strings.NewReader(rest), broke{})), nil
	}
	return src
}

type broke struct{}

func (broke) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// joinedWorld has a file of one part and one of three.
func joinedWorld() *world {
	w := &world{}
	w.file("joined", strings.Repeat("one ", 1000), strings.Repeat("two ", 1000), strings.Repeat("three ", 1000))
	w.file("single", strings.Repeat("lonely ", 1000))
	return w
}

func (w *world) check(t *testing.T, dir string) {
	t.Helper()
	for _, f := range w.files {
		want := ""
		for i := range f.Parts {
			want += w.content[fmt.Sprintf("%d/%s", i, f.Path)]
		}
		if got, err := os.ReadFile(filepath.Join(dir, "outputs/o", f.Path)); err != nil || string(got) != want {
			t.Errorf("%s has %d bytes, not %d, or others; %v", f.Path, len(got), len(want), err)
		}
	}
}

// TestCutTransfersGoOn: every transfer breaks after a thousand bytes, and no byte is fetched twice.
func TestCutTransfersGoOn(t *testing.T) {
	c := &cutting{world: joinedWorld(), after: 1000}
	dir := t.TempDir()
	s := write(t, dir, c.source())
	c.check(t, dir)
	for at, n := range c.given {
		if n != len(c.content[at]) {
			t.Errorf("of %s %d bytes were fetched, and it has %d", at, n, len(c.content[at]))
		}
	}
	if s.Fetched != s.Bytes || s.Kept != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStubbornlyCut: a transfer of which nothing more comes is not asked for without end, and the next try begins
// where it stopped.
func TestStubbornlyCut(t *testing.T) {
	w := joinedWorld()
	dir := t.TempDir()
	src := w.source()
	fetch := src.Fetch
	src.Fetch = func(ctx context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
		if f.Path != "joined" || p.Partition == 0 {
			return fetch(ctx, f, p, offset)
		}
		const there = 1500 // and not a byte more
		return io.NopCloser(io.MultiReader(strings.NewReader(w.content["1/joined"][offset:there]), broke{})), nil
	}
	if _, err := Write(context.Background(), dir, src); err == nil || !strings.Contains(err.Error(), "connection reset") {
		t.Fatalf("got %v", err)
	}
	c := &cutting{world: w, after: 1 << 20}
	s := write(t, dir, c.source())
	w.check(t, dir)
	if c.given["0/joined"] != 0 || c.given["1/joined"] != 4000-1500 || c.given["2/joined"] != 6000 {
		t.Errorf("the next try fetched %v", c.given)
	}
	if s.Fetched > s.Bytes-4000-1500 {
		t.Errorf("%+v", s)
	}
	if list, err := os.ReadDir(filepath.Join(dir, partial)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is left; %v", list, err)
	}
}

// TestDamagedLeftovers: what a killed try left may be anything, and what is wrong of it is fetched anew.
func TestDamagedLeftovers(t *testing.T) {
	joined := func(w *world) string { return w.content["0/joined"] + w.content["1/joined"] + w.content["2/joined"] }
	for name, c := range map[string]struct {
		left    func(string) string
		fetched int
	}{
		"cut in the second part":         {func(s string) string { return s[:5000] }, 9000},
		"cut between parts":              {func(s string) string { return s[:4000] }, 10000},
		"whole":                          {func(s string) string { return s }, 0},
		"longer":                         {func(s string) string { return s + "more" }, 0},
		"holes in the part that is cut":  {func(s string) string { return s[:4100] + strings.Repeat("\x00", 300) }, 3600 + 10000},
		"holes in one before":            {func(s string) string { return strings.Repeat("\x00", 10) + s[10:6000] }, 14000},
		"the last part is others' bytes": {func(s string) string { return s[:8000] + strings.Repeat("x", 6000) }, 6000},
		"nothing":                        {func(string) string { return "" }, 14000},
	} {
		w := joinedWorld()
		dir := t.TempDir()
		// A try that gets nothing leaves the file under the name that the next one looks for.
		none := w.source()
		none.Fetch = func(context.Context, sheaf.File, sheaf.Part, int64) (io.ReadCloser, error) {
			return io.NopCloser(broke{}), nil
		}
		w.files = w.files[:1]
		none.Manifest, none.SHA256 = w.source().Manifest, ""
		if _, err := Write(context.Background(), dir, none); err == nil {
			t.Fatal("written of nothing")
		}
		list, err := os.ReadDir(filepath.Join(dir, partial))
		left := ""
		for _, e := range list {
			if len(e.Name()) == 32 {
				left = filepath.Join(dir, partial, e.Name())
			}
		}
		if err != nil || left == "" {
			t.Fatalf("%s: nothing is left in %v; %v", name, list, err)
		}
		if err := os.WriteFile(left, []byte(c.left(joined(w))), 0o400); err != nil {
			t.Fatal(err)
		}
		all := &cutting{world: w, after: 1 << 20}
		s := write(t, dir, all.source())
		w.check(t, dir)
		if int(s.Fetched) != c.fetched {
			t.Errorf("%s: %d bytes were fetched, not %d: %v", name, s.Fetched, c.fetched, all.given)
		}
	}
}
