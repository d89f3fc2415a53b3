package drivertest

import (
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"

	"fmt"
)

// tree writes files into a new directory that every user may read.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// contents is the inverse of tree.
func contents(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		info, _ := d.Info()
		files[rel] = fmt.Sprintf("%v %s", info.Mode(), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func listing(names ...string) string {
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%q\n", n)
	}
	return b.String()
}

// inputs gives two tasks trees of their own at the same paths, several mounts
// deep in directories that don't exist on the host. Each sees its own and cannot change them.
func inputs(t *testing.T, b *bench) {
	for _, who := range []string{"one", "two"} {
		left := tree(t, map[string]string{who + ".txt": who, "sub/" + who: "below"})
		right := tree(t, map[string]string{"b-" + who: "right"})
		before := contents(t, left)
		at := []*driverpb.Mount{
			{Source: left, Target: "/sheaf-suite/in/left", ReadOnly: true},
			{Source: right, Target: "/sheaf-suite/in/right", ReadOnly: true},
		}
		list := b.start(t, "list", "/sheaf-suite")
		list.Mounts = at
		// A sandbox may show the directories on the way or only the mounts; the tree is the same.
		wantOut(t, b.succeed(t, list), listing("in/", "in/left/", "in/left/"+who+".txt", "in/left/sub/", "in/left/sub/"+who, "in/right/", "in/right/b-"+who))

		tamper := b.start(t, "tamper", "/sheaf-suite/in/left", who+".txt")
		tamper.Mounts = at
		wantOut(t, b.succeed(t, tamper), "")
		if after := contents(t, left); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("the input is now %q, was %q", after, before)
		}
	}
	if _, err := os.Lstat("/sheaf-suite"); err == nil {
		t.Error("a mount point was made on the host")
	}
}

func hostileNames(t *testing.T, b *bench) {
	names := []string{"new\nline", `quote"s'`, "-rf", " lead", "tab\t", "\xff\xfe not utf-8", "$HOME", "*", "é", strings.Repeat("n", 250), ".hidden", "c:\\d"}
	files := map[string]string{}
	for _, n := range names {
		files[n] = "content of " + n
	}
	dir := tree(t, files)
	start := b.start(t, "list", "/in")
	start.Mounts = []*driverpb.Mount{{Source: dir, Target: "/in", ReadOnly: true}}
	wantOut(t, b.succeed(t, start), listing(names...))

	cat := b.start(t, "cat", "/in/new\nline")
	cat.Mounts = start.GetMounts()
	wantOut(t, b.succeed(t, cat), "content of new\nline")
}

func outputs(t *testing.T, b *bench) {
	in, out := tree(t, map[string]string{"a": "input"}), tree(t, nil)
	start := b.start(t, "write", "/sheaf-out/deep/er/file", "made by the task")
	start.Mounts = []*driverpb.Mount{{Source: in, Target: "/in", ReadOnly: true}, {Source: out, Target: "/sheaf-out"}}
	b.succeed(t, start)
	data, err := os.ReadFile(filepath.Join(out, "deep/er/file"))
	if err != nil || string(data) != "made by the task" {
		t.Errorf("the output holds %q, %v", data, err)
	}
}
