package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/sheaf"
)

// TestReduceOfDrivers: a reduce is a task of any driver: it sees the merged outputs at their paths, and what it makes is kept.
func TestReduceOfDrivers(t *testing.T) {
	native := goBuild(t, "./testdata/adder")
	program, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	a := startAgent(t)
	for driver, config := range map[string]string{
		"wasm":       `module = "` + goModule(t, "./testdata/adder") + `"`,
		"containerd": `image = "docker-archive:` + containerdtest.DockerArchive(t, containerdtest.Image{Ref: "sheaf.test/adder:1", Files: map[string][]byte{"bin/adder": program}, Entrypoint: []string{"/bin/adder"}}) + `"`,
	} {
		out := filepath.Join(t.TempDir(), driver)
		a.ok("job", "run", "-id", driver, "-o", out, jobspec(t, fmt.Sprintf(`
job "adder" {
  count = 5
  task "number" {
    driver = %[1]q
    config {
      %[2]s
    }
  }
  output "all" {
    path  = "/all"
    merge = "concat"
  }
  reduce "sum" {
    task "add" {
      driver = %[1]q
      config {
        %[2]s
      }
    }
    output "total" {
      path = "/total"
    }
  }
}`, driver, config)))
		if got := read(t, out, "outputs", "total", "sum"); got != "10" {
			t.Errorf("by %s the sum is %q", driver, got)
		}
		if got := a.ok("job", "logs", "-reduce", driver); !strings.Contains(got, "added up 5") {
			t.Errorf("by %s the reduce printed %q", driver, got)
		}
	}
}

// reducing submits a job of six partitions and waits until its reduce runs and waits for the gate; it gives the client there.
func (f *fleet) reducing(run string) (at int) {
	f.t.Helper()
	begun := filepath.Join(f.in, "begun-"+run)
	f.server.ok("job", "run", "-detach", "-id", run, jobspec(f.t, reduceJob(run, 6, "echo > "+begun+"; "+waiting(f.gate()))))
	await(f.t, "the reduce of "+run+" runs", func() bool {
		_, err := os.Stat(begun)
		return err == nil
	})
	r := f.server.status(run).Reduce
	for i := range f.clients {
		if r != nil && f.node("w"+strconv.Itoa(i)).ID == r.Node {
			return i
		}
	}
	f.t.Fatalf("the reduce of %s is %+v", run, r)
	return 0
}

// reduced opens the gate, and holds what the run has made against what it must: once, and whole.
func (f *fleet) reduced(run string) *sheaf.Partition {
	f.t.Helper()
	write(f.t, f.gate(), "")
	f.server.ok("job", "wait", run)
	out := filepath.Join(f.t.TempDir(), run)
	f.server.ok("job", "results", "-o", out, run)
	if got := read(f.t, out, "outputs", "total", "sum"); got != "15\n" {
		f.t.Errorf("the sum of %s is %q", run, got)
	}
	if got := f.server.ok("job", "logs", "-reduce", run); strings.Count(got, "reduced 0 of 1") != 1 {
		f.t.Errorf("the reduce of %s printed %q", run, got)
	}
	if err := os.Remove(f.gate()); err != nil {
		f.t.Fatal(err)
	}
	r := f.server.status(run).Reduce
	if r == nil || r.State != sheaf.PartitionSucceeded || r.Failures != 0 {
		f.t.Fatalf("the reduce of %s is %+v", run, r)
	}
	return r
}

// TestReduceThroughFaults: in mid-reduce its node is drained, its agent is killed and started again, and its node is lost for good
// with the outputs that lie there. Each time it is run again, nothing of it counts as a failure, and one result is kept; a job
// that reads that result has it.
func TestReduceThroughFaults(t *testing.T) {
	f := startFleet(t, 2)
	name := func(i int) string { return "w" + strconv.Itoa(i) }

	at := f.reducing("drained")
	f.server.ok("node", "drain", "-force", name(at))
	if r := f.reduced("drained"); r.Node == f.node(name(at)).ID || r.Attempt < 2 {
		t.Errorf("after the drain the reduce is %+v", r)
	}
	f.server.ok("node", "drain", "-cancel", name(at))

	at = f.reducing("restarted")
	f.clients[at].kill()
	f.clients[at].start()
	if r := f.reduced("restarted"); r.Attempt < 2 { // a start that takes long is a lost node, and then the count begins anew with what is gathered again
		t.Errorf("after the restart the reduce is %+v", r)
	}

	at = f.reducing("lost")
	f.clients[at].kill()
	await(t, name(at)+" is down", func() bool { return f.node(name(at)).Status == sheaf.NodeDown })
	if r := f.reduced("lost"); r.Node == f.node(name(at)).ID || r.Attempt < 2 {
		t.Errorf("without its node the reduce is %+v", r)
	}
	next := func(id string) {
		t.Helper()
		f.server.ok("job", "run", "-q", "-id", id, jobspec(t, shell("next", 1, "cat $SHEAF_INPUT_SUM/sum", `
  input "sum" {
    source = "job://lost/total"
    mount  = "/sum"
  }`)))
		if got := f.server.ok("job", "logs", id); !strings.HasSuffix(got, " 15\n") {
			t.Errorf("%s has read %q", id, got)
		}
	}
	next("next")
	f.clients[at].start()
	await(t, name(at)+" is back", func() bool { return f.node(name(at)).Status == sheaf.NodeReady })
	for _, run := range []string{"drained", "restarted", "lost"} {
		await(t, "one output of the reduce of "+run+" is kept", func() bool {
			n := 0
			for _, a := range f.clients {
				kept, err := filepath.Glob(filepath.Join(a.dataDir, "client", "store", "runs", run, "out", "6.*"))
				if err != nil {
					t.Fatal(err)
				}
				n += len(kept)
			}
			return n == 1
		})
	}
}
