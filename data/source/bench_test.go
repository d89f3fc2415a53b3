package source_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// benchTree makes a tree of files and gives its path. SHEAF_BENCH_FILES says
// how many; the published figure is of a million.
func benchTree(b *testing.B) (dir string, files int) {
	files = 100_000
	if s := os.Getenv("SHEAF_BENCH_FILES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatal(err)
		}
		files = n
	}
	dir = b.TempDir()
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("day%04d", i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("image%06d.jpg", i)), []byte("data")[:i%5%4], 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir, files
}

// BenchmarkTree measures a walk, and a whole split down to its chunks, beside
// the program that people would use: find with sizes and times.
func BenchmarkTree(b *testing.B) {
	dir, files := benchTree(b)
	find := func(b *testing.B) {
		for b.Loop() {
			cmd := exec.Command("find", dir, "-printf", "%s %T@ %p\n")
			cmd.Stdout = io.Discard
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
	find(b) // warms the caches
	cfg := source.Config{Files: []source.Root{{Path: "/"}}}
	inputs := []sheaf.Input{{Name: "in", Source: dir, Mount: "/in"}}
	rate := func(b *testing.B) {
		b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mfiles/s")
	}
	b.Run("find", func(b *testing.B) { find(b); rate(b) })
	b.Run("walk", func(b *testing.B) {
		tree, err := source.OpenTree(inputs, cfg)
		if err != nil {
			b.Fatal(err)
		}
		defer tree.Close()
		for b.Loop() {
			n := 0
			if err := tree.Walk(b.Context(), nil, func(e []sheaf.Entry) error { n += len(e); return nil }); err != nil || n < files {
				b.Fatal(n, err)
			}
		}
		rate(b)
	})
	b.Run("split", func(b *testing.B) {
		tree, err := source.OpenTree(inputs, cfg)
		if err != nil {
			b.Fatal(err)
		}
		defer tree.Close()
		bytes := 0
		for b.Loop() {
			bytes = 0
			rule, err := shard.Compile(&sheaf.Job{Inputs: inputs, Split: &sheaf.Split{Glob: "/**/*.jpg", BatchSize: 1}})
			if err != nil {
				b.Fatal(err)
			}
			w := shard.NewWriter(func(c shard.Chunk) error { bytes += len(c.Data); return nil })
			s := shard.NewSplitter(rule, w.Add)
			if err := tree.Walk(b.Context(), rule.Descend, s.Add); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Finish(); err != nil {
				b.Fatal(err)
			}
			if _, _, err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
		rate(b)
		b.ReportMetric(float64(bytes)/float64(files), "B/file")
	})
}
