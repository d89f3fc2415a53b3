package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/sheaf"
)

// packing is a place whose results go into CAR files, and the directory that it is.
func packing(t *testing.T) (publish.Place, string) {
	t.Helper()
	dir := t.TempDir()
	p, err := publish.Config{Dirs: []string{dir}}.Open("car://" + dir)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p, dir
}

// TestRootIsThatOfTheFiles: the root is the one that the result's files have when they are packed from a
// directory, by whichever attempt and however slowly some of them came.
func TestRootIsThatOfTheFiles(t *testing.T) {
	r := &result{}
	for i := range 300 {
		r.add(sheaf.File{Path: fmt.Sprintf("%d/%03d.txt", i/100, i)}, fmt.Sprintf("file %d", i), "and more")
	}
	r.add(sheaf.File{Path: "3.big"}, strings.Repeat("0123456789abcdef", 1<<18), "x")
	r.add(sheaf.File{Path: "4"}, "")
	files := t.TempDir()
	for _, f := range r.files {
		name := filepath.Join(files, "o", f.Path)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		var all strings.Builder
		for _, p := range f.Parts {
			all.WriteString(r.parts[fmt.Sprint(p.Partition, f.Path)])
		}
		must(t, os.WriteFile(name, []byte(all.String()), 0o600))
	}
	want, err := car.Write(t.Context(), files, io.Discard)
	must(t, err)
	p, dir := packing(t)
	for attempt := uint32(1); attempt < 3; attempt++ {
		in := r.input(t, attempt)
		if attempt == 2 { // whose first reads all fail, the large file's half-way
			whole, opened := in.Open, new(atomic.Int64)
			in.Open = func(ctx context.Context, f *sheaf.File, p sheaf.Part) (io.ReadCloser, error) {
				body, err := whole(ctx, f, p)
				switch n := opened.Add(1); {
				case n < 3:
					return nil, errors.New("the node is away")
				case f.Path == "3.big" && n%2 == 0:
					return struct {
						io.Reader
						io.Closer
					}{io.LimitReader(body, 3<<20), body}, err
				}
				return body, err
			}
		}
		root, err := publish.Write(t.Context(), p, in)
		must(t, err)
		if root != want.String() {
			t.Errorf("attempt %d: the root is %s, not %s", attempt, root, want)
		}
		must(t, publish.Finish(t.Context(), p, "r", attempt, fmt.Sprint("digest", attempt)))
		r.check(t, unpacked(t, dir), attempt)
	}
}

// TestNothingToPack: a result without files is an empty directory.
func TestNothingToPack(t *testing.T) {
	p, dir := packing(t)
	root, err := publish.Write(t.Context(), p, (&result{}).input(t, 1))
	must(t, err)
	if root != "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" {
		t.Errorf("the root is %s", root)
	}
	must(t, publish.Finish(t.Context(), p, "r", 1, "digest1"))
	if got, want := names(tree(t, dir)), []string{"r/1/files.jsonl", "r/1/result.car", "r/1/result.json", "r/manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
}

// TestHalfACar: while a CAR file is written nothing stands under its name, and what a killed attempt left
// goes with the next.
func TestHalfACar(t *testing.T) {
	p, dir := packing(t)
	r := &result{}
	r.add(sheaf.File{Path: "a"}, strings.Repeat("a", 2<<20))
	r.add(sheaf.File{Path: "b"}, strings.Repeat("b", 2<<20))
	in := r.input(t, 1)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	whole := in.Open
	in.Open = func(ctx context.Context, f *sheaf.File, p sheaf.Part) (io.ReadCloser, error) {
		if f.Path == "b" {
			kill()
		}
		return whole(ctx, f, p)
	}
	if _, err := publish.Write(ctx, p, in); !errors.Is(err, context.Canceled) {
		t.Fatalf("a killed attempt: %v", err)
	}
	left := tree(t, dir)
	if _, there := left["r/1/.result.car.part"]; !there || len(left) != 1 {
		t.Errorf("half-way there is %q", names(left))
	}
	must(t, put(t.Context(), p, r.input(t, 2)))
	must(t, publish.Finish(t.Context(), p, "r", 2, "digest2"))
	r.check(t, unpacked(t, dir), 2)
	if info, err := os.Stat(filepath.Join(dir, "r/2/result.car")); err != nil || info.Mode() != fs.FileMode(0o644) {
		t.Errorf("the CAR file: %v, %v", info, err)
	}
}
