package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/client/checkpoint"
	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/sheaf"
)

// TestReattach: an agent is killed, and started again, while its containers run: they go on as the processes that they
// were, and the servers have nothing of them run again, there or elsewhere (G12).
func TestReattach(t *testing.T) {
	parallel(t)
	program, err := os.ReadFile(waiter)
	if err != nil {
		t.Fatal(err)
	}
	// However long the agent takes to start on a busy machine: this is not about leases.
	c := begin(t, shape{servers: 3, clients: 2, drivers: `"containerd", "mock"`, server: "heartbeat {\n lease = \"1m\"\n }"})
	archive := containerdtest.DockerArchive(t, containerdtest.Image{
		Ref: "sheaf.test/waiter:1", Files: map[string][]byte{"bin/waiter": program}, Entrypoint: []string{"/bin/waiter"},
	})
	each := either(slots, 2*slots)
	total := each * len(c.clients)
	in := filepath.Join(c.shared, "gate")
	if err := os.Mkdir(in, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range total {
		write(t, filepath.Join(in, strconv.Itoa(i)), "")
	}
	c.take("reattach", c.job(fmt.Sprintf(`job "reattach" {
  count   = %d
  backups = false
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  task "wait" {
    driver = "containerd"
    config {
      image = "docker-archive:%s"
    }
    env = {
      FREE    = "0"
      CLUSTER = %q
      NODE    = "${node.name}"
    }
    resources {
      cpu    = %d
      memory = 64
    }
  }
  output "out" {
    path = "/out"
  }
}`, total, in, archive, c.net.name, slots*taskCPU/each)))
	var before map[string]container
	await(t, "all containers run", func() bool {
		before = c.containers(t)
		return len(before) == total
	})
	victim, held := c.clients[0], 0
	// Of those younger than a checkpoint an agent knows nothing when it is started again.
	await(t, "the checkpoint has them", func() bool { return victim.checkpointed() == each })
	for _, x := range before {
		if x.node == victim.name {
			held++
		}
	}
	if held != each {
		t.Fatalf("%d containers run on %s, want %d", held, victim.name, each)
	}
	victim.kill()
	victim.start()
	victim.await()
	c.awaitNodes()
	for partition, was := range before {
		if is := c.containers(t)[partition]; is != was {
			t.Errorf("the container of partition %s was %+v and is %+v", partition, was, is)
		}
	}
	write(t, filepath.Join(in, "gate"), "")
	s := c.ended("reattach")
	if s.Status != sheaf.RunSucceeded || s.Partitions != (sheaf.PartitionCounts{Total: total, Succeeded: total}) {
		t.Errorf("the run ended as %+v", s)
	}
	for _, p := range c.partitions("reattach") {
		if p.Attempt != 1 || p.Losses != 0 || p.Failures != 0 {
			t.Errorf("partition %d did not go on: %+v", p.Index, p)
		}
	}
	c.compareStates()
	t.Logf("%d of %d containers went on while their agent was killed and started", held, total)
}

// checkpointed is how many executions the agent's client has written down for its successor.
func (a *agent) checkpointed() int {
	a.t.Helper()
	path := filepath.Join(a.dir, "client", "client.db")
	once, again := read(a.t, path), read(a.t, path)
	if once != again {
		return 0 // what is being written is not one state
	}
	// The agent holds the file itself.
	copied := filepath.Join(a.c.dir, a.name+".db")
	write(a.t, copied, again)
	damaged, f, err := checkpoint.Open(copied)
	if err := errors.Join(damaged, err); err != nil {
		a.t.Fatalf("read the checkpoint of %s: %v", a.name, err)
	}
	list, _, err := f.Load()
	if err := errors.Join(err, f.Close()); err != nil {
		a.t.Fatalf("read the checkpoint of %s: %v", a.name, err)
	}
	return len(list)
}

// container is a process that runs a partition of a cluster.
type container struct {
	pid     int
	started string // in the kernel's ticks
	node    string
}

// containers are those of the cluster that run now, by partition. Two of one partition fail the test.
func (c *cluster) containers(t *testing.T) map[string]container {
	t.Helper()
	all := map[string]container{}
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("CLUSTER="+c.net.name+"\x00")) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		// What is about to become the container's process is another program yet.
		if err != nil || !bytes.HasPrefix(command, []byte("/bin/waiter\x00")) {
			continue
		}
		env := map[string]string{}
		for _, line := range bytes.Split(text, []byte{0}) {
			name, value, _ := bytes.Cut(line, []byte("="))
			env[string(name)] = string(value)
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		const startTime = 19 // counted from behind the name
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		partition := env["SHEAF_PARTITION_INDEX"]
		if other, ok := all[partition]; ok {
			t.Fatalf("partition %s runs twice, as %d and %d", partition, other.pid, pid)
		}
		all[partition] = container{pid: pid, started: string(fields[startTime]), node: env["NODE"]}
	}
	return all
}
