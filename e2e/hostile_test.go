package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/sheaf"
)

// oneTry is a job of one task that is tried once, with an output.
func oneTry(name string, count int, driver, config, task, blocks string) string {
	return fmt.Sprintf(`
job %q {
  count = %d
  task "task" {
    driver = %q
    config {
      %s
    }
    %s
  }
  output "out" {
    path = "/out"
  }
  retry {
    attempts = 1
  }
  %s
}`, name, count, driver, config, task, blocks)
}

func shellConfig(script string) string {
	return `command = "sh"` + "\n" + `args = ["-c", "` + script + `"]`
}

// TestHostileTasks: what tasks, images, modules and outputs do wrong ends their run
// with exit code 3, and the run's error says what it was.
func TestHostileTasks(t *testing.T) {
	dir := t.TempDir()
	native := goBuild(t, "./testdata/hostile")
	module := goModule(t, "./testdata/hostile")
	whole, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "empty.wasm"), "")
	write(t, filepath.Join(dir, "truncated.wasm"), string(whole[:len(whole)/2]))
	write(t, filepath.Join(dir, "text.wasm"), "no module at all")
	// A module of nothing but its header has no _start; the other imports what no host has.
	write(t, filepath.Join(dir, "startless.wasm"), "\x00asm\x01\x00\x00\x00")
	write(t, filepath.Join(dir, "imports.wasm"), "\x00asm\x01\x00\x00\x00"+"\x01\x04\x01\x60\x00\x00"+"\x02\x0a\x01\x03env\x02no\x00\x00"+"\x03\x02\x01\x00"+"\x07\x0a\x01\x06_start\x00\x01"+"\x0a\x04\x01\x02\x00\x0b")
	busybox := containerdtest.DockerArchive(t, containerdtest.Busybox(t))
	foreign := containerdtest.Busybox(t)
	foreign.Arch = "s390x"
	wrongArch := containerdtest.DockerArchive(t, foreign)
	program, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	grower := containerdtest.DockerArchive(t, containerdtest.Image{Ref: "sheaf.test/hostile:1", Files: map[string][]byte{"bin/hostile": program}, Entrypoint: []string{"/bin/hostile"}})
	write(t, filepath.Join(dir, "broken.tar"), read(t, busybox)[:100000])
	wasm := func(file, arg string) string {
		return `module = "` + filepath.Join(dir, file) + `"` + "\n" + `args = ["` + arg + `"]`
	}
	write(t, filepath.Join(dir, "hostile.wasm"), string(whole))
	container := func(script string) string {
		return `image = "docker-archive:` + busybox + `"` + "\n" + `args = ["sh", "-c", "` + script + `"]`
	}
	const fork = `i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done; wait`
	a := startAgent(t)
	for _, c := range []struct {
		name, driver, config, task string
		count                      int
		want                       string // in what is said
	}{
		{"missing-archive", "containerd", `image = "docker-archive:` + dir + `/none.tar"`, "", 3, `none\.tar`},
		{"broken-archive", "containerd", `image = "docker-archive:` + dir + `/broken.tar"`, "", 3, `broken\.tar`},
		{"wrong-architecture", "containerd", `image = "docker-archive:` + wrongArch + `"`, "", 3, `linux/amd64`},
		{"missing-module", "wasm", wasm("none.wasm", ""), "", 3, `none\.wasm`},
		{"empty-module", "wasm", wasm("empty.wasm", ""), "", 3, `empty\.wasm.*empty`},
		{"truncated-module", "wasm", wasm("truncated.wasm", ""), "", 3, `truncated\.wasm`},
		{"elf-module", "wasm", `module = "` + native + `"`, "", 3, `ELF`},
		{"text-module", "wasm", wasm("text.wasm", ""), "", 3, `text\.wasm`},
		{"no-start", "wasm", wasm("startless.wasm", ""), "", 3, `startless\.wasm.*_start`},
		{"foreign-import", "wasm", wasm("imports.wasm", ""), "", 3, `imports\.wasm.*env\.no`},
		{"missing-program", "exec", `command = "/no/such/program"`, "", 1, `/no/such/program`},
		{"wasm-loops", "wasm", wasm("hostile.wasm", "loop"), `timeout = "1s"`, 1, `timeout|timed out|1s`},
		{"exec-hangs", "exec", shellConfig("sleep 1000"), `timeout = "300ms"`, 1, `timeout|timed out|300ms`},
		{"container-hangs", "containerd", container("sleep 1000"), "timeout = \"300ms\"\nkill_timeout = \"200ms\"", 1, `timeout|timed out|300ms`},
		{"wasm-memory", "wasm", wasm("hostile.wasm", "grow"), "resources {\n memory = 64\n }", 1, `memory`},
		{"exec-memory", "exec", `command = "` + native + `"` + "\n" + `args = ["grow"]`, "resources {\n memory = 64\n }", 1, `memory`},
		{"container-memory", "containerd", `image = "docker-archive:` + grower + `"` + "\n" + `args = ["grow"]`, "resources {\n memory = 64\n }", 1, `memory`},
		{"exec-pids", "exec", shellConfig(fork), "resources {\n pids = 16\n }", 1, `pids|process`},
		{"container-pids", "containerd", container(fork), "resources {\n pids = 16\n }", 1, `pids|process`},
		{"exec-links-out", "exec", shellConfig("ln -s /etc/passwd $SHEAF_OUTPUT_OUT/link"), "", 1, `link`},
		{"container-links-out", "containerd", container("ln -s /etc/passwd /out/link"), "", 1, `link`},
		{"wasm-links-out", "wasm", wasm("hostile.wasm", "link"), "", 1, `link`},
		{"exec-over-disk", "exec", shellConfig("head -c 3000000 /dev/zero > $SHEAF_OUTPUT_OUT/big"), "resources {\n disk = 1\n }", 1, `disk|1 ?MiB`},
		{"one-path-twice", "exec", shellConfig("echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_OUT/same"), "", 3, `same.*0.*1`},
		{"fifo", "exec", shellConfig("mkfifo $SHEAF_OUTPUT_OUT/pipe"), "", 1, `pipe`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := a.cli("job", "run", "-id", c.name, "-timeout", patience.String(), jobspec(t, oneTry(c.name, c.count, c.driver, c.config, c.task, "")))
			if r.code != 3 {
				t.Fatalf("exit %d, want 3:\n%s%s", r.code, r.stdout, r.stderr)
			}
			s := a.status(c.name)
			if s.Status != sheaf.RunFailed || !regexp.MustCompile(c.want).MatchString(s.Error) {
				t.Errorf("the run is %s: %q lacks %s\nshown:\n%s", s.Status, s.Error, c.want, r.stderr)
			}
			if !regexp.MustCompile(c.want).MatchString(r.stderr) {
				t.Errorf("what is shown lacks %s:\n%s", c.want, r.stderr)
			}
			for _, p := range a.partitions(c.name) {
				if p.Attempt > 1 {
					t.Errorf("partition %d was tried %d times", p.Index, p.Attempt)
				}
			}
		})
	}
	if r := a.cli("job", "run", "-id", "after", jobspec(t, oneTry("after", 1, "exec", shellConfig("true"), "", ""))); r.code != 0 {
		t.Errorf("the agent does not work after all this: exit %d\n%s", r.code, r.stderr)
	}
}
