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

// volumes makes two folders of images and other files, for the jobspec
// reference's example with two local volumes.
func volumes(t *testing.T) (one, two string) {
	t.Helper()
	one, two = t.TempDir(), t.TempDir()
	for i := range 5 {
		write(t, filepath.Join(one, fmt.Sprintf("image%d.jpg", i)), fmt.Sprintf("one %d", i))
		write(t, filepath.Join(two, fmt.Sprintf("image%d.jpg", i)), fmt.Sprintf("two %d", i))
	}
	write(t, filepath.Join(one, "notes.txt"), "no image")
	write(t, filepath.Join(one, "deep", "image9.jpg"), "too deep")
	write(t, filepath.Join(two, "image.png"), "no jpg")
	return one, two
}

func twoVolumes(one, two, task, blocks string) string {
	return fmt.Sprintf(`
job "thumbnails" {
  input "volume1" {
    source = "file://%s"
    mount  = "/input_images/volume1"
  }
  input "volume2" {
    source = "file://%s"
    mount  = "/input_images/volume2"
  }
  split {
    base_path  = "/input_images/"
    glob       = "/volume*/image*.jpg"
    batch_size = 3
  }
  %s
  %s
}`, one, two, task, blocks)
}

type shardJSON struct {
	Index int    `json:"index"`
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
	Atoms []struct {
		Path  string `json:"path"`
		Size  int64  `json:"size"`
		Dir   bool   `json:"dir"`
		Input string `json:"input"`
	} `json:"atoms"`
}

// wantShards is what the rules of splitting say: bytewise order, three a partition.
var wantShards = [][]string{
	{"volume1/image0.jpg", "volume1/image1.jpg", "volume1/image2.jpg"},
	{"volume1/image3.jpg", "volume1/image4.jpg", "volume2/image0.jpg"},
	{"volume2/image1.jpg", "volume2/image2.jpg", "volume2/image3.jpg"},
	{"volume2/image4.jpg"},
}

// TestPreview: the partitions of the example with two volumes, a JSON line each.
func TestPreview(t *testing.T) {
	one, two := volumes(t)
	spec := jobspec(t, twoVolumes(one, two, `task "t" {
    driver = "exec"
    config {
      command = "true"
    }
  }`, ""))
	a := startAgent(t)
	for name, r := range map[string]ran{
		"by the agent":     a.cli("input", "preview", "-json", spec),
		"without an agent": runCLI(t, []string{"SHEAF_ADDR="}, "input", "preview", "-json", spec),
	} {
		if r.code != 0 {
			t.Errorf("%s: exit %d: %s", name, r.code, r.stderr)
			continue
		}
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		if len(lines) != len(wantShards) {
			t.Errorf("%s: %d partitions, want %d:\n%s", name, len(lines), len(wantShards), r.stdout)
			continue
		}
		for i, line := range lines {
			var s shardJSON
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, atom := range s.Atoms {
				got = append(got, strings.TrimPrefix(atom.Path, "/input_images/"))
				if atom.Dir || atom.Size != 5 || !strings.HasPrefix(atom.Path, "/input_images/"+atom.Input+"/") {
					t.Errorf("%s: partition %d has atom %+v", name, i, atom)
				}
			}
			if s.Index != i || s.Bytes != int64(5*len(got)) || !slices.Equal(got, wantShards[i]) {
				t.Errorf("%s: partition %d is %s", name, i, line)
			}
		}
	}
	for what, text := range map[string]string{
		"nothing matched": strings.ReplaceAll(twoVolumes(one, two, `task "t" {
    driver = "exec"
    config {
      command = "true"
    }
  }`, ""), "image*.jpg", "*.gif"),
		"malformed glob": strings.ReplaceAll(twoVolumes(one, two, `task "t" {
    driver = "exec"
    config {
      command = "true"
    }
  }`, ""), "image*.jpg", "image[.jpg"),
	} {
		if r := a.cli("input", "preview", "-json", jobspec(t, text)); r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "glob") && !strings.Contains(r.stderr, ".gif") {
			t.Errorf("%s: exit %d\n%s%s", what, r.code, r.stdout, r.stderr)
		}
	}
}

// TestTasksSeeTheirOwnFiles: from inside each driver, a task lists the files
// of its shard and no other, and cannot change one.
func TestTasksSeeTheirOwnFiles(t *testing.T) {
	one, two := volumes(t)
	script := `find /input_images -type f; for f in $(find /input_images -type f); do if echo changed 2>/dev/null > $f; then echo WROTE $f; fi; done; if touch /input_images/volume1/new 2>/dev/null; then echo MADE; fi`
	a := startAgent(t)
	for driver, config := range map[string]string{
		"exec":       `command = "sh"` + "\n" + `args = ["-c", "` + script + `"]`,
		"containerd": `image = "docker-archive:` + containerdtest.DockerArchive(t, containerdtest.Busybox(t)) + `"` + "\n" + `args = ["sh", "-c", "` + script + `"]`,
		"wasm":       `module = "` + goModule(t, "./testdata/lister") + `"`,
	} {
		t.Run(driver, func(t *testing.T) {
			task := fmt.Sprintf("task \"list\" {\n driver = %q\n config {\n %s\n }\n }", driver, config)
			out := filepath.Join(t.TempDir(), "result")
			a.ok("job", "run", "-o", out, jobspec(t, twoVolumes(one, two, task, "")))
			for i, want := range wantShards {
				got := strings.Fields(read(t, out, "partitions", fmt.Sprint(i), "stdout"))
				slices.Sort(got)
				for k := range got {
					got[k] = strings.TrimPrefix(got[k], "/input_images/")
				}
				if !slices.Equal(got, want) {
					t.Errorf("partition %d saw %q, want %q", i, got, want)
				}
			}
			for i := range 5 {
				if got := read(t, one, fmt.Sprintf("image%d.jpg", i)); got != fmt.Sprintf("one %d", i) {
					t.Errorf("image%d.jpg was changed to %q", i, got)
				}
			}
		})
	}
}
