package operations

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnit: systemd understands every line of the unit, alone and with what a server adds.
func TestUnit(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("../../packaging", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	unit := read("sheaf.service")
	program := "/usr/local/bin/agent" // as in the guide; a check needs one that is there
	if !strings.Contains(unit, "ExecStart="+program+" start -config /etc/sheaf.d\n") {
		t.Fatalf("the unit does not start %s:\n%s", program, unit)
	}
	for _, c := range []struct {
		name, unit, dropIn, fault string
	}{
		{name: "alone", unit: unit},
		{name: "of a server", unit: unit, dropIn: read("sheaf-server.conf")},
		{name: "with a mistake", unit: strings.Replace(unit, "KillMode=mixed", "KillMode=mixd", 1), fault: "mixd"},
		{name: "of a server with a mistake", unit: unit, dropIn: "[Service]\nProtectSystem=strickt\n", fault: "strickt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("sheaf.service", strings.Replace(c.unit, program, "/bin/true", 1))
			if c.dropIn != "" {
				write("sheaf.service.d/server.conf", c.dropIn)
			}
			verify := exec.Command("systemd-analyze", "verify", "--man=no", "sheaf.service")
			verify.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
			out, err := verify.CombinedOutput()
			if err != nil && len(out) == 0 {
				t.Fatalf("systemd-analyze (make system-packages installs it): %v", err)
			}
			var ours []string // the machine's own units may have mistakes too
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, dir) || strings.Contains(line, "sheaf.service") {
					ours = append(ours, line)
				}
			}
			switch {
			case c.fault == "" && len(ours) > 0:
				t.Errorf("systemd says\n%s", strings.Join(ours, ""))
			case c.fault != "" && !strings.Contains(strings.Join(ours, ""), c.fault):
				t.Errorf("systemd finds no mistake:\n%s", out)
			}
		})
	}
}
