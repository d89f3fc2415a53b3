package e2e

import (
	"path/filepath"
	"testing"

	"github.com/sheaf-run/agent/e2e/build"
)

// goModule builds a Go program for WebAssembly.
func goModule(t *testing.T, pkg string) string {
	t.Helper()
	return goBuild(t, pkg, "GOOS=wasip1", "GOARCH=wasm")
}

// goBuild builds a Go program, static.
func goBuild(t *testing.T, pkg string, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	if err := build.Program(path, pkg, env...); err != nil {
		t.Fatal(err)
	}
	return path
}
