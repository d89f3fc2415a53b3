package source_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/sourcetest"
	"github.com/sheaf-run/agent/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestFileSource(t *testing.T) {
	var dir string
	put := func(t *testing.T, path, content string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sourcetest.Run(t, sourcetest.Harness{
		New: func(t *testing.T, files map[string]string) source.Source {
			dir = t.TempDir()
			for path, content := range files {
				put(t, path, content)
			}
			s, err := source.Open(dir, source.Config{Files: []source.Root{{Path: dir}}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		},
		Replace: func(t *testing.T, path, content string) {
			put(t, path, content)
			// The clock of a file system may be too coarse to tell two writes apart.
			later := time.Now().Add(time.Second)
			if err := os.Chtimes(filepath.Join(dir, path), later, later); err != nil {
				t.Fatal(err)
			}
		},
		AnyBytes: true,
	})
}
