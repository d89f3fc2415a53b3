package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// fleet is a server and clients, each an agent of its own with a data directory of its own.
type fleet struct {
	t       *testing.T
	server  *agent
	clients []*agent
	gossip  string
	in      string // which all may read
}

// startFleet starts a server that makes what a lost node had anew soon, and n clients named w0, w1, … with two slots each. The
// lease is what everybody has: with a shorter one a machine that is too busy loses nodes of which tests say that they were not lost.
func startFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{t: t, gossip: freePort(t), in: t.TempDir()}
	f.server = startDaemon(t, "name = \"server\"\n"+portsBlock(t, f.gossip)+`
server {
  enabled = true
  heartbeat {
    outputs = "1s"
  }
}
`)
	for i := range n {
		f.clients = append(f.clients, startDaemon(t, f.config("w"+strconv.Itoa(i))))
	}
	for i := range n { // so that what is submitted goes to all of them
		name := "w" + strconv.Itoa(i)
		await(t, name+" takes work", func() bool {
			got := f.node(name)
			return got.Status == sheaf.NodeReady && !slices.ContainsFunc(got.Drivers, func(d sheaf.NodeDriver) bool { return !d.Healthy })
		})
	}
	return f
}

func (f *fleet) config(name string) string {
	return fmt.Sprintf("name = %q\njoin = [\"127.0.0.1:%s\"]\n%s", name, f.gossip, portsBlock(f.t, freePort(f.t))) + fmt.Sprintf(`
client {
  enabled = true
  drivers = ["exec"]
  slots   = 2
  file_root %q {
    shared   = true
    writable = true
  }
}
`, f.in)
}

// node is a node as the server sees it, by name.
func (f *fleet) node(name string) sheaf.Node {
	f.t.Helper()
	var n sheaf.Node
	if err := json.Unmarshal([]byte(f.server.ok("node", "status", "-json", name)), &n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// writing is a job of n partitions that each write a line and say it; those whose number is at least held wait for the gate.
func (f *fleet) writing(name string, n, held int) string {
	return jobspec(f.t, shell(name, n, fmt.Sprintf(`if [ $SHEAF_PARTITION_INDEX -ge %d ]; then %s; fi
echo "said by $SHEAF_PARTITION_INDEX"
echo "written by $SHEAF_PARTITION_INDEX" > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX`, held, waiting(f.gate())), `
  backups = false
  input "in" {
    source = "file://`+f.in+`"
    mount  = "/in"
  }
  output "out" {
    path = "/out"
  }
`))
}

func (f *fleet) gate() string { return filepath.Join(f.in, "gate") }

// check downloads a result and holds it against what the partitions wrote.
func (f *fleet) check(run string, n int) {
	f.t.Helper()
	out := filepath.Join(f.t.TempDir(), "result")
	f.server.ok("job", "results", "-o", out, run)
	var said strings.Builder
	for i := range n {
		if got, want := read(f.t, out, "outputs", "out", strconv.Itoa(i)), fmt.Sprintf("written by %d\n", i); got != want {
			f.t.Errorf("partition %d wrote %q", i, got)
		}
		fmt.Fprintf(&said, "said by %d\n", i)
	}
	if got := read(f.t, out, "stdout"); got != said.String() {
		f.t.Errorf("stdout is %q", got)
	}
}

// on are the partitions whose latest execution is on a node.
func (f *fleet) on(run, name string) (list []sheaf.Partition) {
	f.t.Helper()
	id := f.node(name).ID
	for _, p := range f.server.partitions(run) {
		if p.Node == id {
			list = append(list, p)
		}
	}
	return list
}

// TestDrain: a node is emptied while a run is under way. What runs there ends there, nothing new begins,
// the outputs of this and of an earlier run move, and when the node is gone for good nothing is missing.
func TestDrain(t *testing.T) {
	f := startFleet(t, 3)
	write(t, f.gate(), "")
	f.server.ok("job", "run", "-q", "-id", "earlier", f.writing("earlier", 12, 12))
	if err := os.Remove(f.gate()); err != nil {
		t.Fatal(err)
	}
	f.server.ok("job", "run", "-detach", "-id", "live", f.writing("live", 24, 8))
	busy := func(name string) (n int) {
		for _, p := range f.on("live", name) {
			if p.State == sheaf.PartitionAssigned || p.State == sheaf.PartitionRunning {
				n++
			}
		}
		return n
	}
	victim := -1
	await(t, "a node runs as much as it can and has more", func() bool {
		for i := range f.clients {
			if name := "w" + strconv.Itoa(i); busy(name) > 2 && len(f.on("earlier", name)) > 0 {
				victim = i
			}
		}
		return victim >= 0
	})
	name := "w" + strconv.Itoa(victim)
	f.server.ok("node", "drain", "-no-wait", name)
	await(t, "what "+name+" has not begun is elsewhere", func() bool { return busy(name) == 2 })
	if got := f.server.ok("node", "status", name); !strings.Contains(got, "draining: 2 executions") {
		t.Errorf("while two run the status is\n%s", got)
	}
	if r := f.server.cli("node", "eligibility", "-enable", name); r.code == 0 || !strings.Contains(r.stderr, "-cancel") {
		t.Errorf("a node that is drained is made eligible: exit %d\n%s", r.code, r.stderr)
	}
	write(t, f.gate(), "")
	f.server.ok("node", "drain", name)
	f.server.ok("job", "wait", "live")
	for _, run := range []string{"earlier", "live"} {
		if on := f.on(run, name); len(on) > 0 {
			t.Errorf("%d outputs of run %s lie on %s still", len(on), run, name)
		}
	}
	for _, p := range f.server.partitions("live") {
		if p.Failures != 0 || p.Losses != 0 {
			t.Errorf("partition %d paid for it: %+v", p.Index, p)
		}
	}
	if r := f.server.cli("node", "purge", name); r.code == 0 {
		t.Error("a node that is ready is forgotten")
	}
	f.clients[victim].kill()
	if err := os.RemoveAll(f.clients[victim].dataDir); err != nil {
		t.Fatal(err)
	}
	await(t, name+" is down", func() bool { return f.node(name).Status == sheaf.NodeDown })
	f.server.ok("node", "purge", name)
	if r := f.server.cli("node", "status", name); r.code == 0 {
		t.Error("a node that was forgotten is there")
	}
	f.check("earlier", 12)
	f.check("live", 24)
}

// TestDrainForced: what runs on a node is ended at once and run elsewhere, and counts against no retries. A node whose
// emptying is cancelled is used again.
func TestDrainForced(t *testing.T) {
	f := startFleet(t, 2)
	f.server.ok("job", "run", "-detach", "-id", "held", f.writing("held", 4, 0))
	f.server.until("held", "all slots are full", func(s sheaf.RunSummary) bool { return s.Partitions.Running == 4 })
	f.server.ok("node", "drain", "-force", "w0")
	if on := f.on("held", "w0"); len(on) > 0 {
		t.Errorf("on w0 are %+v", on)
	}
	if got := f.node("w0"); got.Eligible || got.Drain == nil || got.Drain.Done == nil {
		t.Errorf("w0 is %+v", got)
	}
	f.server.ok("node", "drain", "-cancel", "w0")
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "held")
	f.server.ok("job", "run", "-detach", "-id", "again", f.writing("again", 4, 4))
	f.server.ok("job", "wait", "again")
	if on := f.on("again", "w0"); len(on) == 0 {
		t.Error("w0 is not used again")
	}
	for _, p := range f.server.partitions("held") {
		if p.Failures != 0 || p.Losses != 0 {
			t.Errorf("partition %d paid for it: %+v", p.Index, p)
		}
	}
	f.check("held", 4)
}

// TestLackedOutputs: a node that finds a record damaged when the merge reads it says so, and it is made again; what
// is found gone after the run is over is counted, and made again when a person asks.
func TestLackedOutputs(t *testing.T) {
	f := startFleet(t, 2)
	f.server.ok("job", "run", "-detach", "-id", "r", f.writing("r", 8, 7))
	f.server.until("r", "all but one are committed", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded == 7 })
	for i, a := range f.clients {
		if len(f.on("r", "w"+strconv.Itoa(i))) == 0 {
			continue
		}
		segments, err := filepath.Glob(filepath.Join(a.dataDir, "client", "store", "runs", "r", "seg-*"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("no segment: %v", err)
		}
		b := []byte(read(t, segments[0]))
		at := strings.Index(string(b), `"output":"out"`) // in the first record's manifest
		if at < 0 {
			t.Fatal("no manifest is found")
		}
		b[at+3] ^= 0x20
		if err := os.WriteFile(segments[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "r")
	again := 0
	for _, p := range f.server.partitions("r") {
		if p.Attempt > 1 {
			again++
		}
		if p.Failures != 0 {
			t.Errorf("partition %d failed: %+v", p.Index, p)
		}
	}
	if again == 0 {
		t.Error("nothing was made again")
	}
	f.check("r", 8)

	victim := f.server.partitions("r")[3]
	gone := 0
	for _, a := range f.clients {
		dir := filepath.Join(a.dataDir, "client", "store", "runs", "r", "out", fmt.Sprintf("3.%d", victim.Attempt))
		if _, err := os.Stat(dir); err == nil {
			gone++
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	if gone != 1 {
		t.Fatalf("output 3 lay on %d nodes", gone)
	}
	if r := f.server.cli("job", "results", "-o", filepath.Join(t.TempDir(), "result"), "r"); r.code == 0 {
		t.Fatal("a result without one of its outputs is downloaded")
	}
	await(t, "the loss is counted", func() bool { return f.server.status("r").Unreached == 1 })
	f.server.ok("job", "retry", "-lost", "r")
	f.server.ok("job", "wait", "r")
	f.check("r", 8)
	if got := f.server.status("r"); got.Unreached != 0 || got.Generation != 2 {
		t.Errorf("afterwards the run is %+v", got)
	}
}

// TestLostNodeOutputs: a merge that needs what lies on a node that is gone waits for the grace and has it made again.
func TestLostNodeOutputs(t *testing.T) {
	f := startFleet(t, 2)
	f.server.ok("job", "run", "-detach", "-id", "r", f.writing("r", 8, 6))
	f.server.until("r", "all but two are committed", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded == 6 })
	if len(f.on("r", "w0")) == 0 {
		t.Fatal("w0 has nothing")
	}
	f.clients[0].kill()
	await(t, "w0 is down", func() bool { return f.node("w0").Status == sheaf.NodeDown })
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "r")
	f.check("r", 8)
	f.clients[0].start()
}

// TestDeleted: what is deleted goes from every node's disk, also where the node was away meanwhile.
func TestDeleted(t *testing.T) {
	f := startFleet(t, 2)
	write(t, f.gate(), "")
	dirs := func() (n int) {
		for _, a := range f.clients {
			if _, err := os.Stat(filepath.Join(a.dataDir, "client", "store", "runs", "r")); err == nil {
				n++
			}
		}
		return n
	}
	f.server.ok("job", "run", "-q", "-id", "r", f.writing("r", 8, 8))
	if dirs() != 2 {
		t.Fatalf("%d nodes keep something of the run", dirs())
	}
	f.clients[1].kill()
	f.server.ok("job", "delete", "r")
	await(t, "the node that is there has deleted it", func() bool { return dirs() == 1 })
	f.clients[1].start()
	await(t, "the node that was away has deleted it", func() bool { return dirs() == 0 })
}

// TestTwoOfOneNode: of two live nodes with one name the second is refused and says why; so is a second agent with
// a copy of the first's data directory.
func TestTwoOfOneNode(t *testing.T) {
	f := startFleet(t, 1)
	begin := func(config, dataDir string) *agent {
		a := &agent{t: t, dataDir: dataDir, home: t.TempDir()}
		file := filepath.Join(t.TempDir(), "agent.hcl")
		write(t, file, fmt.Sprintf("data_dir = %q\n%s", dataDir, config))
		a.args = []string{"start", "-config", file}
		return a
	}
	await(t, "w0 is there", func() bool { return f.node("w0").Status == sheaf.NodeReady })
	copied := t.TempDir()
	f.clients[0].stop()
	if err := os.CopyFS(filepath.Join(copied, "client"), os.DirFS(filepath.Join(f.clients[0].dataDir, "client"))); err != nil {
		t.Fatal(err)
	}
	f.clients[0].start()
	f.server.ok("job", "run", "-detach", "-id", "held", f.writing("held", 2, 0))
	f.server.until("held", "both run", func(s sheaf.RunSummary) bool { return s.Partitions.Running == 2 })

	for what, x := range map[string]struct{ name, dir, want string }{
		"the same name": {"w0", t.TempDir(), "another node is called w0"},
		"the same data": {"w1", copied, "another agent runs with this node's identity"},
	} {
		a := begin(f.config(x.name), x.dir)
		a.begin()
		await(t, what+" is refused", func() bool { return strings.Contains(a.stderr.String(), x.want) })
		a.stop()
	}
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "held")
	for _, p := range f.server.partitions("held") {
		if p.Attempt != 1 {
			t.Errorf("partition %d was begun again: %+v", p.Index, p)
		}
	}
}

// TestFrozen: an agent and all its children stop for longer than its lease and go on. What it had has run elsewhere by then: each
// partition is committed once, and what the thawed one made is deleted.
func TestFrozen(t *testing.T) {
	f := startFleet(t, 2)
	f.server.ok("job", "run", "-detach", "-id", "r", f.writing("r", 4, 0))
	f.server.until("r", "all run", func(s sheaf.RunSummary) bool { return s.Partitions.Running == 4 })
	had := f.on("r", "w0")
	if len(had) == 0 {
		t.Fatal("w0 runs nothing")
	}
	thaw := freeze(t, f.clients[0].cmd.Process.Pid)
	await(t, "w0 is down", func() bool { return f.node("w0").Status == sheaf.NodeDown })
	write(t, f.gate(), "")
	f.server.ok("job", "wait", "r")
	thaw()
	await(t, "w0 is back", func() bool { return f.node("w0").Status == sheaf.NodeReady })
	await(t, "what the thawed made is deleted", func() bool {
		left, err := filepath.Glob(filepath.Join(f.clients[0].dataDir, "client", "store", "runs", "r", "out", "*"))
		return err == nil && len(left) == 0
	})
	for _, p := range f.server.partitions("r") {
		if p.State != sheaf.PartitionSucceeded || p.Node != f.node("w1").ID {
			t.Errorf("partition %d is %+v", p.Index, p)
		}
	}
	for _, p := range had {
		if now := f.server.partitions("r")[p.Index]; now.Attempt < 2 || now.Losses != 1 {
			t.Errorf("partition %d, which was frozen, is %+v", p.Index, now)
		}
	}
	f.check("r", 4)
}

// freeze stops a process and all below it, and returns what lets them go on, which the test's end does otherwise. A child may end
// or begin another before its turn comes: stopping is done when a pass over the tree meets nothing new.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	frozen := map[int]bool{}
	thaw = func() {
		for pid := range frozen {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	for before := -1; before < len(frozen); {
		before = len(frozen)
		for _, pid := range descendants(pid) {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err == nil {
				frozen[pid] = true
			} else if !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
	}
	return thaw
}

// descendants are a process and all below it.
func descendants(pid int) []int {
	list := []int{pid}
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, c := range children {
		b, err := os.ReadFile(c)
		if err != nil {
			continue
		}
		for _, s := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(s); err == nil {
				list = append(list, descendants(child)...)
			}
		}
	}
	return list
}
