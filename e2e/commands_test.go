package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// waiting is a script that waits for a file.
func waiting(gate string) string { return "while [ ! -e " + gate + " ]; do sleep 0.02; done" }

// TestFileChanges: a file that changes between split and run fails its partition with the reason, and no other.
func TestFileChanges(t *testing.T) {
	a := startAgent(t)
	in := t.TempDir()
	for i := range 3 {
		write(t, filepath.Join(in, fmt.Sprint(i)), "as it was listed\n")
	}
	// The first to run changes another's file, of which everything is known by then.
	script := "if [ $SHEAF_PARTITION_INDEX = 0 ]; then echo more >> " + in + "/2; fi; if [ $SHEAF_PARTITION_INDEX = 2 ]; then while [ $(wc -c < " + in + "/2) = 17 ]; do sleep 0.02; done; fi"
	r := a.cli("job", "run", "-id", "changes", jobspec(t, fmt.Sprintf(`
job "changes" {
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob = "/*"
  }
  task "read" {
    driver = "exec"
    config {
      %s
    }
  }
  retry {
    attempts = 1
  }
}`, in, shellConfig(script))))
	if r.code != 3 || !strings.Contains(r.stderr, "changed") || !strings.Contains(r.stderr, "/in/2") {
		t.Errorf("exit %d, want 3 and the file's name:\n%s", r.code, r.stderr)
	}
	for i, want := range []sheaf.PartitionState{sheaf.PartitionSucceeded, sheaf.PartitionSucceeded, sheaf.PartitionFailed} {
		if p := a.partitions("changes")[i]; p.State != want {
			t.Errorf("partition %d is %+v, want %s", i, p, want)
		}
	}
}

// TestStop: a cancelled run ends its tasks, keeps what is committed, has exit code 4 for whoever waits, and is cancelled again without complaint.
func TestStop(t *testing.T) {
	a := startAgent(t)
	in := t.TempDir()
	held := filepath.Join(in, "held")
	write(t, held, "")
	w := watch(t, held)
	a.ok("job", "run", "-detach", "-id", "stopped", jobspec(t, shell("stopped", 2, `if [ $SHEAF_PARTITION_INDEX = 1 ]; then exec 3<`+held+`; sleep 1000; fi`, "")))
	a.until("stopped", "one is committed and one runs", func(s sheaf.RunSummary) bool {
		return s.Partitions.Succeeded == 1 && len(w.running()) == 1
	})
	for range 2 {
		a.ok("job", "stop", "stopped")
	}
	await(t, "the task is gone", func() bool { return len(w.running()) == 0 })
	if r := a.cli("job", "wait", "stopped"); r.code != 4 {
		t.Errorf("waiting for a cancelled run: exit %d, want 4:\n%s", r.code, r.stderr)
	}
	if s := a.status("stopped"); s.Status != sheaf.RunCancelled || s.Partitions.Succeeded != 1 || s.Partitions.Cancelled != 1 {
		t.Errorf("the run is %+v", s.RunStub)
	}
}

// TestJobTimeout: a run over its own timeout fails, and says so.
func TestJobTimeout(t *testing.T) {
	a := startAgent(t)
	r := a.cli("job", "run", jobspec(t, shell("late", 3, "sleep 1000", `timeout = "500ms"`)))
	if s := a.status("late"); r.code != 3 || s.Status != sheaf.RunFailed || !strings.Contains(r.stderr, "500ms") {
		t.Errorf("exit %d, %+v:\n%s", r.code, s.RunStub, r.stderr)
	}
}

// TestStopAfter: past stop_after failures the rest is cancelled, and is not begun.
func TestStopAfter(t *testing.T) {
	a := startAgent(t)
	begun := t.TempDir()
	r := a.cli("job", "run", "-id", "hopeless", jobspec(t, shell("hopeless", 2000, `: > `+begun+`/$SHEAF_PARTITION_INDEX; exit 9`, "failure {\n stop_after = 5\n }\n retry {\n attempts = 1\n }")))
	s := a.status("hopeless")
	if r.code != 3 || s.Status != sheaf.RunFailed {
		t.Fatalf("exit %d, %+v", r.code, s.RunStub)
	}
	if p := s.Partitions; p.Failed <= 5 || p.Cancelled == 0 || p.Failed+p.Cancelled != 2000 {
		t.Errorf("partitions are %+v", p)
	}
	files, err := os.ReadDir(begun)
	if err != nil || len(files) < 6 || len(files) >= 2000 {
		t.Errorf("%d partitions were begun, %v", len(files), err)
	}
}

// TestNames: a run is named by its ID, a unique prefix of it, its job's name or `last`; one ID is one run.
func TestNames(t *testing.T) {
	a := startAgent(t)
	spec := jobspec(t, shell("named", 1, "true", ""))
	a.ok("job", "run", "-id", "first-1", spec)
	a.ok("job", "run", "-id", "second-2", spec)
	for ref, want := range map[string]sheaf.RunID{"first-1": "first-1", "first": "first-1", "f": "first-1", "named": "second-2", "last": "second-2", "sec": "second-2"} {
		if got := a.status(ref).ID; got != want {
			t.Errorf("%q means %s, want %s", ref, got, want)
		}
	}
	a.ok("job", "run", "-id", "first-2", spec)
	for _, c := range []struct {
		ref   string
		wants []string
	}{{"first", []string{"first-1", "first-2"}}, {"nobody", []string{"nobody"}}} {
		r := a.cli("job", "status", c.ref)
		for _, want := range c.wants {
			if r.code != 2 || !strings.Contains(r.stderr, want) {
				t.Errorf("status of %q: exit %d:\n%s", c.ref, r.code, r.stderr)
			}
		}
	}
	a.ok("job", "run", "-id", "first-1", spec)
	if got := a.partitions("first-1")[0].Attempt; got != 1 {
		t.Errorf("a run submitted twice ran %d times", got)
	}
	r := a.cli("job", "run", "-id", "first-1", jobspec(t, shell("named", 2, "true", "")))
	if r.code != 2 || !strings.Contains(r.stderr, "first-1") {
		t.Errorf("another job under the same ID: exit %d:\n%s", r.code, r.stderr)
	}
}

// TestRetryCommand: partitions that failed, or those named, run again in the same run, and no others.
func TestRetryCommand(t *testing.T) {
	a := startAgent(t)
	dir := t.TempDir()
	script := `echo try >> ` + dir + `/$SHEAF_PARTITION_INDEX
        if [ $SHEAF_PARTITION_INDEX -ge 3 ] && [ ! -e ` + dir + `/mended ]; then echo broken >&2; exit 9; fi
        echo result > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX`
	spec := jobspec(t, shell("mend", 6, script, outBlock+"\n retry {\n attempts = 1\n }"))
	if r := a.cli("job", "run", "-id", "mend", spec); r.code != 3 {
		t.Fatalf("exit %d, want 3:\n%s", r.code, r.stderr)
	}
	tries := func() (n []int) {
		for i := range 6 {
			n = append(n, strings.Count(read(t, dir, fmt.Sprint(i)), "try"))
		}
		return n
	}
	if r := a.cli("job", "retry", "-partition", "0", "mend"); r.code != 2 {
		t.Errorf("retrying what succeeded: exit %d, want 2:\n%s", r.code, r.stderr)
	}
	a.ok("job", "retry", "-partition", "4", "mend")
	if r := a.cli("job", "wait", "mend"); r.code != 3 {
		t.Errorf("the partition fails again: exit %d, want 3:\n%s", r.code, r.stderr)
	}
	if got, want := tries(), []int{1, 1, 1, 1, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("tries are %v, want %v", got, want)
	}
	write(t, filepath.Join(dir, "mended"), "")
	a.ok("job", "retry", "-failed", "mend")
	a.ok("job", "wait", "mend")
	if got, want := tries(), []int{1, 1, 1, 2, 3, 2}; !slices.Equal(got, want) {
		t.Errorf("tries are %v, want %v", got, want)
	}
	out := filepath.Join(t.TempDir(), "result")
	a.ok("job", "results", "-o", out, "mend")
	for i := range 6 {
		if got := read(t, out, "outputs", "out", fmt.Sprint(i)); got != "result\n" {
			t.Errorf("partition %d wrote %q", i, got)
		}
	}
}

// TestPartial: what is committed can be taken while the run goes on, whole or by partition; a wait of
// limited time ends with 124; logs of running and failed partitions can be read.
func TestPartial(t *testing.T) {
	a := startAgent(t)
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	script := `echo result > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX
        echo first; echo second; echo third
        case $SHEAF_PARTITION_INDEX in
        1) echo bad luck >&2; exit 9;;
        2) ` + waiting(gate) + `;;
        esac; echo last`
	a.ok("job", "run", "-detach", "-id", "partial", jobspec(t, shell("partial", 3, script, outBlock+"\n retry {\n attempts = 1\n }")))
	a.until("partial", "two are done", func(s sheaf.RunSummary) bool {
		return s.Partitions.Succeeded == 1 && s.Partitions.Failed == 1 && s.Partitions.Running == 1
	})
	if r := a.cli("job", "wait", "-timeout", "100ms", "partial"); r.code != 124 {
		t.Errorf("a wait of limited time: exit %d, want 124:\n%s", r.code, r.stderr)
	}
	if r := a.cli("job", "results", "-o", filepath.Join(dir, "no"), "partial"); r.code != 2 {
		t.Errorf("the result of a run that goes on: exit %d, want 2:\n%s", r.code, r.stderr)
	}
	for flag, args := range map[string][]string{"partial": {"-partial"}, "partition": {"-partition", "0"}} {
		out := filepath.Join(dir, flag)
		a.ok(append(append([]string{"job", "results", "-o", out}, args...), "partial")...)
		if got := read(t, out, "outputs", "out", "0", "0"); got != "result\n" {
			t.Errorf("%s: partition 0 wrote %q", flag, got)
		}
		if _, err := os.Stat(filepath.Join(out, "outputs", "out", "2")); err == nil {
			t.Errorf("%s: what is not committed is in the result", flag)
		}
	}
	if got := a.ok("job", "logs", "-failed", "partial"); !strings.HasPrefix(got, "1@") || !strings.HasSuffix(got, "| bad luck\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("the log of what failed is %q", got)
	}
	if got := a.ok("job", "logs", "-partition", "0", "-tail", "2", "partial"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "| third\n") || !strings.HasSuffix(got, "| last\n") {
		t.Errorf("the tail is %q", got)
	}
	followed := a.follow("job", "logs", "-f", "-partition", "2", "partial")
	for _, want := range []string{"first", "second", "third"} {
		if got := <-followed; !strings.HasSuffix(got, "| "+want) {
			t.Errorf("followed %q, want %q", got, want)
		}
	}
	write(t, gate, "")
	if got := <-followed; !strings.HasSuffix(got, "| last") {
		t.Errorf("followed %q, want the last line", got)
	}
	if got, more := <-followed; more {
		t.Errorf("followed %q after the end", got)
	}
	if r := a.cli("job", "wait", "partial"); r.code != 3 {
		t.Errorf("exit %d, want 3:\n%s", r.code, r.stderr)
	}
}

// follow runs a command and gives its lines as they come; the channel is closed when it ends.
func (a *agent) follow(args ...string) <-chan string {
	a.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "SHEAF_ADDR="+a.address, "XDG_CONFIG_HOME="+a.home)
	out, err := cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	a.t.Cleanup(func() {
		stop()
		for range lines {
		}
		_ = cmd.Wait()
	})
	return lines
}

// TestUnplaceable: a job that fits no node waits and says what for; -local ends with exit code 5.
func TestUnplaceable(t *testing.T) {
	a := startAgent(t)
	spec := jobspec(t, `
job "giant" {
  task "t" {
    driver = "exec"
    config {
      command = "true"
    }
    resources {
      memory = "1000GiB"
    }
  }
}`)
	a.ok("job", "run", "-detach", "-id", "giant", spec)
	a.until("giant", "it says what it waits for", func(s sheaf.RunSummary) bool {
		return strings.Contains(strings.Join(s.Waiting, "\n"), "memory")
	})
	var why struct {
		Reasons []struct {
			What string `json:"what"`
		} `json:"reasons"`
	}
	if err := json.Unmarshal([]byte(a.ok("job", "explain", "-json", "giant")), &why); err != nil {
		t.Fatal(err)
	}
	if len(why.Reasons) == 0 || !strings.Contains(fmt.Sprint(why.Reasons), "memory") {
		t.Errorf("the explanation is %+v", why)
	}
	if r := runCLI(t, nil, "job", "run", "-local", spec); r.code != 5 || !strings.Contains(r.stderr, "memory") {
		t.Errorf("a job that cannot be placed, run locally: exit %d, want 5:\n%s", r.code, r.stderr)
	}
}
