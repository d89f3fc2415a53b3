package shard

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

type written struct {
	chunks [][]byte
	index  []Extent
}

// write encodes views and checks what every manifest must be.
func write(t interface {
	Helper()
	Fatalf(string, ...any)
}, views []View) written {
	t.Helper()
	var out written
	root := sha256.New()
	begun := 0
	w := NewWriter(func(c Chunk) error {
		if c.Seq != len(out.chunks) || c.First != begun || len(c.Data) > MaxChunk || len(c.Data) == 0 {
			t.Fatalf("chunk %d: seq %d, first %d, %d bytes; %d partitions begun", len(out.chunks), c.Seq, c.First, len(c.Data), begun)
		}
		begun += c.Count
		out.chunks, out.index = append(out.chunks, c.Data), append(out.index, Extent{c.First, c.Count})
		sum := sha256.Sum256(c.Data)
		root.Write(sum[:])
		return nil
	})
	for i := range views {
		if err := w.Add(&views[i]); err != nil {
			t.Fatalf("shard %d: %v", i, err)
		}
	}
	n, sum, err := w.Close()
	if err != nil || n != len(out.chunks) || !bytes.Equal(sum[:], root.Sum(nil)) || begun != len(views) {
		t.Fatalf("%d chunks, %d partitions of %d, root %x: %v", n, begun, len(views), sum, err)
	}
	return out
}

func (w written) read(first, count int) ([]sheaf.Shard, error) {
	from, to := Select(w.index, first, count)
	return Decode(w.chunks[from:to], first, count)
}

func wanted(views []View) []sheaf.Shard {
	out := make([]sheaf.Shard, len(views))
	for i := range views {
		out[i] = views[i].Shard()
	}
	return out
}

func drawViews(t *rapid.T) []View {
	views := make([]View, rapid.IntRange(1, 20).Draw(t, "shards"))
	long := rapid.IntRange(0, 3).Draw(t, "long") == 0
	tuples := rapid.Bool().Draw(t, "tuples")
	name := rapid.SampledFrom([]string{"/in/a", "/in/ab", "/in/b/c.txt", "/in/b/d.txt", "/", "\xff\xfe", "/in/\n", "aaaa", "aaa"})
	for i := range views {
		v := &views[i]
		v.Index, v.Key = i, rapid.SampledFrom([]string{"", "k", "key", "\xff"}).Draw(t, "key")
		for range rapid.IntRange(1, 6).Draw(t, "atoms") {
			a := Atom{Path: name.Draw(t, "path"), Input: rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "input"), Size: rapid.Int64Min(0).Draw(t, "size") >> 8}
			if long {
				a.Path += noise(rapid.IntRange(0, maxPath-100).Draw(t, "length"), len(v.Atoms)+7*i)
			}
			switch rapid.IntRange(0, 3).Draw(t, "identity") {
			case 0:
				a.Tag = "etag:" + strings.Repeat("x", rapid.IntRange(0, 40).Draw(t, "tag"))
			case 1:
				a.Dir, a.Tag = true, unpackTree(bytes.Repeat([]byte{byte(i)}, 32))
			case 2:
				a.Tag = treePrefix + "no digest"
			default:
				a.MTime = rapid.Int64().Draw(t, "mtime")
			}
			v.Atoms = append(v.Atoms, a)
			v.Bytes += a.Size
			if tuples && len(v.Atoms)%2 == 0 {
				v.Ends = append(v.Ends, int32(len(v.Atoms)))
			}
		}
		if n := int32(len(v.Atoms)); v.Ends != nil && v.Ends[len(v.Ends)-1] != n {
			v.Ends = append(v.Ends, n)
		}
	}
	return views
}

// noise is text that does not compress, the same for the same seed.
func noise(n, seed int) string {
	b := make([]byte, 0, n+sha256.Size)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, seed, i))
		b = append(b, sum[:]...)
	}
	return string(b[:n])
}

func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		views := drawViews(t)
		want, w := wanted(views), write(t, views)
		first := rapid.IntRange(0, len(views)-1).Draw(t, "first")
		count := rapid.IntRange(1, len(views)-first).Draw(t, "count")
		got, err := w.read(first, count)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want[first:first+count]) {
			t.Fatalf("partitions %d+%d:\n got %v\nwant %v", first, count, got, want[first:first+count])
		}
		if _, err := w.read(first, len(views)-first+1); !errors.Is(err, errDamaged) {
			t.Fatalf("one partition too many: %v", err)
		}
	})
}

// TestLargeShards guards the seams: shards of many chunks, between small ones.
func TestLargeShards(t *testing.T) {
	var views []View
	for i, atoms := range []int{1, 20_000, 1, 1, 9_000, 9_000, 2} {
		v := View{Index: i, Key: fmt.Sprint("group", i)}
		for n := range atoms {
			v.Atoms = append(v.Atoms, Atom{Path: fmt.Sprintf("/in/%d/%s", i, noise(12, n)), Input: "in", Size: int64(n), MTime: int64(n * n)})
			v.Bytes += int64(n)
		}
		views = append(views, v)
	}
	want, w := wanted(views), write(t, views)
	if len(w.chunks) < 10 {
		t.Fatalf("only %d chunks: nothing was cut", len(w.chunks))
	}
	for first := range views {
		for count := 1; first+count <= len(views); count++ {
			got, err := w.read(first, count)
			if err != nil {
				t.Fatalf("partitions %d+%d: %v", first, count, err)
			}
			if !reflect.DeepEqual(got, want[first:first+count]) {
				t.Fatalf("partitions %d+%d differ", first, count)
			}
		}
	}
	from, to := Select(w.index, 1, 1)
	if _, err := Decode(w.chunks[from:to-1], 1, 1); !errors.Is(err, errDamaged) {
		t.Fatalf("the last chunk of a shard is missing: %v", err)
	}
	if _, err := Decode(append(w.chunks[from:to-2:to-2], w.chunks[to-1]), 1, 1); !errors.Is(err, errDamaged) {
		t.Fatalf("a chunk in the middle of a shard is missing: %v", err)
	}
}

func TestManifestIsSmall(t *testing.T) {
	entries := regularTree(20, 1000)
	var views []View
	for i := range entries {
		if e := &entries[i]; e.Kind == sheaf.EntryFile {
			views = append(views, View{Index: len(views), Atoms: []Atom{{Path: e.Path, Input: "in", Size: e.Size, MTime: e.MTime}}})
		}
	}
	size := 0
	for _, c := range write(t, views).chunks {
		size += len(c)
	}
	if per := float64(size) / float64(len(views)); per > 8 {
		t.Fatalf("%.1f bytes a file", per)
	}
}

func TestTooLongNames(t *testing.T) {
	for _, v := range []View{
		{Atoms: []Atom{{Path: "/" + strings.Repeat("a", maxPath)}}},
		{Atoms: []Atom{{Path: "/a", Tag: strings.Repeat("a", maxTag+1)}}},
		{Key: strings.Repeat("a", maxPath+1), Atoms: []Atom{{Path: "/a"}}},
	} {
		if err := NewWriter(func(Chunk) error { return nil }).Add(&v); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%v", err)
		}
	}
}

func TestExpansionIsBounded(t *testing.T) {
	var views []View
	for i := range 2000 {
		views = append(views, View{Index: i, Atoms: []Atom{{Path: "/" + strings.Repeat("a", maxPath-10) + fmt.Sprint(i), Input: "in"}}})
	}
	w := write(t, views)
	if len(w.chunks) < 2 {
		t.Fatal("48 MB of paths in one chunk")
	}
	if got, err := w.read(1234, 1); err != nil || got[0].Data[0].Atoms[0].Path != views[1234].Atoms[0].Path {
		t.Fatal(err)
	}
}

func TestFlippedBytesAreFound(t *testing.T) {
	chunk := write(t, []View{{Atoms: []Atom{{Path: "/in/" + strings.Repeat("a", 300), Input: "in", Size: 5, MTime: math.MaxInt64}}}}).chunks[0]
	for i := range chunk {
		bad := bytes.Clone(chunk)
		bad[i] ^= 0x10
		if got, err := Decode([][]byte{bad}, 0, 1); err == nil && !reflect.DeepEqual(got, mustDecode(t, chunk)) {
			t.Errorf("byte %d of %d flipped: %+v", i, len(chunk), got)
		}
	}
}

func mustDecode(t *testing.T, chunk []byte) []sheaf.Shard {
	t.Helper()
	s, err := Decode([][]byte{chunk}, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzDecode(f *testing.F) {
	views := []View{
		{Key: "a", Atoms: []Atom{{Path: "/in/a1", Input: "in", Size: 1, MTime: 5}, {Path: "/in/a2", Input: "in", Tag: "etag:x"}}},
		{Index: 1, Key: "ab", Ends: []int32{2}, Atoms: []Atom{{Path: "/in/d", Dir: true, Tag: unpackTree(make([]byte, 32))}, {Path: "/x/\xff", Input: "two"}}},
	}
	for _, c := range write(f, views).chunks {
		raw, err := decoder().DecodeAll(c[1:], nil)
		if c[0] == packedRaw {
			raw, err = c[1:], nil
		}
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c, 0, 2)
		f.Add(append([]byte{packedRaw}, raw...), 1, 1)
	}
	f.Fuzz(func(t *testing.T, data []byte, first, count int) {
		if first < 0 || first > 1<<24 || count < 0 || count > 1<<24 {
			return
		}
		var views []View
		err := Scan([][]byte{data}, first, count, func(v *View) error {
			c := *v
			c.Atoms, c.Index = append([]Atom(nil), v.Atoms...), len(views)
			c.Ends = append([]int32(nil), v.Ends...)
			views = append(views, c)
			return nil
		})
		if err != nil || len(views) == 0 {
			return
		}
		got, err := write(t, views).read(0, len(views))
		if err != nil || !reflect.DeepEqual(got, wanted(views)) {
			t.Fatalf("%v: what was read does not survive writing:\n%v\n%v", err, got, wanted(views))
		}
	})
}

// TestFingerprints: what partitions read decides their fingerprints, wherever they stand, and they come back
// from the chunks alone.
func TestFingerprints(t *testing.T) {
	job := &sheaf.Job{Split: &sheaf.Split{}, Inputs: []sheaf.Input{{Name: "one", Source: "file:///a"}, {Name: "two", Source: "file:///b"}}}
	rapid.Check(t, func(t *rapid.T) {
		views := drawViews(t)
		prints := NewFingerprinter(job)
		var chunks [][]byte
		var index []Extent
		w := NewWriter(func(c Chunk) error {
			chunks, index = append(chunks, c.Data), append(index, Extent{c.First, c.Count})
			return nil
		})
		w.Prints = prints
		for i := range views {
			if err := w.Add(&views[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := Decode(chunks, 0, len(views))
		if err != nil || !reflect.DeepEqual(got, wanted(views)) {
			t.Fatalf("with fingerprints the shards are %v (%v), not %v", got, err, wanted(views))
		}
		var all []Fingerprint
		for i, c := range chunks {
			first, some, err := Fingerprints(c)
			if err != nil || len(some) != index[i].Count || len(some) > 0 && first != len(all) {
				t.Fatalf("chunk %d: %d fingerprints from %d on, %v", i, len(some), first, err)
			}
			all = append(all, some...)
		}
		if err := Scan(chunks, 0, len(views), func(v *View) error {
			if v.Print != all[v.Index] || v.Print != prints.Of(v) {
				return fmt.Errorf("partition %d reads as %x, written was %x, made again %x", v.Index, v.Print, all[v.Index], prints.Of(v))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range views {
			for j := range views {
				a, b := views[i], views[j]
				a.Index, b.Index, a.Bytes, b.Bytes = 0, 0, 0, 0
				if (all[i] == all[j]) != reflect.DeepEqual(a, b) {
					t.Fatalf("fingerprints %x and %x of %+v and %+v", all[i], all[j], a, b)
				}
			}
		}
	})
}

// TestFingerprintsNeverMove: runs to come are held against runs before.
func TestFingerprintsNeverMove(t *testing.T) {
	v := &View{Index: 3, Atoms: []Atom{{Path: "/in/a", Input: "in", Size: 5, MTime: 7}, {Path: "/in/b", Input: "in", Size: 5, Tag: "sha256:00"}}}
	job := &sheaf.Job{Split: &sheaf.Split{}, Inputs: []sheaf.Input{{Name: "in", Source: "file:///a"}}}
	first := NewFingerprinter(job).Of(v)
	if got := fmt.Sprintf("%x", first); got != "b9451701755b9b0ce754d6b42100d477" {
		t.Errorf("the fingerprint is %s", got)
	}
	for name, change := range map[string]func(v *View, j *sheaf.Job){
		"size":         func(v *View, _ *sheaf.Job) { v.Atoms[0].Size++ },
		"time":         func(v *View, _ *sheaf.Job) { v.Atoms[0].MTime++ },
		"identity":     func(v *View, _ *sheaf.Job) { v.Atoms[1].Tag = "sha256:01" },
		"path":         func(v *View, _ *sheaf.Job) { v.Atoms[1].Path = "/in/c" },
		"order":        func(v *View, _ *sheaf.Job) { slices.Reverse(v.Atoms) },
		"key":          func(v *View, _ *sheaf.Job) { v.Key = "k" },
		"data":         func(v *View, _ *sheaf.Job) { v.Ends = []int32{2} },
		"source":       func(_ *View, j *sheaf.Job) { j.Inputs[0].Source = "file:///b" },
		"is told":      func(_ *View, j *sheaf.Job) { j.Task.Env = map[string]string{"I": "${partition.index}"} },
		"another atom": func(v *View, _ *sheaf.Job) { v.Atoms = append(v.Atoms, Atom{Path: "/in/d", Input: "in"}) },
	} {
		w := *v
		w.Atoms = slices.Clone(v.Atoms)
		j := *job
		j.Inputs = slices.Clone(job.Inputs)
		change(&w, &j)
		if NewFingerprinter(&j).Of(&w) == first {
			t.Errorf("another %s, the same fingerprint", name)
		}
	}
	v.Index = 4
	if NewFingerprinter(job).Of(v) != first {
		t.Error("the index counts although the task is not told it")
	}
	told := &sheaf.Job{Split: job.Split, Inputs: job.Inputs, Task: sheaf.Task{Env: map[string]string{"I": "${partition.index}"}}}
	at4 := NewFingerprinter(told).Of(v)
	v.Index = 3
	if NewFingerprinter(told).Of(v) == at4 {
		t.Error("the index does not count although the task is told it")
	}
}

// TestFingerprintsOfCounts: without a split a partition is its index, of so many.
func TestFingerprintsOfCounts(t *testing.T) {
	v := &View{Index: 3, Atoms: []Atom{{Path: "/in", Input: "in", Dir: true, Size: 5, Tag: "sha256:00"}}}
	job := &sheaf.Job{Count: 9, Inputs: []sheaf.Input{{Name: "in", Source: "file:///a"}}}
	first := NewFingerprinter(job).Of(v)
	if got := fmt.Sprintf("%x", first); got != "55a25b998e1f114f92fe4347c33ffe7d" {
		t.Errorf("the fingerprint is %s", got)
	}
	more := *job
	more.Count = 10
	if NewFingerprinter(&more).Of(v) == first {
		t.Error("another count, the same fingerprint")
	}
	v.Index = 4
	if NewFingerprinter(job).Of(v) == first {
		t.Error("another index, the same fingerprint")
	}
}

// TestFingerprintsOfResults: what two runs of a job have made is the same where it has the same digests.
func TestFingerprintsOfResults(t *testing.T) {
	of := func(source, tag string) Fingerprint {
		job := &sheaf.Job{Split: &sheaf.Split{}, Inputs: []sheaf.Input{{Name: "in", Source: source}}}
		return NewFingerprinter(job).Of(&View{Atoms: []Atom{{Path: "/in/d", Input: "in", Dir: true, Size: 5, Tag: tag}}})
	}
	first := of("job://run-1/out", "sha256:00")
	if of("job://run-2/out", "sha256:00") != first {
		t.Error("the same files of another run have another fingerprint")
	}
	for _, other := range []Fingerprint{of("job://run-1/out", "sha256:01"), of("job://run-1/other", "sha256:00"), of("file:///out", "sha256:00")} {
		if other == first {
			t.Error("other files have the same fingerprint")
		}
	}
}
