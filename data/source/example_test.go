package source_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// A split lists the tree, cuts it into shards and writes these down.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"a.txt", "b.txt", "c.txt", "d.jpg"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			panic(err)
		}
	}
	job := &sheaf.Job{
		Inputs: []sheaf.Input{{Name: "texts", Source: "file://" + dir, Mount: "/in"}},
		Split:  &sheaf.Split{Glob: "/*.txt", BatchSize: 2},
	}

	rule, err := shard.Compile(job)
	if err != nil {
		panic(err)
	}
	tree, err := source.OpenTree(job.Inputs, source.Config{Files: []source.Root{{Path: dir}}})
	if err != nil {
		panic(err)
	}
	defer tree.Close()
	var chunks [][]byte
	w := shard.NewWriter(func(c shard.Chunk) error { chunks = append(chunks, c.Data); return nil })
	s := shard.NewSplitter(rule, w.Add)
	if err := tree.Walk(context.Background(), rule.Descend, s.Add); err != nil {
		panic(err)
	}
	stats, err := s.Finish()
	if err != nil {
		panic(err)
	}
	if _, _, err := w.Close(); err != nil {
		panic(err)
	}
	shards, err := shard.Decode(chunks, 0, stats.Partitions)
	if err != nil {
		panic(err)
	}
	for i := range shards {
		fmt.Println(string(shard.AppendJSON(nil, &shards[i])))
	}
	// Output:
	// {"index":0,"key":"","bytes":10,"atoms":[{"path":"/in/a.txt","size":5,"dir":false,"input":"texts"},{"path":"/in/b.txt","size":5,"dir":false,"input":"texts"}]}
	// {"index":1,"key":"","bytes":5,"atoms":[{"path":"/in/c.txt","size":5,"dir":false,"input":"texts"}]}
}
