package merge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

func partitions(list []Partition) iter.Seq2[Partition, error] {
	return func(yield func(Partition, error) bool) {
		for _, p := range list {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func merged(t interface{ Fatalf(string, ...any) }, outs []sheaf.Output, list []Partition, memory int64) ([]sheaf.File, Summary, error) {
	var b bytes.Buffer
	sum, err := Merge(context.Background(), outs, partitions(list), &b, Options{Memory: memory})
	if err != nil {
		return nil, sum, err
	}
	if sum.SHA256 != sha256.Sum256(b.Bytes()) {
		t.Fatalf("the digest is not that of what was written")
	}
	var files []sheaf.File
	for line := range bytes.Lines(b.Bytes()) {
		var f sheaf.File
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		files = append(files, f)
	}
	if !slices.IsSortedFunc(files, output.Compare) {
		t.Fatalf("not sorted: %s", b.String())
	}
	if sum.Files != int64(len(files)) {
		t.Fatalf("%d files counted, %d written", sum.Files, len(files))
	}
	return files, sum, nil
}

func file(p int, path string) sheaf.File {
	return sheaf.File{Output: "o", Path: path, Size: int64(p + 1), SHA256: fmt.Sprintf("%d:%s", p, path), Mode: 0o644}
}

func made(index int, paths ...string) Partition {
	p := Partition{Index: index, Attempt: 7, Node: sheaf.NodeID(fmt.Sprint("n", index%2))}
	slices.Sort(paths)
	for _, path := range paths {
		f := file(index, path)
		if name, link, ok := strings.Cut(path, "->"); ok {
			f = sheaf.File{Output: "o", Path: name, Link: link, Mode: 0o777}
		}
		p.Files = append(p.Files, f)
	}
	return p
}

func show(files []sheaf.File) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%s", f.Path)
		if f.Link != "" {
			fmt.Fprintf(&b, "->%s", f.Link)
		}
		for _, p := range f.Parts {
			fmt.Fprintf(&b, " %d", p.Partition)
			if p.Path != "" {
				fmt.Fprintf(&b, ":%s", p.Path)
			}
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		merge, conflict string
		in              []Partition
		want            string // or what the error says
	}{
		{"union", "error", []Partition{made(0, "a", "d/x"), made(3, "b", "d/y")}, "a 0; b 3; d/x 0; d/y 3"},
		{"union", "error", []Partition{made(0, "a"), made(2, "b"), made(5, "a")}, `! "a" was written by both partitions 0 and 5`},
		{"union", "error", []Partition{made(0, "a", "a!"), made(1, "a-/x"), made(2, "a/b/c")}, `! "a" is a file in one and a directory in the other of partitions 0 and 2`},
		{"union", "error", []Partition{made(1, "a/b/c"), made(4, "a")}, `partitions 1 and 4`},
		{"union", "error", []Partition{made(0, "l->x"), made(1, "l->x")}, `! "l" was written by both partitions 0 and 1`},
		{"union", "rename", []Partition{made(0, "a"), made(2, "a", "b"), made(3, "a")}, "a 0; a.p2 2:a; a.p3 3:a; b 2"},
		{"union", "rename", []Partition{made(0, "a/b"), made(1, "a"), made(2, "a/c")}, "a.p1 1:a; a/b 0; a/c 2"},
		{"union", "rename", []Partition{made(0, "a"), made(1, "a/b"), made(2, "a")}, "a.p0 0:a; a.p2 2:a; a/b 1"},
		{"union", "rename", []Partition{made(0, "a", "a.p1"), made(1, "a")}, `! "a.p1" was written by both partitions 0 and 1`},
		{"union", "rename", []Partition{made(0, "a"), made(1, "a", "a.p1")}, `! "a.p1" is what a file of partition 1 would be renamed to`},
		{"union", "rename", []Partition{made(0, "a"), made(1, "a"), made(2, "a.p1/x")}, `is a file in one and a directory`},
		{"union", "last", []Partition{made(0, "a", "b"), made(2, "a"), made(3, "c")}, "a 2; b 0; c 3"},
		{"union", "last", []Partition{made(0, "a"), made(1, "a/b"), made(2, "a/b/c")}, "a/b/c 2"},
		{"union", "last", []Partition{made(0, "a/b", "a/c"), made(1, "a"), made(2, "a/d")}, "a/d 2"},
		{"union", "last", []Partition{made(0, "a/b", "a/c", "z"), made(1, "a")}, "a 1; z 0"},
		{"concat", "error", []Partition{made(0, "a", "b"), made(1, "a"), made(9, "a", "c")}, "a 0 1 9; b 0; c 9"},
		{"concat", "rename", []Partition{made(0, "a"), made(1, "a/b")}, "partitions 0 and 1"},
		{"concat", "error", []Partition{made(0, "l->x", "x"), made(1, "l->x", "x")}, "l->x; x 0 1"},
		{"concat", "error", []Partition{made(0, "l->x"), made(1, "l->y")}, `! "l" is a link, and not the same one, in partitions 0 and 1`},
		{"none", "error", []Partition{made(0, "a"), made(9, "a"), made(10, "a/b", "c")}, "0/a 0:a; 10/a/b 10:a/b; 10/c 10:c; 9/a 9:a"},
	} {
		got, _, err := merged(t, []sheaf.Output{{Name: "o", Merge: c.merge, OnConflict: c.conflict}}, c.in, 0)
		text := show(got)
		if err != nil {
			text = "! " + strings.TrimPrefix(err.Error(), `merge output "o": `)
			if sheaf.ClassOf(err) != sheaf.Conflict {
				t.Errorf("%v is %s", err, sheaf.ClassOf(err))
			}
		}
		if text != c.want && (err == nil || !strings.Contains(text, c.want)) {
			t.Errorf("%s %s: got %s, want %s", c.merge, c.conflict, text, c.want)
		}
	}
}

func TestMergedFilesCarryTheirParts(t *testing.T) {
	got, sum, err := merged(t, []sheaf.Output{{Name: "o", Merge: "concat"}}, []Partition{made(0, "a", "b"), made(1, "a")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b := got[0], got[1]
	if a.SHA256 != "" || a.Size != 3 || a.Parts[1] != (sheaf.Part{Partition: 1, Attempt: 7, Node: "n1", Size: 2, SHA256: "1:a"}) {
		t.Errorf("a is %+v", a)
	}
	if b.SHA256 != "0:b" || len(b.Parts) != 1 || sum.Bytes != 4 {
		t.Errorf("b is %+v, %d bytes in all", b, sum.Bytes)
	}
}

func TestMergeRefuses(t *testing.T) {
	o := sheaf.Output{Name: "o", Merge: "union"}
	for name, c := range map[string]struct {
		out sheaf.Output
		in  Partition
	}{
		"unknown rule":     {sheaf.Output{Name: "o", Merge: "shuffle"}, Partition{}},
		"unknown conflict": {sheaf.Output{Name: "o", OnConflict: "flip"}, Partition{}},
		"unknown output":   {o, Partition{Files: []sheaf.File{{Output: "p", Path: "a"}}}},
		"path that leaves": {o, Partition{Files: []sheaf.File{{Output: "o", Path: "../a"}}}},
	} {
		if _, err := Merge(context.Background(), []sheaf.Output{c.out}, partitions([]Partition{c.in}), io.Discard, Options{}); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// model merges by trying everything against everything.
func model(merge, conflict string, in []Partition) (map[string][]string, bool) {
	type written struct {
		path, origin string
		partition    int
	}
	var all []written
	for _, p := range in {
		for _, f := range p.Files {
			path := f.Path
			if merge == "none" {
				path = fmt.Sprint(p.Index, "/", path)
			}
			all = append(all, written{path, f.Path, p.Index})
		}
	}
	under := func(dir, p string) bool { return strings.HasPrefix(p, dir+"/") }
	out := map[string][]string{}
	put := func(w written) { out[w.path] = append(out[w.path], fmt.Sprint(w.partition, ":", w.origin)) }
	for i, w := range all {
		keep := true
		for j, x := range all {
			if i == j {
				continue
			}
			same, crossing := w.path == x.path, under(w.path, x.path) || under(x.path, w.path)
			switch {
			case merge == "concat" && crossing, merge == "union" && conflict == "error" && (same || crossing):
				return nil, false
			case merge == "union" && conflict == "last" && (same || crossing) && x.partition > w.partition:
				keep = false
			}
		}
		if merge == "union" && conflict == "rename" {
			for _, x := range all {
				if x.path == w.origin && x.partition < w.partition || under(w.origin, x.path) {
					w.path = fmt.Sprint(w.origin, ".p", w.partition)
				}
			}
		}
		if keep {
			put(w)
		}
	}
	if merge == "union" {
		paths := slices.Collect(maps.Keys(out))
		for _, p := range paths {
			if len(out[p]) > 1 {
				return nil, false
			}
			for _, q := range paths {
				if under(p, q) {
					return nil, false
				}
			}
		}
	}
	return out, true
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		merge := rapid.SampledFrom([]string{"union", "union", "union", "concat", "none"}).Draw(t, "merge")
		conflict := rapid.SampledFrom([]string{"error", "rename", "last"}).Draw(t, "conflict")
		segment := rapid.SampledFrom([]string{"a", "b", "a.p1", "a!", "ab", "a\xff"})
		path := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(t, "segments"), "/")
		})
		var in []Partition
		for i := range rapid.IntRange(0, 4).Draw(t, "partitions") {
			var own []string
			for _, p := range rapid.SliceOfN(path, 0, 5).Draw(t, "paths") {
				if !slices.ContainsFunc(own, func(q string) bool {
					return p == q || strings.HasPrefix(p, q+"/") || strings.HasPrefix(q, p+"/")
				}) {
					own = append(own, p)
				}
			}
			in = append(in, made(i, own...))
		}
		want, ok := model(merge, conflict, in)
		for _, memory := range []int64{0, 2000, 1} {
			files, sum, err := merged(t, []sheaf.Output{{Name: "o", Merge: merge, OnConflict: conflict}}, in, memory)
			if (err == nil) != ok {
				t.Fatalf("memory %d: error %v, the model says %v", memory, err, ok)
			}
			if err != nil {
				continue
			}
			got := map[string][]string{}
			var size int64
			for _, f := range files {
				for _, p := range f.Parts {
					origin := p.Path
					if origin == "" {
						origin = f.Path
					}
					got[f.Path] = append(got[f.Path], fmt.Sprint(p.Partition, ":", origin))
					size += p.Size
				}
			}
			if size != sum.Bytes || !maps.EqualFunc(got, want, slices.Equal) {
				t.Fatalf("memory %d: got %v, want %v", memory, got, want)
			}
		}
	})
}

func FuzzSpilledItem(f *testing.F) {
	f.Add(uint32(1), uint32(2), int64(3), "p", "o", "l", "s")
	f.Fuzz(func(t *testing.T, out, part uint32, size int64, path, origin, link, sum string) {
		in := item{output: out, partition: part, attempt: part, node: out, origin: origin, file: sheaf.File{Path: path, Link: link, SHA256: sum, Size: size}}
		got := decodeItem(in.encode(nil))
		if got.file.Path != path || got.origin != origin || got.file.Link != link || got.file.SHA256 != sum || got.file.Size != size || got.partition != part || got.output != out {
			t.Fatalf("%+v came back as %+v", in, got)
		}
	})
}

func BenchmarkMerge(b *testing.B) {
	var list []Partition
	for i := range 100_000 {
		f := file(i, fmt.Sprintf("%02d/image%08d.jpg", i%100, i))
		f.SHA256 = strings.Repeat("0", 64)
		list = append(list, Partition{Index: i, Attempt: 1, Node: "node-1", Files: []sheaf.File{f}})
	}
	for name, memory := range map[string]int64{"memory": 0, "spilled": 4 << 20} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Merge(context.Background(), []sheaf.Output{{Name: "o", Merge: "union"}}, partitions(list), io.Discard, Options{Memory: memory}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}
