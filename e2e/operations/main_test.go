package operations

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sheaf-run/agent/e2e/build"
)

// patience is how long anything may take that must happen.
const patience = 2 * time.Minute

// binary is the agent, as `make build` makes it.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "these tests make namespaces and cgroups: run them as root")
			return 1
		}
		dir, err := os.MkdirTemp("", "sheaf-operations-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "agent")
		if err := build.Program(binary, build.Agent); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if left := groups(os.Getpid()); len(left) > 0 {
			fmt.Fprintln(os.Stderr, "cgroups of the machines are left:", left)
			return 1
		}
		return code
	}())
}

// within polls until good, for at most so long.
func within(limit time.Duration, good func() bool) bool {
	for deadline := time.Now().Add(limit); !good(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// await polls until good, which other processes bring about.
func await(t testing.TB, what string, good func() bool) {
	t.Helper()
	if !within(patience, good) {
		t.Fatalf("waited %s in vain until %s", patience, what)
	}
}
