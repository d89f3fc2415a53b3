package conflict_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/merge"
	"github.com/sheaf-run/agent/server/conflict"
	"github.com/sheaf-run/agent/sheaf"
)

func files(list ...string) []sheaf.File {
	var all []sheaf.File
	for _, x := range list {
		out, path, _ := strings.Cut(x, ":")
		all = append(all, sheaf.File{Output: out, Path: path, SHA256: strings.Repeat("0", 64)})
	}
	slices.SortFunc(all, output.Compare)
	return all
}

func jobOf(outputs ...sheaf.Output) *sheaf.Job { return &sheaf.Job{Outputs: outputs} }

var (
	strict = sheaf.Output{Name: "u"}
	concat = sheaf.Output{Name: "c", Merge: sheaf.MergeConcat, OnConflict: sheaf.ConflictError}
	rename = sheaf.Output{Name: "r", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictRename}
	last   = sheaf.Output{Name: "l", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictLast}
	apart  = sheaf.Output{Name: "n", Merge: sheaf.MergeNone}
)

func TestBetween(t *testing.T) {
	all := jobOf(strict, concat, rename, last, apart)
	for _, c := range []struct {
		name string
		a, b []sheaf.File // of partitions 7 and 3
		want string
	}{
		{"nothing", nil, files("u:a"), ""},
		{"other paths", files("u:a", "u:b/c"), files("u:ab", "u:b/d"), ""},
		{"the same path", files("u:x", "u:z"), files("u:x", "u:y"), `output "u": "x" was written by both partitions 3 and 7`},
		{"the first of several", files("u:b", "u:a/1"), files("u:b", "u:a/1"), `output "u": "a/1" was written by both partitions 3 and 7`},
		{"a file and a directory", files("u:a/b/c"), files("u:a/b"), `output "u": "a/b" is a file in one and a directory in the other of partitions 3 and 7`},
		{"the other way round", files("u:a"), files("u:a/b/c"), `output "u": "a" is a file in one and a directory in the other of partitions 3 and 7`},
		{"a path of another output", files("u:x"), files("c:x"), ""},
		{"joined", files("c:x"), files("c:x"), ""},
		{"joined, and not a file in both", files("c:x"), files("c:x/y"), `output "c": "x" is a file in one and a directory in the other of partitions 3 and 7`},
		{"renamed, overlaid, kept apart", files("r:x", "l:x", "n:x"), files("r:x", "l:x/y", "n:x/y"), ""},
		{"a name that is no text", files("u:\xff"), files("u:\xff"), `output "u": "\xff" was written by both partitions 3 and 7`},
		{"a long name", files("u:" + strings.Repeat("n", 300)), files("u:" + strings.Repeat("n", 300)), `output "u": "` + strings.Repeat("n", 200) + `…" was written by both partitions 3 and 7`},
	} {
		got, ok := conflict.Between(all, 7, 3, c.a, c.b)
		if ok != (c.want != "") || ok && got.Text() != c.want {
			t.Errorf("%s: %v %s, not %s", c.name, ok, got.Text(), c.want)
		}
	}
}

// TestWatches: a job whose outputs cannot be in conflict is not looked at.
func TestWatches(t *testing.T) {
	for _, c := range []struct {
		job  *sheaf.Job
		want bool
	}{
		{jobOf(), false}, {jobOf(rename, last, apart), false}, {jobOf(rename, strict), true}, {jobOf(concat), true},
	} {
		if got := conflict.Watches(c.job); got != c.want {
			t.Errorf("%v: %v", c.job.Outputs, got)
		}
	}
}

// TestAgreesWithTheMerge: what the index and the comparison find is what the merge of the same outputs fails
// of, and they find something whenever it does.
func TestAgreesWithTheMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := jobOf(strict, concat, rename, last, apart)
		name := rapid.SampledFrom([]string{"a", "b", "c", "a-", "ä", "\xfe"})
		var parts []merge.Partition
		for p := range rapid.IntRange(1, 6).Draw(t, "partitions") {
			var list []string
			for range rapid.IntRange(0, 3).Draw(t, "files") {
				path := strings.Join(rapid.SliceOfN(name, 1, 3).Draw(t, "path"), "/")
				list = append(list, rapid.SampledFrom([]string{"u", "u", "u", "c", "r", "l", "n"}).Draw(t, "output")+":"+path)
			}
			parts = append(parts, merge.Partition{Index: p, Attempt: 1, Files: sound(files(list...))})
		}
		room := &conflict.Room{Left: 1000}
		x := conflict.New(job, room)
		found := map[string]bool{}
		for _, i := range rapid.Permutation(indexes(len(parts))).Draw(t, "order") {
			for _, before := range x.Add(i, parts[i].Files) {
				c, ok := conflict.Between(job, i, before, parts[i].Files, parts[before].Files)
				if !ok {
					t.Fatalf("partitions %d and %d have nothing in conflict", i, before)
				}
				found[c.Text()] = true
			}
		}
		// The merge of the outputs that are watched fails where something was found, and of each pair that was named.
		_, err := merge.Merge(t.Context(), job.Outputs, each(parts), &bytes.Buffer{}, merge.Options{})
		if err != nil && sheaf.ClassOf(err) != sheaf.Conflict {
			t.Fatal(err)
		}
		renamed := err != nil && strings.Contains(err.Error(), `output "r"`) // names that meet once they are renamed: the merge's alone
		if (err != nil) != (len(found) > 0) && !(renamed && len(found) == 0) {
			t.Fatalf("the merge says %v, and found was %v", err, found)
		}
		for text := range found {
			var a, b int
			if _, err := fmt.Sscanf(text[strings.LastIndex(text, "partitions "):], "partitions %d and %d", &a, &b); err != nil {
				t.Fatal(err)
			}
			_, err := merge.Merge(t.Context(), []sheaf.Output{strict, concat, last, apart, {Name: "r", Merge: sheaf.MergeNone}}, each([]merge.Partition{parts[a], parts[b]}), &bytes.Buffer{}, merge.Options{})
			if sheaf.ClassOf(err) != sheaf.Conflict {
				t.Fatalf("%s: the merge of these two says %v", text, err)
			}
		}
		x.Close()
		if room.Left != 1000 {
			t.Fatalf("%d of 1000 are left", room.Left)
		}
	})
}

// TestAddsInItsRoom: beyond it paths are not known, and what is known is still compared with what comes.
func TestAddsInItsRoom(t *testing.T) {
	room := &conflict.Room{Left: 2}
	x, y := conflict.New(jobOf(strict), room), conflict.New(jobOf(strict), room)
	if got := x.Add(0, files("u:a", "u:b")); got != nil || x.Full() {
		t.Fatal(got, x.Full())
	}
	if got := x.Add(1, files("u:a", "u:c")); !slices.Equal(got, []int{0}) || !x.Full() {
		t.Fatal(got, x.Full())
	}
	if got := x.Add(2, files("u:c")); got != nil {
		t.Fatal(got)
	}
	if got := y.Add(0, files("u:z")); got != nil || !y.Full() {
		t.Fatal("two share a room, and the second had some left", got)
	}
	x.Close()
	if got := y.Add(1, files("u:z")); got != nil || room.Left != 1 {
		t.Fatal(got, room.Left)
	}
}

// TestTheSameAgainIsNoConflict: an output that is made again meets only others.
func TestTheSameAgainIsNoConflict(t *testing.T) {
	x := conflict.New(jobOf(strict), &conflict.Room{Left: 10})
	x.Add(4, files("u:a/b"))
	if got := x.Add(4, files("u:a/b", "u:a/c")); got != nil {
		t.Fatal(got)
	}
	if got := x.Add(5, files("u:a/b", "u:a/c", "u:a")); !slices.Equal(got, []int{4}) {
		t.Fatal(got)
	}
}

func indexes(n int) []int {
	var all []int
	for i := range n {
		all = append(all, i)
	}
	return all
}

func each(parts []merge.Partition) func(func(merge.Partition, error) bool) {
	return func(yield func(merge.Partition, error) bool) {
		for _, p := range slices.SortedFunc(slices.Values(parts), func(a, b merge.Partition) int { return a.Index - b.Index }) {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// sound leaves out what one directory cannot hold: a path twice, and a file with something below it.
func sound(list []sheaf.File) []sheaf.File {
	list = slices.CompactFunc(list, func(a, b sheaf.File) bool { return output.Compare(a, b) == 0 })
	return slices.DeleteFunc(slices.Clone(list), func(f sheaf.File) bool {
		return slices.ContainsFunc(list, func(g sheaf.File) bool { return g.Output == f.Output && strings.HasPrefix(g.Path, f.Path+"/") })
	})
}
