package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/sheaf"
)

// gatedCount partitions make up a run of the restart tests: the first gatedFree end at
// once, then gatedSlots at a time wait for the gate, and the rest waits for those.
const gatedCount, gatedFree, gatedSlots = 12, 4, 4

// gated is a run in progress whose tasks are watched.
type gated struct {
	*witness
	a      *agent
	driver string
	in     string
	unread map[string]int32 // whose last words nobody was there to read
}

// startGated submits the run and waits until some partitions are committed and the slots are full.
func startGated(t *testing.T, driver, config string) *gated {
	t.Helper()
	g := &gated{a: startAgent(t), driver: driver, in: t.TempDir()}
	var files []string
	for i := range gatedCount {
		path := filepath.Join(g.in, strconv.Itoa(i))
		write(t, path, "")
		files = append(files, path)
	}
	var nodes []sheaf.Node
	if err := json.Unmarshal([]byte(g.a.ok("node", "list", "-json")), &nodes); err != nil {
		t.Fatal(err)
	}
	g.witness = watch(t, files...)
	g.a.ok("job", "run", "-detach", "-id", "gated", jobspec(t, fmt.Sprintf(`
job "gated" {
  count = %d
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  task "wait" {
    driver = %q
    config {
      %s
    }
    env = {
      FREE = "%d"
    }
    resources {
      cpu = %d
    }
  }
  output "out" {
    path = "/out"
  }
  retry {
    attempts = 1
  }
}`, gatedCount, g.in, driver, config, gatedFree, nodes[0].Resources.CPU/gatedSlots)))
	g.a.until("gated", "the first partitions are committed and the slots are full", func(s sheaf.RunSummary) bool {
		return s.Partitions.Succeeded == gatedFree && len(g.running()) == gatedSlots
	})
	return g
}

// await polls until good, which processes outside bring about.
func await(t *testing.T, what string, good func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !good(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// settle waits until all that runs is what a restart leaves alone: the agent has written it down, which it does
// with what has run for a while.
func (g *gated) settle() {
	g.t.Helper()
	path := filepath.Join(g.a.dataDir, "client", "client.db")
	copied := filepath.Join(g.t.TempDir(), "client.db")
	await(g.t, "the agent has written down what runs", func() bool {
		text := read(g.t, path)
		if text != read(g.t, path) {
			return false // it is being written
		}
		write(g.t, copied, text)
		_, file, err := checkpoint.Open(copied)
		if err != nil {
			g.t.Fatal(err)
		}
		defer file.Close()
		list, _, err := file.Load()
		if err != nil {
			g.t.Fatal(err)
		}
		runs, found := g.running(), 0
		for _, x := range list {
			if _, ok := runs[strconv.Itoa(int(x.Partition))]; ok {
				found++
			}
		}
		return found == gatedSlots
	})
}

// plugin is the process of the agent's driver, 0 where there is none.
func (a *agent) plugin(driver string) int {
	a.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		a.t.Fatal(err)
	}
	for _, path := range all {
		command, _ := os.ReadFile(path)
		if !strings.HasPrefix(string(command), binary+"\x00plugin\x00"+driver+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if parent(pid) == a.cmd.Process.Pid {
			return pid
		}
	}
	return 0
}

// pipes is how many named pipes of tasks the driver's process has open.
func (a *agent) pipes(driver string) int {
	a.t.Helper()
	n := 0
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", a.plugin(driver)))
	for _, link := range links {
		info, err := os.Stat(link)
		path, linkErr := os.Readlink(link)
		if err == nil && linkErr == nil && info.Mode()&os.ModeNamedPipe != 0 && strings.HasPrefix(path, a.dataDir) {
			n++
		}
	}
	return n
}

// parent is a process's parent, 0 for one that is gone.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

func (g *gated) openGate() { write(g.t, filepath.Join(g.in, "gate"), "") }

// finish opens the gate, waits for the run, and checks what holds whatever was killed: nothing ran
// twice at once, what was committed was not run again, and the result is whole.
func (g *gated) finish(before []sheaf.Partition) []sheaf.Partition {
	t := g.t
	t.Helper()
	g.openGate()
	out := filepath.Join(t.TempDir(), "result")
	g.a.ok("job", "wait", "gated")
	g.a.ok("job", "results", "-o", out, "gated")
	after := g.a.partitions("gated")
	started := g.started()
	g.check()
	stdout := ""
	for i, p := range after {
		name := strconv.Itoa(i)
		this := fmt.Sprintf("%d.%d", i, p.Attempt)
		if got := read(t, out, "outputs", "out", name); got != this+"\n" {
			t.Errorf("partition %d, committed at attempt %d, has output %q", i, p.Attempt, got)
		}
		printed := "begun " + this + "\ndone " + this + "\n"
		got := read(t, out, "partitions", name, "stdout")
		if _, unread := g.unread[name]; got != printed && !(unread && strings.HasPrefix(printed, got)) {
			t.Errorf("partition %d, committed at attempt %d, printed %q", i, p.Attempt, got)
		}
		if said := read(t, out, "partitions", name, "stderr"); got != printed && !strings.Contains(said, "may be missing") {
			t.Errorf("partition %d lost what it printed last, and its stderr does not say so: %q", i, said)
		}
		stdout += got
		if b := before[i]; b.State == sheaf.PartitionSucceeded && (p.Attempt != b.Attempt || !p.Ended.Equal(*b.Ended) || p.Output != b.Output || len(started[name]) != 1) {
			t.Errorf("partition %d was committed, and is run again: before %+v, after %+v, begun by %v", i, b, p, started[name])
		}
		if p.State != sheaf.PartitionSucceeded || p.Failures != 0 {
			t.Errorf("partition %d is %+v", i, p)
		}
	}
	if got := read(t, out, "stdout"); got != stdout {
		t.Errorf("stdout of all is %q, want %q", got, stdout)
	}
	if files, err := os.ReadDir(filepath.Join(out, "outputs", "out")); err != nil || len(files) != gatedCount {
		t.Errorf("the result has %d files, %v", len(files), err)
	}
	return after
}

// checkReruns holds the end against what ran when something was killed.
func (g *gated) checkReruns(after []sheaf.Partition, ran map[string]int32, survive bool) {
	g.t.Helper()
	started := g.started()
	for i, p := range after {
		name := strconv.Itoa(i)
		starts, losses := 1, 0
		if _, was := ran[name]; was && !survive {
			starts, losses = 2, 1
		}
		if len(started[name]) != starts {
			g.t.Errorf("partition %d was begun by %v, want %d of them", i, started[name], starts)
		}
		if _, was := ran[name]; was && (int(p.Attempt) != starts || p.Losses != losses) {
			g.t.Errorf("partition %d ran when its keeper was killed, and is %+v: want attempt %d and %d losses", i, p, starts, losses)
		}
	}
}

// gatedConfigs is the task for each driver.
func gatedConfigs(t *testing.T) map[string]string {
	t.Helper()
	native := goBuild(t, "./testdata/gated")
	program, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	archive := containerdtest.DockerArchive(t, containerdtest.Image{Ref: "sheaf.test/gated:1", Files: map[string][]byte{"bin/gated": program}, Entrypoint: []string{"/bin/gated"}})
	return map[string]string{
		"exec":       `command = "` + native + `"`,
		"wasm":       `module = "` + goModule(t, "./testdata/gated") + `"`,
		"containerd": `image = "docker-archive:` + archive + `"`,
	}
}

// TestKills: the agent, or the process of a driver, or containerd is killed in mid-run. The run completes; what
// was committed is not run again; containers go on as the same processes; programs and WebAssembly
// tasks are ended before they are run again; the result is whole.
func TestKills(t *testing.T) {
	configs := gatedConfigs(t)
	for _, driver := range []string{"exec", "wasm", "containerd"} {
		for _, victim := range []string{"agent", "plugin", "containerd"} {
			if victim == "containerd" && driver != victim {
				continue
			}
			t.Run(driver+" "+victim, func(t *testing.T) {
				g := startGated(t, driver, configs[driver])
				survive := driver == "containerd"
				if survive {
					g.settle()
				}
				before, ran := g.a.partitions("gated"), g.running()
				g.killed(victim)
				if survive {
					g.stillRun(ran)
				} else {
					g.refilled(ran)
				}
				g.checkReruns(g.finish(before), ran, survive)
			})
		}
	}
}

// killed kills and, where nobody else does, starts the victim again.
func (g *gated) killed(victim string) {
	g.t.Helper()
	switch victim {
	case "agent":
		g.a.kill()
		g.a.start()
		return
	case "containerd":
		daemon.Kill()
		if err := daemon.Run(); err != nil {
			g.t.Fatal(err)
		}
		return
	}
	pid := g.a.plugin(g.driver)
	if pid == 0 {
		g.t.Fatalf("the agent has no process of driver %s", g.driver)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
	await(g.t, "the driver's process is gone", func() bool { return parent(pid) == 0 })
}

// refilled waits until what ran has ended and others, or the same anew, run in its place.
func (g *gated) refilled(ran map[string]int32) {
	g.t.Helper()
	await(g.t, "the slots are full again", func() bool {
		now := g.running()
		for name, pid := range ran {
			if now[name] == pid {
				return false
			}
		}
		return len(now) == gatedSlots
	})
}

// stillRun waits until the driver reads the containers' output again, and checks
// that they are the processes they were.
func (g *gated) stillRun(ran map[string]int32) {
	g.t.Helper()
	await(g.t, "the driver reads the output of the containers", func() bool { return g.a.pipes(g.driver) >= 2*len(ran) })
	now := g.running()
	for name, pid := range ran {
		if now[name] != pid {
			g.t.Errorf("partition %s ran as process %d, now as %d", name, pid, now[name])
		}
		if err := syscall.Kill(int(pid), 0); err != nil {
			g.t.Errorf("process %d of partition %s: %v", pid, name, err)
		}
	}
}

// TestEndsWhileDead: containers that end while no agent is there to see it are not run again, and their
// outputs are whole. What they print meanwhile has no reader and may be lost.
func TestEndsWhileDead(t *testing.T) {
	g := startGated(t, "containerd", gatedConfigs(t)["containerd"])
	g.settle()
	before, ran := g.a.partitions("gated"), g.running()
	g.unread = ran
	g.a.kill()
	g.openGate()
	await(t, "the containers have ended", func() bool { return len(g.running()) == 0 })
	g.a.start()
	g.checkReruns(g.finish(before), ran, true)
}

// TestKillYoungContainers: containers that had just begun when the agent was killed are taken up or
// ended, and never run beside their successor.
func TestKillYoungContainers(t *testing.T) {
	g := startGated(t, "containerd", gatedConfigs(t)["containerd"])
	before := g.a.partitions("gated")
	g.killed("agent")
	g.finish(before)
}
