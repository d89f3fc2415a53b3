package containerd_test

import (
	"os"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// TestOtherMachinesPrograms: a program for 32 bits runs where its image says that it has such, by its machine or by the
// loader that those need, and is ended elsewhere: a container's system calls are those of its image's machine.
func TestOtherMachinesPrograms(t *testing.T) {
	program, err := os.ReadFile(drivertest.Build(t, "linux", "386"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		arch   string
		loader string
		signal string
	}{
		"a 64-bit image":     {arch: "amd64", signal: "SIGSYS"},
		"a 32-bit image":     {arch: "386"},
		"with its loader":    {arch: "amd64", loader: "lib/ld-linux.so.2"},
		"with musl's loader": {arch: "amd64", loader: "lib/ld-musl-i386.so.1"},
	} {
		t.Run(name, func(t *testing.T) {
			image := containerdtest.Busybox(t)
			image.Arch, image.Files["bin/program"] = c.arch, program
			if c.loader != "" {
				image.Files[c.loader] = []byte("a loader")
			}
			n, _ := open(t, containerd.New(), t.TempDir(), "docker-archive:"+containerdtest.DockerArchive(t, image))
			r := n.session.Run(n.start("/bin/program", "exit", "7"))
			if x := r.Exited; x.GetSignal() != c.signal || c.signal == "" && x.GetExitCode() != 7 {
				t.Errorf("it ended with %v; stderr %q", x, r.Stderr)
			}
		})
	}
}
