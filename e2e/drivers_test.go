package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// minFiles is how many files the comparison must be made over to mean something.
const minFiles = 5000

// TestDriversAgree runs the demo's job over Go's source with each driver and
// several batch sizes: the merged table is the same, byte for byte. With
// SHEAF_BATCH_SIZES=1 it starts a container for every file.
func TestDriversAgree(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	sizes := []string{"7", "1000"}
	if set := os.Getenv("SHEAF_BATCH_SIZES"); set != "" {
		sizes = strings.Split(set, ",")
	}
	native := goBuild(t, "./demo/linecount")
	program, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	linecount := containerdtest.Image{Ref: "sheaf.test/linecount:1", Files: map[string][]byte{"bin/linecount": program}, Entrypoint: []string{"/bin/linecount"}}
	configs := [][2]string{
		{"exec", `command = "` + native + `"`},
		{"wasm", `module = "` + goModule(t, "./demo/linecount") + `"`},
		{"containerd", `image = "docker-archive:` + containerdtest.DockerArchive(t, linecount) + `"`},
	}
	a := startAgent(t)
	var want [sha256.Size]byte
	for i, size := range sizes {
		for k, c := range configs {
			name := c[0] + "-" + size
			out := filepath.Join(t.TempDir(), name)
			a.ok("job", "run", "-id", name, "-o", out, jobspec(t, fmt.Sprintf(`
job "linecount" {
  input "source" {
    source = "file://%s"
    mount  = "/src"
  }
  split {
    glob       = "/**/*.go"
    batch_size = %s
  }
  task "count" {
    driver = %q
    config {
      %s
    }
  }
  output "counts" {
    path  = "/counts"
    merge = "concat"
  }
}`, source, size, c[0], c[1])))
			table := []byte(read(t, out, "outputs", "counts", "counts.tsv"))
			if n := bytes.Count(table, []byte("\n")); n < minFiles {
				t.Fatalf("%s: only %d files: the comparison is of too few", name, n)
			}
			got := sha256.Sum256(table)
			if i == 0 && k == 0 {
				want = got
			}
			if got != want {
				t.Errorf("%s: the table has digest %x, that of %s-%s %x", name, got, configs[0][0], sizes[0], want)
			}
			s := a.status(name)
			t.Logf("%s: %d partitions in %s", name, s.Partitions.Total, s.Ended.Sub(s.Submitted))
			a.ok("job", "delete", name)
		}
	}
}
