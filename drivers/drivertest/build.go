package drivertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Build compiles the suite's program, statically, for an operating system and
// architecture as Go names them ("linux", "" being this machine's; "wasip1", "wasm") and returns its path. The file
// goes with the test.
func Build(t testing.TB, goos, goarch string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/sheaf-run/agent/drivers/drivertest/program")
	if goarch == "" {
		goarch = runtime.GOARCH
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch, "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the suite's program for %s/%s: %v\n%s", goos, goarch, err, text)
	}
	return out
}
