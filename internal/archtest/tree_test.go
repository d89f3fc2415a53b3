package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines is where a file is about to hold two ideas.
const maxLines = 600

func tracked(t *testing.T) (root string, files []string) {
	t.Helper()
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatalf("git rev-parse: %v", err)
	}
	root = strings.TrimSpace(string(out))
	out, err = exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return root, strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func TestFilesStayShort(t *testing.T) {
	root, files := tracked(t)
	for _, f := range files {
		if !strings.HasSuffix(f, ".go") || strings.HasSuffix(f, ".pb.go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, f))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines: split it along its ideas", f, n)
		}
	}
}

// TestNoDrawers fails on packages whose name says nothing of what is in them.
func TestNoDrawers(t *testing.T) {
	drawers := map[string]bool{"util": true, "utils": true, "helper": true, "helpers": true, "common": true, "misc": true, "types": true, "shared": true}
	_, files := tracked(t)
	for _, f := range files {
		for _, dir := range strings.Split(filepath.Dir(f), "/") {
			if drawers[dir] {
				t.Errorf("%s lies in a drawer called %q: name the room for what it holds", f, dir)
			}
		}
	}
}

// TestTopLevel keeps the first thing a reader sees small.
func TestTopLevel(t *testing.T) {
	known := map[string]bool{}
	for _, n := range strings.Fields(`agent api client command data docs drivers e2e internal jobspec packaging server sheaf tools ui .ci
		main.go go.mod go.sum GNUmakefile README.md ARCHITECTURE.md RATIONALE.md CONTRIBUTING.md LICENSE .gitignore .golangci.yml`) {
		known[n] = true
	}
	_, files := tracked(t)
	for _, f := range files {
		if top, _, _ := strings.Cut(f, "/"); !known[top] {
			t.Errorf("%s: nothing else stands at the top level", top)
		}
	}
}
