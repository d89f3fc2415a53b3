package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// meeting is a job of which partitions 0 and 1 write one path, the second when the file `second` is there, and of which
// the others wait for the gate.
func meeting(second, gate, more string) string {
	return shell("meeting", 4, fmt.Sprintf(`case $SHEAF_PARTITION_INDEX in
0) ;;
1) %s ;;
*) %s ;;
esac
mkdir $SHEAF_OUTPUT_OUT/d; echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_OUT/d/$SHEAF_PARTITION_INDEX
if [ $SHEAF_PARTITION_INDEX -lt 2 ]; then echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_OUT/d/same; fi`, waiting(second), waiting(gate)), `
  backups = false
  output "out" {
    path = "/out"
  }
`+more)
}

// TestConflictNamed: two partitions have written one path, and everybody can know as soon as the second is committed,
// while others still run. The agent is killed in between: what the first wrote is read again.
func TestConflictNamed(t *testing.T) {
	a := startAgent(t)
	second, gate := filepath.Join(t.TempDir(), "second"), filepath.Join(t.TempDir(), "gate")
	a.ok("job", "run", "-detach", "-id", "m", jobspec(t, meeting(second, gate, "")))
	a.until("m", "the first is committed", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded == 1 })
	if s := a.status("m"); s.Conflict != nil {
		t.Errorf("of one output: %+v", s.Conflict)
	}
	a.kill()
	a.start()
	write(t, second, "")
	s := a.until("m", "the conflict is named", func(s sheaf.RunSummary) bool { return s.Conflict != nil })
	const text = `output "out": "d/same" was written by both partitions 0 and 1`
	if c := s.Conflict; c.Output != "out" || c.Path != "d/same" || c.Partitions != [2]int{0, 1} || c.Directory || !strings.HasPrefix(c.Message, text) || s.Partitions.Succeeded != 2 || s.Status != sheaf.RunRunning {
		t.Errorf("%+v of %+v", c, s)
	}
	for _, shown := range []struct {
		in   string
		args []string
	}{
		{"status", []string{"job", "status", "m"}}, {"explain of the run", []string{"job", "explain", "m"}},
		{"explain of a partition", []string{"job", "explain", "m/1"}},
	} {
		if got := a.ok(shown.args...); !strings.Contains(got, text) || !strings.Contains(got, "on_conflict") {
			t.Errorf("%s says %s", shown.in, got)
		}
	}
	for line, err := range a.client().Events(t.Context(), api.EventOptions{After: new(uint64), Filter: `type == "RunConflict"`}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(line.Events) == 0 {
			continue
		}
		if e := line.Events[0]; e.Key != "m" || e.Partitions.String() != "0-1" || !strings.HasPrefix(e.Reason, text) {
			t.Errorf("the event is %+v", e)
		}
		break
	}
	// It is in the log, and the run goes on to its end.
	a.kill()
	a.start()
	if s := a.status("m"); s.Conflict == nil || s.Status != sheaf.RunRunning {
		t.Errorf("after a restart: %+v", s)
	}
	write(t, gate, "")
	if r := a.cli("job", "wait", "m"); r.code != 3 {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if s := a.status("m"); s.Partitions.Succeeded != 4 || !strings.Contains(s.Error, `"d/same" was written by both partitions 0 and 1`) {
		t.Errorf("%+v", s)
	}
}

// TestConflictEndsRun: a job that says when it is to be given up is, with the conflict for the reason.
func TestConflictEndsRun(t *testing.T) {
	a := startAgent(t)
	second, gate := filepath.Join(t.TempDir(), "second"), filepath.Join(t.TempDir(), "gate")
	write(t, second, "")
	r := a.cli("job", "run", "-id", "m", jobspec(t, meeting(second, gate, "failure {\n stop_after = 2\n }\n")))
	if r.code != 3 || !strings.Contains(r.stdout+r.stderr, `"d/same" was written by both partitions 0 and 1`) {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if s := a.status("m"); s.Status != sheaf.RunFailed || s.Partitions.Succeeded != 2 || s.Partitions.Cancelled != 2 || s.Partitions.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestConflictWithReused: what was taken over from an earlier run meets what is made now, and no other pair is named.
func TestConflictWithReused(t *testing.T) {
	a := startAgent(t)
	in, gate := t.TempDir(), filepath.Join(t.TempDir(), "gate")
	write(t, filepath.Join(in, "1"), "x")
	write(t, filepath.Join(in, "2"), "y")
	spec := jobspec(t, fmt.Sprintf(`
job "named" {
  reuse = true
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob = "/*"
  }
  task "copy" {
    driver = "exec"
    config {
      command = "/bin/sh"
      args    = ["-c", "cd $SHEAF_INPUT_IN; n=$(cat *); if [ $n = wait ]; then %s; fi; echo $n > $SHEAF_OUTPUT_OUT/$n"]
    }
  }
  output "out" {
    path = "/out"
  }
}
`, in, waiting(gate)))
	a.ok("job", "run", "-id", "first", spec)
	write(t, filepath.Join(in, "3"), "wait")
	write(t, filepath.Join(in, "4"), "y")
	a.ok("job", "run", "-detach", "-id", "second", spec)
	s := a.until("second", "the conflict is named", func(s sheaf.RunSummary) bool { return s.Conflict != nil })
	if s.Conflict.Path != "y" || !slices.Equal(s.Conflict.Partitions[:], []int{1, 3}) || s.Partitions.Reused != 2 || s.Partitions.Succeeded != 1 {
		t.Errorf("%+v of %+v", s.Conflict, s)
	}
	a.ok("job", "stop", "second")
}
