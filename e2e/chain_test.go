package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// chainJobs are two jobs, of which the second reads what the first has made: a file for each input, and one
// that all partitions have written to.
func chainJobs(in string) (first, second string) {
	task := func(name, script string) string {
		return `
  task "` + name + `" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", ` + fmt.Sprintf("%q", strings.ReplaceAll(script, "${", "$${")) + `]
    }
  }`
	}
	first = fmt.Sprintf(`
job "first" {
  reuse = true
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob = "/*"
  }%s
  output "out" {
    path = "/out"
  }
  output "joined" {
    path  = "/joined"
    merge = "concat"
  }
}
`, in, task("shout", `for f in $SHEAF_INPUT_IN/*; do b=${f##*/}; mkdir -p $SHEAF_OUTPUT_OUT/d; tr a-z A-Z < $f > $SHEAF_OUTPUT_OUT/d/$b; echo "$b was $(cat $f)" > $SHEAF_OUTPUT_JOINED/all; done`))
	second = fmt.Sprintf(`
job "second" {
  reuse = true
  input "words" {
    source = "job://first/out"
    mount  = "/words"
  }
  split {
    glob = "/d/*"
  }%s
  output "out" {
    path = "/out"
  }
}
`, task("twice", `for f in $SHEAF_INPUT_WORDS/d/*; do cat $f $f > $SHEAF_OUTPUT_OUT/${f##*/}; done`))
	return first, second
}

// TestChain: a job reads the result of another, whose partitions ran on several nodes; which run that is was decided
// when it was submitted. When a file changes, both run just what it concerns.
func TestChain(t *testing.T) {
	const n = 12
	f := startFleet(t, 2)
	for i := range n {
		write(t, filepath.Join(f.in, fmt.Sprintf("%02d", i)), fmt.Sprintf("word %d\n", i))
	}
	text1, text2 := chainJobs(f.in)
	first, second := jobspec(t, text1), jobspec(t, text2)
	a := f.server

	if r := a.cli("job", "run", second); r.code != 2 || !strings.Contains(r.stderr, `no run or job "first"`) {
		t.Errorf("before there is a result: exit %d\n%s", r.code, r.stderr)
	}
	a.ok("job", "run", "-id", "first-1", first)
	if r := a.cli("job", "plan", jobspec(t, strings.Replace(text2, "first/out", "first/outs", 1))); r.code != 2 || !strings.Contains(r.stderr, `it has "out", "joined"`) {
		t.Errorf("an output that is not there: exit %d\n%s", r.code, r.stderr)
	}
	if got := a.ok("job", "plan", second); !strings.Contains(got, "result of run first-1") || !strings.Contains(got, fmt.Sprintf("%d partitions", n)) {
		t.Errorf("the plan says:\n%s", got)
	}
	want := func(word7 string) (text string) {
		for i := range n {
			word := fmt.Sprintf("WORD %d\n", i)
			if i == 7 {
				word = word7
			}
			text += word + word
		}
		return text
	}
	chain := func(id, word7 string) sheaf.PartitionCounts {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "result")
		a.ok("job", "run", "-id", id, "-o", dir, second)
		var got strings.Builder
		for i := range n {
			got.WriteString(read(t, dir, "outputs", "out", fmt.Sprintf("%02d", i)))
		}
		if got.String() != want(word7) {
			t.Errorf("%s has made %q", id, got.String())
		}
		return a.status(id).Partitions
	}
	if p := chain("second-1", "WORD 7\n"); p.Succeeded != n {
		t.Errorf("the first run of the second job: %+v", p)
	}
	if got := a.ok("job", "inspect", "second-1"); !strings.Contains(got, "job://first-1/out") {
		t.Errorf("the run does not say what it reads:\n%s", got)
	}

	write(t, filepath.Join(f.in, "07"), "other 7\n")
	a.ok("job", "run", "-id", "first-2", first)
	if p := a.status("first-2").Partitions; p.Reused != n-1 || p.Succeeded != 1 {
		t.Errorf("one file of the first job's has changed: %+v", p)
	}
	if p := chain("second-2", "OTHER 7\n"); p.Reused != n-1 || p.Succeeded != 1 {
		t.Errorf("one file of the second job's has changed: %+v", p)
	}

	// A file that all partitions have written to is read from all of them, by a task without a split.
	a.ok("job", "run", "-id", "join", "-o", filepath.Join(t.TempDir(), "join"), jobspec(t, shell("join", 1, `cat $SHEAF_INPUT_ALL/all`, `
  input "all" {
    source = "job://first/joined"
    mount  = "/all"
  }`)))
	if got := a.ok("job", "logs", "join"); strings.Count(got, " was ") != n || !strings.Contains(got, "07 was other 7") {
		t.Errorf("the joined file is\n%s", got)
	}

	// What somebody reads stays; what was read by a run that is over may go.
	held := jobspec(t, shell("held", 1, waiting(f.gate()), `
  input "all" {
    source = "job://first-1/joined"
    mount  = "/all"
  }`))
	a.ok("job", "run", "-detach", "-id", "held", held)
	if r := a.cli("job", "delete", "first-1"); r.code == 0 || !strings.Contains(r.stderr, "held reads the result") && !strings.Contains(r.stderr, "taken over") {
		t.Errorf("what is read was deleted: exit %d\n%s", r.code, r.stderr)
	}
	a.ok("job", "stop", "held")
}
