package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/sheaf"
)

var everything = source.Config{Files: []source.Root{{Path: "/"}}}

// volumes makes a directory for each mount, with the files named.
func volumes(t testing.TB, files map[string][]string) (inputs []sheaf.Input) {
	top := t.TempDir()
	for mount, names := range files {
		dir := filepath.Join(top, fmt.Sprint(len(inputs)))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			path := filepath.Join(dir, n)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		inputs = append(inputs, sheaf.Input{Name: strings.NewReplacer("/", "_").Replace(mount), Source: "file://" + dir, Mount: mount})
	}
	return inputs
}

func openTree(t testing.TB, inputs []sheaf.Input) *source.Tree {
	tree, err := source.OpenTree(inputs, everything)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func walk(t testing.TB, tree *source.Tree, dir string) (all []sheaf.Entry) {
	err := tree.WalkBelow(context.Background(), dir, func(b []sheaf.Entry) error {
		all = append(all, b...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTreeIsInOrder(t *testing.T) {
	inputs := volumes(t, map[string][]string{"/in/a": {"x", "b/c"}, "/in/a-b": {"y"}, "/in/a.c/d": {"z"}, "/other": nil})
	tree := openTree(t, inputs)
	got := sourcetest.Paths(walk(t, tree, "/"))
	want := []string{"/in/", "/in/a/", "/in/a-b/", "/in/a-b/y", "/in/a.c/", "/in/a.c/d/", "/in/a.c/d/z", "/in/a/b/", "/in/a/b/c", "/in/a/x", "/other/"}
	if !slices.Equal(got, want) {
		t.Errorf("tree:\n got %q\nwant %q", got, want)
	}
	for _, e := range walk(t, tree, "/") {
		name := ""
		if e.Input >= 0 {
			name = inputs[e.Input].Mount
		}
		switch {
		case e.Path == "/in":
			if name != "" {
				t.Errorf("/in is of input %q alone", name)
			}
		case e.Path == "/in/a.c" && name == "/in/a.c/d":
		case e.Path != name && !strings.HasPrefix(e.Path, name+"/"):
			t.Errorf("%s is of input %q", e.Path, name)
		}
	}
	if got := sourcetest.Paths(walk(t, tree, "/in/a")); !slices.Equal(got, []string{"/in/a/b/", "/in/a/b/c", "/in/a/x"}) {
		t.Errorf("below a mount: %q", got)
	}
	if got := sourcetest.Paths(walk(t, tree, "/in/a/b")); !slices.Equal(got, []string{"/in/a/b/c"}) {
		t.Errorf("below a directory: %q", got)
	}
	if got := sourcetest.Paths(walk(t, tree, "/in/a.c")); !slices.Equal(got, []string{"/in/a.c/d/", "/in/a.c/d/z"}) {
		t.Errorf("below a directory above a mount: %q", got)
	}
	for _, dir := range []string{"/nowhere", "/in/a/nowhere"} {
		if err := tree.WalkBelow(t.Context(), dir, func([]sheaf.Entry) error { return nil }); sheaf.ClassOf(err) != sheaf.NotFound {
			t.Errorf("below %s: %v", dir, err)
		}
	}
	f, err := tree.Open(t.Context(), "/in/a/b/c", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "b/c" {
		t.Errorf("/in/a/b/c holds %q, %v", b, err)
	}
	if host, ok := tree.Local("/in/a/b/c"); !ok || filepath.Base(host) != "c" {
		t.Errorf("/in/a/b/c lies at %q", host)
	}
	if _, err := tree.Open(t.Context(), "/elsewhere/c", ""); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("outside all mounts: %v", err)
	}
}

func TestTreeNamesTheInput(t *testing.T) {
	_, err := source.OpenTree([]sheaf.Input{{Name: "images", Source: "/nowhere", Mount: "/in"}}, everything)
	if sheaf.ClassOf(err) != sheaf.NotFound || !strings.Contains(err.Error(), `input "images"`) {
		t.Errorf("%v", err)
	}
	for _, mounts := range [][]string{{"/a", "/a"}, {"/a", "/a/b"}, {"/a/b", "/a"}, {"/", "/a"}, {"a"}} {
		var inputs []sheaf.Input
		for _, m := range mounts {
			inputs = append(inputs, sheaf.Input{Name: m, Source: t.TempDir(), Mount: m})
		}
		tree, err := source.OpenTree(inputs, everything)
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("mounts %q: %v", mounts, err)
		}
		if err == nil {
			tree.Close()
		}
	}
}

// plan is a whole split, as a client does it.
func plan(ctx context.Context, inputs []sheaf.Input, rule sheaf.Split) ([]sheaf.Shard, shard.Stats, error) {
	tree, err := source.OpenTree(inputs, everything)
	if err != nil {
		return nil, shard.Stats{}, err
	}
	defer tree.Close()
	r, err := shard.Compile(&sheaf.Job{Inputs: inputs, Split: &rule})
	if err != nil {
		return nil, shard.Stats{}, err
	}
	var chunks [][]byte
	w := shard.NewWriter(func(c shard.Chunk) error { chunks = append(chunks, c.Data); return nil })
	s := shard.NewSplitter(r, w.Add)
	if err := tree.Walk(ctx, r.Descend, s.Add); err != nil {
		return nil, shard.Stats{}, err
	}
	stats, err := s.Finish()
	if err != nil {
		return nil, stats, err
	}
	if _, _, err := w.Close(); err != nil {
		return nil, stats, err
	}
	shards, err := shard.Decode(chunks, 0, stats.Partitions)
	return shards, stats, err
}

func TestSplitOfTheTwoVolumes(t *testing.T) {
	inputs := volumes(t, map[string][]string{
		"/input_images/volume1": {"image1.jpg", "image2.jpg", "readme", "sub/image3.jpg"},
		"/input_images/volume2": {"image1.jpg", "photo.jpg"},
	})
	shards, stats, err := plan(t.Context(), inputs, sheaf.Split{BasePath: "/input_images/", Glob: "/volume*/image*.jpg", BatchSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range shards {
		var paths []string
		for _, d := range shards[i].Data {
			paths = append(paths, d.Atoms[0].Path)
		}
		lines = append(lines, strings.Join(paths, " "))
	}
	want := []string{"/input_images/volume1/image1.jpg /input_images/volume1/image2.jpg", "/input_images/volume2/image1.jpg"}
	if !slices.Equal(lines, want) || stats.Atoms != 3 || stats.Bytes != 30 {
		t.Errorf("%q, %+v", lines, stats)
	}
}

// TestPrunedWalkGivesTheSameShards guards Descend: what it leaves out never matters.
func TestPrunedWalkGivesTheSameShards(t *testing.T) {
	inputs := volumes(t, map[string][]string{
		"/in/a":   {"a", "b.txt", "c/a", "c/b.txt", "c/d/e/a", "c-d/a", "f/g/a/a"},
		"/in/a-b": {"a", "c/a", "c/c/c/c"},
	})
	tree := openTree(t, inputs)
	rapid.Check(t, func(t *rapid.T) {
		seg := rapid.SampledFrom([]string{"*", "a", "a*", "**", "c", "*.txt", "{a,c}", "[a-c]"})
		rule := sheaf.Split{
			Glob:       "/" + strings.Join(rapid.SliceOfN(seg, 1, 4).Draw(t, "glob"), "/") + rapid.SampledFrom([]string{"", "/"}).Draw(t, "slash"),
			Match:      rapid.SampledFrom([]string{"", "any", "dirs"}).Draw(t, "match"),
			BasePath:   rapid.SampledFrom([]string{"", "/in", "/in/a", "/in/a/c", "/in/a-b/c"}).Draw(t, "base"),
			BatchSize:  1,
			AllowEmpty: true,
		}
		r, err := shard.Compile(&sheaf.Job{Inputs: inputs, Split: &rule})
		if err != nil {
			t.Fatal(err)
		}
		run := func(descend func(string) bool) (all []sheaf.Shard, listed int64) {
			s := shard.NewSplitter(r, func(v *shard.View) error { all = append(all, v.Shard()); return nil })
			if err := tree.Walk(context.Background(), descend, s.Add); err != nil {
				t.Fatal(err)
			}
			stats, err := s.Finish()
			if err != nil {
				t.Fatal(err)
			}
			return all, stats.Listed
		}
		whole, listed := run(nil)
		pruned, fewer := run(r.Descend)
		if fmt.Sprint(whole) != fmt.Sprint(pruned) || fewer > listed {
			t.Fatalf("%+v:\nwhole  %v\npruned %v", rule, whole, pruned)
		}
	})
}

// TestHostileTree is what a split meets on a disk that nobody tidied.
func TestHostileTree(t *testing.T) {
	inputs := volumes(t, map[string][]string{"/in": {"good.txt", "new\nline.txt", "quo\"te'.txt", "\xff\xfe.txt", "d/x.txt"}})
	dir := strings.TrimPrefix(inputs[0].Source, "file://")
	for name, target := range map[string]string{"escape": "/etc/passwd", "dangling": "nothing", "loop": "loop", "d/round": "..", "link.txt": "d/x.txt"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ glob, names string }{
		{"/esc*", `"/in/escape" is a link out of the source`},
		{"/dang*", `"/in/dangling" is a dangling link`},
		{"/loop", `"/in/loop" is a dangling link`},
		{"/pipe", `"/in/pipe" is a FIFO`},
		{"/**", `"/in/dangling" is a dangling link`},
		{"/", `goes with the matched directory "/in"`},
	} {
		_, _, err := plan(t.Context(), inputs, sheaf.Split{Glob: c.glob, BatchSize: 1})
		var e *sheaf.Error
		if !errors.As(err, &e) || e.Class != sheaf.Invalid || !strings.Contains(err.Error(), c.names) {
			t.Errorf("glob %q: %v", c.glob, err)
		}
	}
	shards, stats, err := plan(t.Context(), inputs, sheaf.Split{Glob: "/**/*.txt", BatchSize: 9})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range shards[0].Data {
		got = append(got, d.Atoms[0].Path)
	}
	want := []string{"/in/d/x.txt", "/in/good.txt", "/in/link.txt", "/in/new\nline.txt", "/in/quo\"te'.txt", "/in/\xff\xfe.txt"}
	if !slices.Equal(got, want) || shards[0].Data[2].Atoms[0].Identity != shards[0].Data[0].Atoms[0].Identity {
		t.Errorf("%q, %+v", got, stats)
	}
	shards, stats, err = plan(t.Context(), inputs, sheaf.Split{Glob: "/*/", BatchSize: 9})
	if err != nil || len(shards) != 1 || len(stats.Warnings) != 1 || !strings.Contains(stats.Warnings[0], `"/in/d/round"`) {
		t.Errorf("%v, %+v: %v", shards, stats, err)
	}
}

// TestAtomsIdentityHolds is how a stager sees that a directory is still what was split.
func TestAtomsIdentityHolds(t *testing.T) {
	inputs := volumes(t, map[string][]string{"/in": {"d/a", "d/e/b", "f"}})
	shards, _, err := plan(t.Context(), inputs, sheaf.Split{Glob: "/d", BatchSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	atom := shards[0].Data[0].Atoms[0]
	tree := openTree(t, inputs)
	identity := func() string {
		h := shard.NewTreeHash(atom.Path)
		for _, e := range walk(t, tree, atom.Path) {
			h.Add(&e)
		}
		id, _ := h.Identity()
		return id
	}
	if id := identity(); id != atom.Identity {
		t.Fatalf("split says %s, the walk %s", atom.Identity, id)
	}
	host, _ := tree.Local("/in/d/e/b")
	if err := os.WriteFile(host, []byte("longer than it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	if id := identity(); id == atom.Identity {
		t.Fatal("a changed file leaves the identity as it was")
	}
}
