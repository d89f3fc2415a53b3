package shard

import (
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// regularTree is a listing as a program leaves it: numbered names, sizes that
// vary, written one after the other.
func regularTree(dirs, perDir int) []sheaf.Entry {
	all := []sheaf.Entry{{Path: "/in", Kind: sheaf.EntryDir}}
	mtime, size := int64(1_780_000_000_000_000_000), int64(1)
	for d := range dirs {
		all = append(all, sheaf.Entry{Path: fmt.Sprintf("/in/day%04d", d), Kind: sheaf.EntryDir})
		for f := range perDir {
			mtime += 17_000 + size%1000
			size = size*6364136223846793005 + 1442695040888963407
			all = append(all, sheaf.Entry{
				Path: fmt.Sprintf("/in/day%04d/image%06d.jpg", d, f), Kind: sheaf.EntryFile,
				Size: 4096 + (size>>40)&0xfff, MTime: mtime,
			})
		}
	}
	return all
}

func benchSplit(b *testing.B, split sheaf.Split) {
	entries := regularTree(1000, 1000)
	rule, err := Compile(&sheaf.Job{Inputs: []sheaf.Input{{Name: "in", Mount: "/in"}}, Split: &split})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s := NewSplitter(rule, func(*View) error { return nil })
		for from := 0; from < len(entries); from += 1024 {
			if err := s.Add(entries[from:min(len(entries), from+1024)]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.Finish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(entries))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mentries/s")
}

func BenchmarkSplit1M(b *testing.B) {
	b.Run("each", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/**/*.jpg", BatchSize: 1}) })
	b.Run("question", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/**/image??????.jpg", BatchSize: 1}) })
	b.Run("batch", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/day*/image*.{jpg,png}", BatchSize: 1000}) })
	b.Run("directories", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/*", BatchSize: 1}) })
	b.Run("partitions", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/**", Partitions: 5000}) })
	b.Run("group", func(b *testing.B) { benchSplit(b, sheaf.Split{Glob: "/**", GroupBy: "^/day([0-9]+)/"}) })
}

func BenchmarkWrite1M(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) { benchWrite(b, batch) })
	}
}

func benchWrite(b *testing.B, batch int) {
	entries := regularTree(1000, 1000)
	var bytes, chunks, files int
	b.ReportAllocs()
	for b.Loop() {
		bytes, files = 0, 0
		w := NewWriter(func(c Chunk) error {
			bytes += len(c.Data)
			return nil
		})
		var v View
		for i := range entries {
			if e := &entries[i]; e.Kind == sheaf.EntryFile {
				v.Atoms = append(v.Atoms, Atom{Path: e.Path, Input: "in", Size: e.Size, MTime: e.MTime})
				files++
			}
			if len(v.Atoms) == batch {
				if err := w.Add(&v); err != nil {
					b.Fatal(err)
				}
				v.Atoms = v.Atoms[:0]
				v.Index++
			}
		}
		var err error
		if chunks, _, err = w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytes)/float64(files), "B/file")
	b.ReportMetric(float64(chunks), "chunks")
}

func BenchmarkDecodeOne(b *testing.B) {
	entries := regularTree(10, 1000)
	var chunks [][]byte
	var index []Extent
	w := NewWriter(func(c Chunk) error {
		chunks, index = append(chunks, c.Data), append(index, Extent{c.First, c.Count})
		return nil
	})
	n := 0
	for i := range entries {
		if e := &entries[i]; e.Kind == sheaf.EntryFile {
			if err := w.Add(&View{Index: n, Atoms: []Atom{{Path: e.Path, Input: "in", Size: e.Size, MTime: e.MTime}}}); err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	if _, _, err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		from, to := Select(index, n/2, 1)
		if _, err := Decode(chunks[from:to], n/2, 1); err != nil {
			b.Fatal(err)
		}
	}
}
