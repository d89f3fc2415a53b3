package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// reuseJob joins the files of each partition to one, named by the first. Tasks whose first file is
// behind `upTo` wait for the gate.
func reuseJob(in, gate, upTo string) string {
	return fmt.Sprintf(`
job "sums" {
  reuse = true
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob       = "/*"
    batch_size = 100
    stable     = true
  }
  task "join" {
    driver = "exec"
    config {
      command = "/bin/sh"
      args    = ["-c", "cd $SHEAF_INPUT_IN; set -- *; echo $1 $#; until [ $1 '<' %s ] || [ -e %s ]; do sleep 0.05; done; cat \"$@\" > $SHEAF_OUTPUT_OUT/$1"]
    }
  }
  output "out" {
    path = "/out"
  }
}
`, in, upTo, gate)
}

// TestReuse: of 10,000 files one comes, one changes and one goes, and just the partitions concerned run; the
// result is that of a run from nothing, byte for byte. What a cancelled run has done counts.
func TestReuse(t *testing.T) {
	a := startAgent(t)
	in, gate := t.TempDir(), filepath.Join(t.TempDir(), "gate")
	for i := range 10_000 {
		write(t, filepath.Join(in, fmt.Sprintf("%05d", i)), fmt.Sprintf("file %d\n", i))
	}
	spec := jobspec(t, reuseJob(in, gate, "03000"))

	a.ok("job", "run", "-detach", "-id", "half", spec)
	a.until("half", "what does not wait is done", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded >= 20 })
	a.ok("job", "stop", "half")
	write(t, gate, "")
	done := a.status("half").Partitions.Succeeded

	run := func(id string, args ...string) (result map[string]string, p sheaf.PartitionCounts) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "result")
		a.ok(append([]string{"job", "run", "-id", id, "-o", dir, spec}, args...)...)
		result = map[string]string{"stdout": read(t, dir, "stdout")}
		for path, text := range contents(t, filepath.Join(dir, "outputs")) {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			result[rel] = text
		}
		return result, a.status(id).Partitions
	}
	first, p := run("first")
	if p.Reused < done || p.Reused+p.Succeeded != p.Total || p.Total < 80 {
		t.Errorf("after a run that was cancelled with %d done: %+v", done, p)
	}
	anew, p := run("anew", "-rerun")
	if p.Succeeded != p.Total {
		t.Errorf("-rerun has taken something over: %+v", p)
	}
	if diff := same(anew, first); diff != "" {
		t.Errorf("beside a run from nothing:\n%s", diff)
	}

	if err := os.Remove(filepath.Join(in, "02500")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(in, "05000"), "this one has changed\n")
	write(t, filepath.Join(in, "07500a"), "this one is new\n")
	if got := a.ok("job", "plan", "-diff", spec); !strings.Contains(got, "new: /in/07500a") || !strings.Contains(got, "changed: /in/05000") || !strings.Contains(got, "taken over from run anew") {
		t.Errorf("the plan does not say what runs, and why:\n%s", got)
	}
	second, p := run("second")
	if p.Succeeded < 1 || p.Succeeded > 6 || p.Reused+p.Succeeded != p.Total {
		t.Errorf("one file came, one changed, one went: %+v", p)
	}
	anew, _ = run("anew2", "-rerun")
	if diff := same(anew, second); diff != "" {
		t.Errorf("after the changes, beside a run from nothing:\n%s", diff)
	}
	if diff := same(first, second); strings.Count(diff, "\n") > 8 || diff == "" {
		t.Errorf("the changes lead to other changes:\n%s", diff)
	}

	third, p := run("third")
	if p.Reused != p.Total {
		t.Errorf("nothing has changed: %+v", p)
	}
	if diff := same(second, third); diff != "" {
		t.Errorf("nothing has changed but:\n%s", diff)
	}
	if a.status("third").ResultSHA == "" || a.status("third").ResultSHA != a.status("second").ResultSHA {
		t.Errorf("nothing has changed, and the results are %q and %q", a.status("second").ResultSHA, a.status("third").ResultSHA)
	}
	for _, x := range a.partitions("third") {
		if x.MadeBy == nil || x.MadeBy.Run == "second" && x.MadeBy.Partition != x.Index || x.State != sheaf.PartitionReused || x.Node == "" {
			t.Fatalf("partition %d is %+v, made by %+v", x.Index, x, x.MadeBy)
		}
	}
	if got := a.ok("partition", "status", "third/0"); !strings.Contains(got, "taken over") {
		t.Errorf("partition status does not say where it comes from:\n%s", got)
	}
	line, _, _ := strings.Cut(third["stdout"], "\n")
	if got := a.ok("job", "logs", "-partition", "0", "third"); line == "" || !strings.Contains(got, line) {
		t.Errorf("the log of a reused partition is %q", got)
	}
	// Whoever has outputs of others keeps them.
	maker := string(a.partitions("third")[0].MadeBy.Run)
	if r := a.cli("job", "delete", maker); r.code == 0 || !strings.Contains(r.stderr, "taken over") {
		t.Errorf("a run that others hold is deleted: exit %d\n%s", r.code, r.stderr)
	}
}

// TestReuseOverNodes: outputs that two nodes have are taken over and published again, without running anything; when
// one of them is gone, just what it had runs again, and what is published is the same.
func TestReuseOverNodes(t *testing.T) {
	const partitions, batch = 20, 2
	f := startFleet(t, 2)
	want := map[string]string{}
	for i := range partitions * batch {
		name, content := fmt.Sprintf("%02d", i), fmt.Sprintf("file %d\n", i)
		write(t, filepath.Join(f.in, "files", name), content)
		want[name] = digestOf(content)
	}
	job := func(id string) (spec, to string) {
		to = filepath.Join(f.in, "published-"+id)
		return jobspec(t, fmt.Sprintf(`
job "over" {
  reuse   = true
  backups = false
  input "in" {
    source = "file://%s/files"
    mount  = "/in"
  }
  split {
    glob       = "/*"
    batch_size = %d
  }
  task "copy" {
    driver = "exec"
    config {
      command = "/bin/sh"
      args    = ["-c", "until [ -e %s ]; do sleep 0.05; done; cp $SHEAF_INPUT_IN/* $SHEAF_OUTPUT_OUT/"]
    }
  }
  output "out" {
    path = "/out"
  }
  publish {
    to = "file://%s"
  }
}
`, f.in, batch, f.gate(), to)), to
	}
	spec, to := job("first")
	f.server.ok("job", "run", "-detach", "-id", "first", spec)
	await(t, "both nodes have some of it", func() bool { return len(f.on("first", "w0")) > 0 && len(f.on("first", "w1")) > 0 })
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "first")
	checkPublished(t, to, "first", want)

	again := func(id string, ran int) {
		t.Helper()
		spec, to := job(id)
		f.server.ok("job", "run", "-id", id, spec)
		if p := f.server.status(id).Partitions; p.Total != partitions || p.Succeeded != ran || p.Reused != partitions-ran {
			t.Errorf("%s: %+v, and %d should have run", id, p, ran)
		}
		checkPublished(t, to, id, want)
	}
	again("second", 0)
	lost := len(f.on("first", "w0"))
	f.clients[0].kill()
	await(t, "the node is given up", func() bool { return f.node("w0").Status == sheaf.NodeDown })
	again("third", lost)
	again("fourth", 0)
}

// TestReuseOfCounts: without a split the partitions are numbers, and each reads all inputs.
func TestReuseOfCounts(t *testing.T) {
	a := startAgent(t)
	in := t.TempDir()
	write(t, filepath.Join(in, "word"), "one\n")
	said := filepath.Join(t.TempDir(), "said")
	job := func(count int, inputs string) string {
		return jobspec(t, shell("counted", count, `echo $SHEAF_PARTITION_INDEX >> `+said+`
[ $SHEAF_PARTITION_INDEX != 2 ] || [ -e `+said+`.may ] || exit 1
echo "$SHEAF_PARTITION_INDEX of $SHEAF_PARTITION_COUNT $(cat ${SHEAF_INPUT_IN:-/dev}/word 2> /dev/null)" > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX`, `
  reuse = true
  retry {
    attempts = 1
  }
  output "out" {
    path = "/out"
  }`+inputs))
	}
	input := fmt.Sprintf(`
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }`, in)
	run := func(id, spec string, code, reused int) {
		t.Helper()
		if r := a.cli("job", "run", "-id", id, spec); r.code != code {
			t.Fatalf("%s: exit %d\n%s%s", id, r.code, r.stdout, r.stderr)
		}
		if p := a.status(id).Partitions; p.Reused != reused || p.Total != p.Reused+p.Succeeded+p.Failed {
			t.Errorf("%s has taken over %d, want %d: %+v", id, p.Reused, reused, p)
		}
	}
	run("first", job(5, ""), 3, 0)
	write(t, said+".may", "")
	if got := a.ok("job", "plan", "-diff", job(5, "")); !strings.Contains(got, "taken over from run first") {
		t.Errorf("the plan says:\n%s", got)
	}
	run("second", job(5, ""), 0, 4)
	explains := func(partition, says string) {
		t.Helper()
		if got := a.ok("job", "explain", partition); !strings.Contains(got, says) {
			t.Errorf("%s is explained so:\n%s", partition, got)
		}
	}
	explains("first/0", "not taken over from an earlier run: no earlier run")
	explains("second/2", "failed before: partition 2 of run first")
	explains("second/1", "taken over from partition 1 of run first")
	run("third", job(5, ""), 0, 5)
	if got := a.ok("job", "plan", "-diff", job(6, "")); !strings.Contains(got, "changed count: it was 5") {
		t.Errorf("the plan of one more says:\n%s", got)
	}
	run("more", job(6, ""), 0, 0)
	explains("more/0", "changed count: it was 5 in run third")
	run("reads", job(6, input), 0, 0)
	explains("reads/0", "changed task since run more: input.in.mount")
	run("again", job(6, input), 0, 6)
	write(t, filepath.Join(in, "word"), "other\n")
	run("changed", job(6, input), 0, 0)
	explains("changed/3", "changed: /in")
	run("anew", job(6, input), 0, 6)
	out := filepath.Join(t.TempDir(), "out")
	a.ok("job", "results", "-o", out, "changed")
	if got := read(t, out, "outputs", "out", "5"); got != "5 of 6 other\n" {
		t.Errorf("partition 5 has made %q", got)
	}
	a.ok("job", "results", "-o", out, "third")
	if got := read(t, out, "outputs", "out", "4"); got != "4 of 5 \n" {
		t.Errorf("the partition that was taken over has made %q", got)
	}
	if lines := strings.Fields(read(t, said)); len(lines) != 5+1+6+6+6 {
		t.Errorf("tasks ran %d times: %v", len(lines), lines)
	}
}
