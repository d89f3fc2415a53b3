package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
	build := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	build.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}
