package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// combined is a join of samples with their references, crossed with one model that every tuple has.
const combined = `
job "tuples" {
  input "samples" {
    source = "file://%s"
    mount  = "/samples"
  }
  input "models" {
    source = "file://%s"
    mount  = "/models"
  }
  split {
    batch_size = 2
    cross {
      over "models" {
        glob = "/*"
      }
      join {
        over "samples" {
          glob  = "/*.txt"
          key   = "^/([^.]+)"
          outer = true
        }
        over "samples" {
          glob = "/*.ref"
          key  = "^/([^.]+)"
        }
      }
    }
  }
  %s
}`

// TestCombine: tuples that share atoms reach each driver's tasks, each atom once, and
// the shard file names the tuples.
func TestCombine(t *testing.T) {
	samples, models := t.TempDir(), t.TempDir()
	for _, name := range []string{"a.txt", "a.ref", "b.txt", "b.ref", "c.txt", "d.ref"} {
		write(t, filepath.Join(samples, name), name)
	}
	write(t, filepath.Join(models, "big", "weights"), "weights")
	write(t, filepath.Join(models, "small"), "s")
	want := []string{
		"models/big samples/a.txt samples/a.ref", "models/big samples/b.txt samples/b.ref", "models/big samples/c.txt",
		"models/small samples/a.txt samples/a.ref", "models/small samples/b.txt samples/b.ref", "models/small samples/c.txt",
	}
	script := `cat $SHEAF_SHARD_FILE; find /models /samples -type f -exec cat {} +; echo`
	a := startAgent(t)
	for driver, config := range map[string]string{
		"exec":       `command = "sh"` + "\n" + `args = ["-c", "` + script + `"]`,
		"containerd": `image = "docker-archive:` + containerdtest.DockerArchive(t, containerdtest.Busybox(t)) + `"` + "\n" + `args = ["sh", "-c", "` + script + `"]`,
	} {
		spec := jobspec(t, fmt.Sprintf(combined, samples, models, fmt.Sprintf("task \"t\" {\n driver = %q\n config {\n %s\n }\n }", driver, config)))
		var got []int
		for line := range strings.Lines(a.ok("input", "preview", "-json", spec)) {
			var s shardJSON
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			got = append(got, len(s.Atoms))
		}
		if !slices.Equal(got, []int{6, 5, 5}) {
			t.Errorf("%s: the partitions have %v atoms", driver, got)
		}
		out := filepath.Join(t.TempDir(), "result")
		a.ok("job", "run", "-o", out, spec)
		stdout := read(t, out, "stdout")
		var tuples []string
		for line := range strings.Lines(stdout) {
			var d struct{ Atoms []struct{ Path string } }
			if json.Unmarshal([]byte(line), &d) != nil {
				continue
			}
			var one []string
			for _, x := range d.Atoms {
				one = append(one, strings.TrimPrefix(x.Path, "/"))
			}
			tuples = append(tuples, strings.Join(one, " "))
		}
		if !slices.Equal(tuples, want) {
			t.Errorf("%s:\n got %q\nwant %q", driver, tuples, want)
		}
		if n := strings.Count(stdout, "weights"); n != 2 {
			t.Errorf("%s: the shared directory was seen in %d partitions, want 2:\n%s", driver, n, stdout)
		}
	}
}
