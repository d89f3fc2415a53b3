// Package build makes the programs that tests run as processes.
package build

import (
	"fmt"
	"os"
	"os/exec"
)

// Agent is the package of Sheaf's binary.
const Agent = "github.com/sheaf-run/agent"

// Program builds a main package as file out, static and with the tags that `make build` has; env may name another
// system, as GOOS=wasip1. Errors hold what the compiler said.
func Program(out, pkg string, env ...string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "hashicorpmetrics", "-o", out, pkg)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, said)
	}
	return nil
}
