package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestSize(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Run("r")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := r.OutputDirs(Key{Partition: 3, Attempt: 1}, []string{"out"})
	if err != nil {
		t.Fatal(err)
	}
	without, files, err := s.Size(t.Context(), "r")
	if err != nil || files == 0 {
		t.Fatalf("%d bytes, %d files, %v", without, files, err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0].Host, "x"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if with, more, err := s.Size(t.Context(), "r"); err != nil || more != files+1 || with < without+1<<20 {
		t.Errorf("with a file of 1 MiB %d bytes and %d files, %v; without %d and %d", with, more, err, without, files)
	}
	if bytes, files, err := s.Size(t.Context(), "nothing"); bytes != 0 || files != 0 || err != nil {
		t.Errorf("of nothing: %d bytes, %d files, %v", bytes, files, err)
	}
}
