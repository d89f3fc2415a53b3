package exec_test

import (
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/drivertest"
)

const nobody = 65534

// TestUnprivileged runs the suite again as a user who may make neither
// cgroups nor mounts.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		return // TestConformance has just done it
	}
	// Everyone must reach the test binary, the program and a directory for temporary files.
	dir, err := os.MkdirTemp("/tmp", "sheaf-exec-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"exec.test": self, "program": drivertest.Build(t, "linux", "")} {
		copyProgram(t, from, filepath.Join(dir, name))
	}
	cmd := osexec.Command(filepath.Join(dir, "exec.test"), "-test.run", "^TestConformance$")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, programVariable + "=" + filepath.Join(dir, "program")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as user %d: %v\n%s", nobody, err, out)
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
