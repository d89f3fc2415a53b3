package result

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// world is a run whose files lie in memory, by partition and path.
type world struct {
	files   []sheaf.File
	content map[string]string // "partition/path"
	fetched atomic.Int64
	parts   []Partition
}

func (w *world) file(path string, from ...string) {
	f := sheaf.File{Output: "o", Path: path, Mode: 0o644}
	for i, c := range from {
		p := sheaf.Part{Partition: i, Attempt: uint32(i + 1), Size: int64(len(c)), SHA256: sum(c)}
		f.Parts = append(f.Parts, p)
		f.Size += p.Size
		if w.content == nil {
			w.content = map[string]string{}
		}
		w.content[fmt.Sprintf("%d/%s", i, path)] = c
	}
	if len(from) == 1 {
		f.SHA256 = sum(from[0])
	}
	w.files = append(w.files, f)
}

func (w *world) link(path, target string) {
	w.files = append(w.files, sheaf.File{Output: "o", Path: path, Link: target, Mode: 0o777})
}

func (w *world) source() Source {
	var m []byte
	for _, f := range w.files {
		m = append(f.AppendJSON(m), '\n')
	}
	return Source{
		Run: "run-1", Manifest: bytes.NewReader(m), SHA256: sum(string(m)),
		Fetch: func(_ context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
			w.fetched.Add(1)
			content := w.content[fmt.Sprintf("%d/%s", p.Partition, f.Path)]
			return io.NopCloser(strings.NewReader(content[min(int(offset), len(content)):])), nil
		},
		Partitions: func(yield func(Partition, error) bool) {
			for _, p := range w.parts {
				if !yield(p, nil) {
					return
				}
			}
		},
	}
}

// tree lists a folder with what is in it.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel := strings.TrimPrefix(p, dir+"/")
		if rel == listName {
			return nil
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			all = append(all, rel+"->"+target)
			return err
		}
		b, err := os.ReadFile(p)
		all = append(all, rel+"="+string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, dir string, src Source) Summary {
	t.Helper()
	s, err := Write(context.Background(), dir, src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// listedEntry is a file in manifest.json.
type listedEntry struct {
	entry
	Parts []piece `json:"parts"`
}

func TestFolder(t *testing.T) {
	w := &world{}
	w.file("a/b.txt", "one")
	w.file("all.txt", "first\n", "second\n")
	w.file("bad\xff", "x")
	w.file("empty", "")
	w.link("a/link", "../all.txt")
	w.parts = []Partition{
		{Index: 0, Attempt: 1, Stdout: strings.NewReader("out0\n"), Stderr: strings.NewReader("err0\n")},
		{Index: 2, Attempt: 3, ExitCode: 3, Stdout: strings.NewReader("out2\n")},
		{Index: 10, Attempt: 1, ExitCode: -1},
	}
	dir := t.TempDir() + "/new/folder"
	s := write(t, dir, w.source())
	if s != (Summary{Files: 5, Bytes: 17, Fetched: 17}) {
		t.Errorf("summary %+v", s)
	}
	want := []string{
		"outputs/o/a/b.txt=one", "outputs/o/a/link->../all.txt", "outputs/o/all.txt=first\nsecond\n", "outputs/o/bad\xff=x", "outputs/o/empty=",
		"partitions/0/exit_code=0\n", "partitions/0/stderr=err0\n", "partitions/0/stdout=out0\n",
		"partitions/10/exit_code=-1\n", "partitions/10/stderr=", "partitions/10/stdout=",
		"partitions/2/exit_code=3\n", "partitions/2/stderr=", "partitions/2/stdout=out2\n",
		"stderr=err0\n", "stdout=out0\nout2\n",
	}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	b, err := os.ReadFile(dir + "/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Run   string
		Files []listedEntry
	}
	if err := sheaf.DecodeStrict(b, &doc); err != nil || doc.Run != "run-1" {
		t.Fatalf("manifest.json: %v: %s", err, b)
	}
	listed := map[string]listedEntry{}
	for _, e := range doc.Files {
		name := e.Path + string(e.PathB64)
		listed[name] = e
		if e.Link != "" {
			continue
		}
		c, err := os.ReadFile(dir + "/" + name)
		if err != nil || int64(len(c)) != e.Size || sum(string(c)) != e.SHA256 {
			t.Errorf("%q is listed with %d bytes, %s (%v)", name, e.Size, e.SHA256, err)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d files are listed, %d there", len(listed), len(want))
	}
	if e := listed["partitions/2/stdout"]; *e.Partition != 2 || *e.Attempt != 3 {
		t.Errorf("stdout of 2: %+v", e)
	}
	if e := listed["outputs/o/all.txt"]; len(e.Parts) != 2 || e.Parts[1] != (piece{1, 2, 7, sum("second\n")}) {
		t.Errorf("joined: %+v", e)
	}
	if e := listed["outputs/o/a/b.txt"]; *e.Partition != 0 || *e.Attempt != 1 {
		t.Errorf("single: %+v", e)
	}
}

func TestWritingAgainFetchesWhatIsMissing(t *testing.T) {
	w := &world{}
	for i := range 20 {
		w.file(fmt.Sprintf("d%d/f", i), fmt.Sprint("content", i))
	}
	w.file("joined", "ab", "cd")
	dir := t.TempDir()
	src := w.source()
	fetch := src.Fetch
	src.Fetch = func(ctx context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
		if f.Path == "joined" {
			return nil, errors.New("connection lost")
		}
		return fetch(ctx, f, p, offset)
	}
	if _, err := Write(context.Background(), dir, src); err == nil || !strings.Contains(err.Error(), `"joined"`) || !strings.Contains(err.Error(), "connection lost") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(dir + "/manifest.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("half a result has a manifest.json")
	}
	write(t, dir, w.source())
	// One is damaged, one gone, one cut.
	os.WriteFile(dir+"/outputs/o/d3/f", []byte("CONTENT3"), 0o644)
	os.Remove(dir + "/outputs/o/d4/f")
	os.WriteFile(dir+"/outputs/o/joined", []byte("abc"), 0o644)
	w.fetched.Store(0)
	s := write(t, dir, w.source())
	if n := w.fetched.Load(); n != 4 || s.Kept != 18 || s.Files != 21 {
		t.Errorf("fetched %d parts, %+v", n, s)
	}
	if b, _ := os.ReadFile(dir + "/outputs/o/d3/f"); string(b) != "content3" {
		t.Errorf("d3 is %q", b)
	}
}

func TestAnotherResultLeavesNothingOfTheFirst(t *testing.T) {
	a := &world{}
	a.file("keep", "k")
	a.file("gone/deep/f", "x")
	a.file("becomes/dir", "was in a directory")
	a.file("turns", "was a file")
	a.link("l", "keep")
	a.parts = []Partition{{Index: 5, Stdout: strings.NewReader("5")}}
	dir := t.TempDir()
	write(t, dir, a.source())
	b := &world{}
	b.file("keep", "k")
	b.file("becomes", "a file")
	b.file("turns/inner", "in a directory")
	b.file("l/x", "where a link was")
	write(t, dir, b.source())
	want := []string{"outputs/o/becomes=a file", "outputs/o/keep=k", "outputs/o/l/x=where a link was", "outputs/o/turns/inner=in a directory", "stderr=", "stdout="}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(dir + "/partitions/5"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a partition of the first result is still there")
	}
}

func TestHostileManifests(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*world)
		says string
	}{
		"path up":        {func(w *world) { w.file("../../x", "x") }, "not clean"},
		"absolute":       {func(w *world) { w.file("/etc/x", "x") }, "absolute"},
		"output up":      {func(w *world) { w.file("x", "x"); w.files[0].Output = "../.." }, "name"},
		"link out":       {func(w *world) { w.link("l", "../../../etc") }, "outside of the output"},
		"link absolute":  {func(w *world) { w.link("l", "/etc/passwd") }, "outside of the output"},
		"link to output": {func(w *world) { w.link("l", "../p/x") }, "outside of the output"},
		"links in turn": {func(w *world) {
			w.file("d/e/f", "x")
			w.link("in", "d/e")
			w.link("out", "in/../../..")
		}, "outside of the output"},
		"wrong digest": {func(w *world) { w.file("x", "x"); w.content["0/x"] = "y" }, "digest"},
		"too short":    {func(w *world) { w.file("x", "long"); w.content["0/x"] = "lo" }, "end 2 early"},
		"sizes":        {func(w *world) { w.file("x", "long"); w.files[0].Size = 1 << 60 }, "parts of"},
		"negative":     {func(w *world) { w.file("x", "long"); w.files[0].Parts[0].Size = -1 }, "parts of"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			c.make(w)
			base := t.TempDir()
			_, err := Write(context.Background(), base+"/dir", w.source())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if list, _ := os.ReadDir(base); len(list) != 1 {
				t.Errorf("written beside the folder: %v", list)
			}
			if _, err := os.Stat(base + "/dir/manifest.json"); err == nil {
				t.Error("it counts as whole")
			}
		})
	}
}

func TestFolderWithPlantedLinks(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	os.MkdirAll(dir+"/outputs", 0o755)
	os.Symlink(outside, dir+"/outputs/o")
	os.Symlink(outside, dir+"/partitions")
	os.Symlink(outside+"/out", dir+"/stdout")
	w := &world{parts: []Partition{{Index: 0, Stdout: strings.NewReader("x")}}}
	w.file("f", "f")
	write(t, dir, w.source())
	if list, _ := os.ReadDir(outside); len(list) != 0 {
		t.Errorf("written through a link: %v", list)
	}
	if got := tree(t, dir); !slices.Contains(got, "outputs/o/f=f") || !slices.Contains(got, "stdout=x") {
		t.Errorf("got %q", got)
	}
}

func TestManifestOfAnotherRun(t *testing.T) {
	w := &world{}
	w.file("f", "f")
	src := w.source()
	src.SHA256 = sum("another")
	if _, err := Write(context.Background(), t.TempDir(), src); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("got %v", err)
	}
}

func TestRecordsThatFail(t *testing.T) {
	w := &world{}
	dir := t.TempDir()
	for name, seq := range map[string]iter.Seq2[Partition, error]{
		"an error": func(yield func(Partition, error) bool) { yield(Partition{}, errors.New("node is gone")) },
		"out of order": func(yield func(Partition, error) bool) {
			_ = yield(Partition{Index: 2}, nil) && yield(Partition{Index: 1}, nil)
		},
	} {
		src := w.source()
		src.Partitions = seq
		if _, err := Write(context.Background(), dir, src); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(dir + "/manifest.json"); err == nil {
			t.Errorf("%s: it counts as whole", name)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	const n = 10_000
	from := b.TempDir()
	w := &world{}
	for i := range n {
		name := fmt.Sprintf("%02d/f%06d", i%100, i)
		os.MkdirAll(from+"/"+filepath.Dir(name), 0o755)
		c := strings.Repeat(fmt.Sprint(i), 200)
		os.WriteFile(from+"/"+name, []byte(c), 0o644)
		w.file(name, c)
	}
	to := b.TempDir()
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			src := w.source()
			src.Fetch = func(_ context.Context, f sheaf.File, _ sheaf.Part, _ int64) (io.ReadCloser, error) {
				return os.Open(from + "/" + f.Path)
			}
			if _, err := Write(context.Background(), to+"/w", src); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(to + "/w")
			b.StartTimer()
		}
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("cp -r", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("cp", "-r", from, to+"/c").Run(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(to + "/c")
			b.StartTimer()
		}
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "files/s")
	})
}
