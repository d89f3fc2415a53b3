package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// reduceJob counts to its partition's number, has the numbers joined and files united, and sums them up. The reduce runs the given
// shell text first.
func reduceJob(name string, count int, first string) string {
	return fmt.Sprintf(`
job %q {
  count = %d
  task "number" {
    driver = "exec"
    config {
      command = "/bin/sh"
      args    = ["-c", "echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_ALL/numbers; mkdir $SHEAF_OUTPUT_EACH/d; echo file > $SHEAF_OUTPUT_EACH/d/$SHEAF_PARTITION_INDEX"]
    }
  }
  output "all" {
    path  = "/all"
    merge = "concat"
  }
  output "each" {
    path = "/each"
  }
  retry {
    attempts = 2
    delay    = "10ms"
  }
  reduce "sum" {
    task "add" {
      driver = "exec"
      config {
        command = "/bin/sh"
        args    = ["-c", %q]
      }
      env = {
        WHICH = "${partition.index} of ${partition.count}"
      }
    }
    output "total" {
      path = "/total"
    }
  }
}
`, name, count, first+`
s=0; for n in $(cat $SHEAF_INPUT_ALL/numbers); do s=$((s + n)); done
echo $s > $SHEAF_OUTPUT_TOTAL/sum; ls $SHEAF_INPUT_EACH/d | wc -l > $SHEAF_OUTPUT_TOTAL/files
touch $SHEAF_INPUT_ALL/spoilt 2>/dev/null && echo writable
echo reduced $WHICH as $SHEAF_ATTEMPT`)
}

// TestReduce: a reduce reads the merged outputs of all partitions, once they are there, and what it makes is in
// the result; what fails is tried again, and fails the run in the end without taking the outputs with it.
func TestReduce(t *testing.T) {
	a := startAgent(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "sum")
	a.ok("job", "run", "-id", "sum", "-o", out, jobspec(t, reduceJob("sum", 30, "[ $SHEAF_ATTEMPT -gt 1 ] || exit 7")))
	for path, want := range map[string]string{"total/sum": "435\n", "total/files": "30\n", "each/d/17": "file\n"} {
		if got := read(t, out, "outputs", path); strings.TrimLeft(got, " ") != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if got := a.ok("job", "logs", "-reduce", "sum"); !strings.Contains(got, "reduced 0 of 1 as 2") || strings.Contains(got, "writable") {
		t.Errorf("the reduce printed %q", got)
	}
	s := a.status("sum")
	if r := s.Reduce; r == nil || r.State != sheaf.PartitionSucceeded || r.Attempt != 2 || r.Failures != 1 || r.Index != 30 || s.Partitions.Total != 30 {
		t.Errorf("the reduce is %+v", s.Reduce)
	}
	if got := a.traced("sum", "total/sum"); got.Task != "add" || len(got.MadeOf) != 1 || got.MadeOf[0].Partition != 30 || got.MadeOf[0].Attempt != 2 || len(got.MadeOf[0].Atoms) != 2 {
		t.Errorf("the sum comes from %+v", got)
	}
	if got := a.traced("sum", "partitions/30/stdout"); got.Task != "add" || len(got.MadeOf) != 1 || got.MadeOf[0].Partition != 30 || len(got.MadeOf[0].Atoms) != 2 {
		t.Errorf("what the reduce printed comes from %+v", got)
	}
	if got := a.traced("sum", "all/numbers"); got.Task != "number" || got.Parts != 30 {
		t.Errorf("the numbers come from %+v", got)
	}

	mended := filepath.Join(dir, "mended")
	spec := jobspec(t, reduceJob("broken", 3, "[ -e "+mended+" ] || { echo no luck >&2; exit 9; }"))
	if r := a.cli("job", "run", "-id", "broken", spec); r.code != 3 || !strings.Contains(r.stderr+r.stdout, "no luck") {
		t.Errorf("a reduce that fails: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	a.ok("job", "results", "-o", filepath.Join(dir, "broken"), "broken")
	if got := read(t, dir, "broken", "outputs", "all", "numbers"); got != "0\n1\n2\n" {
		t.Errorf("the numbers of the run whose reduce failed are %q", got)
	}
	write(t, mended, "")
	a.ok("job", "retry", "-failed", "broken")
	a.ok("job", "wait", "broken")
	a.ok("job", "results", "-o", filepath.Join(dir, "broken"), "broken")
	if got := read(t, dir, "broken", "outputs", "total", "sum"); got != "3\n" {
		t.Errorf("after a retry the sum is %q", got)
	}
	if s := a.status("broken"); s.Partitions.Succeeded != 3 || a.partitions("broken")[0].Attempt != 1 {
		t.Errorf("the retry of the reduce has run partitions again: %+v", s.Partitions)
	}

	gate := filepath.Join(dir, "gate")
	a.ok("job", "run", "-detach", "-id", "stopped", jobspec(t, reduceJob("stopped", 2, waiting(gate))))
	a.until("stopped", "the reduce is at the node", func(s sheaf.RunSummary) bool {
		return s.Status == sheaf.RunReducing && s.Reduce != nil && s.Reduce.State == sheaf.PartitionAssigned
	})
	a.ok("job", "stop", "stopped")
	if s := a.status("stopped"); s.Status != sheaf.RunCancelled {
		t.Errorf("stopped while it reduces, the run is %s", s.Status)
	}
}
