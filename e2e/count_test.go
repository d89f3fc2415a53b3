package e2e

import (
	"path/filepath"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// TestCount: count = 3 with an echo of the partition's index prints 0, 1, 2 in
// order in the results, with every driver that has a shell, and when they may follow each other in one sandbox.
func TestCount(t *testing.T) {
	a := startAgent(t)
	image := containerdtest.DockerArchive(t, containerdtest.Busybox(t))
	for _, c := range []struct{ driver, isolation, config string }{
		{"exec", "partition", `command = "sh"` + "\n" + `args = ["-c", "echo Partition=$SHEAF_PARTITION_INDEX"]`},
		{"exec", "run", `command = "sh"` + "\n" + `args = ["-c", "echo Partition=$SHEAF_PARTITION_INDEX"]`},
		{"containerd", "partition", `image = "docker-archive:` + image + `"` + "\n" + `args = ["sh", "-c", "echo Partition=$SHEAF_PARTITION_INDEX"]`},
		{"containerd", "run", `image = "docker-archive:` + image + `"` + "\n" + `args = ["sh", "-c", "echo Partition=$SHEAF_PARTITION_INDEX"]`},
	} {
		t.Run(c.driver+" "+c.isolation, func(t *testing.T) {
			spec := jobspec(t, `
job "count" {
  count     = 3
  isolation = "`+c.isolation+`"
  task "echo" {
    driver = "`+c.driver+`"
    config {
      `+c.config+`
    }
  }
}`)
			out := filepath.Join(t.TempDir(), "result")
			a.ok("job", "run", "-o", out, spec)
			if got := read(t, out, "stdout"); got != "Partition=0\nPartition=1\nPartition=2\n" {
				t.Errorf("stdout is %q", got)
			}
			for i, want := range []string{"Partition=0\n", "Partition=1\n", "Partition=2\n"} {
				dir := filepath.Join(out, "partitions", string(rune('0'+i)))
				if got := read(t, dir, "stdout"); got != want {
					t.Errorf("partition %d printed %q", i, got)
				}
				if got := read(t, dir, "exit_code"); got != "0\n" && got != "0" {
					t.Errorf("partition %d has exit code %q", i, got)
				}
			}
		})
	}
	t.Run("one line", func(t *testing.T) {
		r := a.cli("job", "run", "-local", "-exec", "-count", "3", "--", "sh", "-c", "echo Partition=$SHEAF_PARTITION_INDEX")
		if r.code != 0 || r.stdout != "Partition=0\nPartition=1\nPartition=2\n" {
			t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
		}
	})
}
