package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// shell is a job of n partitions that run a script by sh, with blocks of its own.
func shell(name string, n int, script, blocks string) string {
	return fmt.Sprintf(`
job %q {
  count = %d
  %s
  task "script" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", <<-E
        %s
      E
      ]
    }
  }
}`, name, n, blocks, strings.ReplaceAll(strings.ReplaceAll(script, "${", "$${"), "%{", "%%{"))
}

const quickRetry = `retry {
    attempts = 3
    delay    = "10ms"
  }`

// TestRetries: one partition of five fails twice and succeeds on its third
// try, while the others run once.
func TestRetries(t *testing.T) {
	a := startAgent(t)
	tries := t.TempDir()
	script := `echo try >> ` + tries + `/$SHEAF_PARTITION_INDEX
        if [ $SHEAF_PARTITION_INDEX = 3 ] && [ $SHEAF_ATTEMPT -lt 3 ]; then echo not yet >&2; exit 7; fi`
	a.ok("job", "run", "-id", "retries", jobspec(t, shell("retries", 5, script, quickRetry)))
	for _, p := range a.partitions("retries") {
		want := 1
		if p.Index == 3 {
			want = 3
		}
		if got := strings.Count(read(t, tries, fmt.Sprint(p.Index)), "try"); got != want || p.State != sheaf.PartitionSucceeded || p.Attempt != uint32(want) {
			t.Errorf("partition %d ran %d times, is %s at attempt %d; want %d", p.Index, got, p.State, p.Attempt, want)
		}
	}
}

const poison = `if [ $SHEAF_PARTITION_INDEX = 4 ]; then echo the input is poison >&2; exit 9; fi
        echo result of $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX.txt`

const outBlock = `output "out" {
    path = "/out"
  }`

// TestPoison: a partition that always fails ends the run with exit code 3, with its
// stderr shown and the others' output kept; with tolerate = 1 the run succeeds.
func TestPoison(t *testing.T) {
	a := startAgent(t)
	for _, c := range []struct {
		name, failure string
		code          int
		status        sheaf.RunStatus
	}{
		{"poison", "", 3, sheaf.RunFailed},
		{"tolerated", "failure {\n tolerate = 1\n }", 0, sheaf.RunSucceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "result")
			r := a.cli("job", "run", "-id", c.name, "-o", out, jobspec(t, shell(c.name, 10, poison, quickRetry+"\n"+outBlock+"\n"+c.failure)))
			if r.code != c.code {
				t.Fatalf("exit %d, want %d:\n%s", r.code, c.code, r.stderr)
			}
			if !strings.Contains(r.stderr, "the input is poison") {
				t.Errorf("the partition's stderr is not shown:\n%s", r.stderr)
			}
			s := a.status(c.name)
			if s.Status != c.status || s.Partitions.Succeeded != 9 || s.Partitions.Failed != 1 {
				t.Errorf("run is %+v", s.RunStub)
			}
			for i := range 10 {
				path := filepath.Join(out, "outputs", "out", fmt.Sprintf("%d.txt", i))
				if i == 4 {
					if _, err := os.Stat(path); err == nil {
						t.Errorf("the failed partition has an output")
					}
					continue
				}
				if got := read(t, path); got != fmt.Sprintf("result of %d\n", i) {
					t.Errorf("partition %d wrote %q", i, got)
				}
			}
			if p := a.partitions(c.name)[4]; p.Attempt != 3 || p.ExitCode == nil || *p.ExitCode != 9 {
				t.Errorf("the poisoned partition is %+v", p)
			}
		})
	}
}
