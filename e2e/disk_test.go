package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// smallDisk is a file system of its own, in memory.
func smallDisk(t *testing.T, mib int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mount a file system of %d MiB: %v", mib, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestDiskOfAClient: where a client's disk gets fuller than it may, the oldest runs that are over go
// with their outputs, as many as it takes. What is under way is not touched, nor what is newer.
func TestDiskOfAClient(t *testing.T) {
	// All runs together fit on the disk, however late what is over goes, and a third of it is full with three of them and the live one.
	const disk, full, each, runs = 96, 33, 8, 7 // MiB, percent, MiB, and how many
	gossip, dir := freePort(t), smallDisk(t, disk)
	server := startDaemon(t, "name = \"server\"\n"+portsBlock(t, gossip)+`
server {
  enabled = true
  retention {
    least = "1ms"
  }
}
`)
	startDaemonIn(t, dir, fmt.Sprintf("name = \"worker\"\njoin = [\"127.0.0.1:%s\"]\n%s", gossip, portsBlock(t, freePort(t)))+fmt.Sprintf(`
client {
  enabled = true
  drivers = ["exec"]
  resources {
    disk = "1GiB"
  }
  gc {
    disk_usage = %d
    interval   = "200ms"
  }
}
`, full))
	gate := filepath.Join(t.TempDir(), "gate")
	writing := func(name string, n int) string {
		script := fmt.Sprintf("if [ $SHEAF_PARTITION_INDEX = 1 ]; then %s; fi; head -c %d /dev/zero > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX", waiting(gate), each<<20)
		return jobspec(t, shell(name, n, script, "output \"out\" {\n path = \"/out\"\n }\n"))
	}
	server.ok("job", "run", "-q", "-detach", "-id", "live", writing("live", 2))
	await(t, "the live run has an output", func() bool {
		return len(server.partitions("live")) == 2 && server.partitions("live")[0].State == sheaf.PartitionSucceeded
	})
	var all []string
	for i := range runs {
		id := fmt.Sprintf("r%d", i)
		all = append(all, id)
		server.ok("job", "run", "-q", "-id", id, writing(id, 1))
	}
	left := func() (list []string) {
		for _, id := range strings.Fields(server.ok("job", "list", "-q")) {
			if id != "live" {
				list = append(list, id)
			}
		}
		slices.Sort(list)
		return list
	}
	await(t, "the disk has room again", func() bool {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks-st.Bfree <= st.Blocks*full/100
	})
	// Of seven runs of 8 MiB three at most fit into a third of 96 MiB, beside the live one.
	got := left()
	if len(got) == 0 || len(got) > 3 || !slices.Equal(got, all[runs-len(got):]) {
		t.Errorf("%v are left, want the newest", got)
	}
	write(t, gate, "")
	server.ok("job", "wait", "live")
	await(t, "no directories of executions are left", func() bool {
		entries, err := os.ReadDir(filepath.Join(dir, "client", "work"))
		return err == nil && len(entries) == 0
	})
	for run, files := range map[string]int{"live": 2, got[len(got)-1]: 1} {
		out := filepath.Join(t.TempDir(), "out")
		server.ok("job", "results", "-o", out, run)
		for i := range files {
			if info, err := os.Stat(filepath.Join(out, "outputs", "out", fmt.Sprint(i))); err != nil || info.Size() != each<<20 {
				t.Errorf("output %d of %s is %v, %v", i, run, info, err)
			}
		}
	}
	if r := server.cli("job", "status", "r0"); r.code == 0 || !strings.Contains(r.stderr, "r0") {
		t.Errorf("the oldest run: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
}
