package simtest

import (
	"os/exec"
	"strings"
	"testing"
)

// TestPlantedFaultsAreFound builds the simulation over a state machine with a
// known fault, and expects it to fail: a simulation that finds nothing there proves nothing.
func TestPlantedFaultsAreFound(t *testing.T) {
	for _, c := range []struct{ tag, finding string }{
		{"planted_nofence", "may not commit"},
		{"planted_doublecount", "different ones were reported"},
		{"planted_lostrelease", "after 300 s without faults"},
	} {
		t.Run(c.tag, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "go", "test", "-tags", c.tag, "-run", "^TestSeeds$", "-seeds", "200", ".").CombinedOutput()
			if err == nil {
				t.Fatalf("200 seeds do not find it:\n%s", out)
			}
			if text := string(out); !strings.Contains(text, c.finding) || !strings.Contains(text, "-run TestSeeds -seed ") {
				t.Fatalf("it is not found for what it is:\n%s", out)
			}
		})
	}
}
