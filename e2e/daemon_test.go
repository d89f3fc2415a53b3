package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func portsBlock(t *testing.T, gossip string) string {
	t.Helper()
	return fmt.Sprintf("ports {\n http = %s\n rpc = %s\n gossip = %s\n }\n", freePort(t), freePort(t), gossip)
}

// startPair starts a server and a client that finds it by gossip, each an
// agent of its own; the client may read one directory.
func startPair(t *testing.T, allowed string) (server, client *agent) {
	t.Helper()
	gossip := freePort(t)
	server = startDaemon(t, "name = \"server\"\n"+portsBlock(t, gossip)+"server {\n enabled = true\n }\n")
	client = startDaemon(t, "name = \"worker\"\njoin = [\"127.0.0.1:"+gossip+"\"]\n"+portsBlock(t, freePort(t))+fmt.Sprintf(`
client {
  enabled = true
  drivers = ["exec", "wasm"]
  file_root %q {
    shared = true
  }
}
`, allowed))
	return server, client
}

// listing is a job that prints the names of the files below a directory.
func listing(name, dir string) string {
	return fmt.Sprintf(`
job %q {
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob = "/*"
  }
  task "list" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", "ls /in; cat /in/* > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX"]
    }
  }
  output "out" {
    path = "/out"
  }
}`, name, dir)
}

// TestServerAndClient: a server and a client as two daemons. Jobs run on the client, whichever of the two is
// asked; what the client's configuration does not list is not read.
func TestServerAndClient(t *testing.T) {
	allowed, forbidden := t.TempDir(), t.TempDir()
	for i, name := range []string{"a", "b", "c"} {
		write(t, filepath.Join(allowed, name), fmt.Sprintf("content %d\n", i))
	}
	write(t, filepath.Join(forbidden, "secret"), "secret\n")
	server, client := startPair(t, allowed)

	for _, asked := range []*agent{client, server} {
		await(t, "both are members", func() bool { // on a machine that is too busy gossip may miss one for a while
			var members []api.Member
			if err := json.Unmarshal([]byte(asked.ok("server", "members", "-json")), &members); err != nil {
				t.Fatal(err)
			}
			roles := map[string]string{}
			for _, m := range members {
				roles[m.Name] = fmt.Sprint(m.Role, ", leads ", m.Leader)
			}
			return len(members) == 2 && roles["server"] == "server, leads true" && roles["worker"] == "client, leads false"
		})
	}

	for _, asked := range []*agent{client, server} {
		run := "asked-" + filepath.Base(asked.dataDir)
		out := filepath.Join(t.TempDir(), "result")
		asked.ok("job", "run", "-id", run, "-o", out, jobspec(t, listing("list", allowed)))
		if got := read(t, out, "stdout"); got != "a\nb\nc\n" {
			t.Errorf("stdout is %q", got)
		}
		for i := range 3 {
			if got := read(t, out, "outputs", "out", fmt.Sprint(i)); got != fmt.Sprintf("content %d\n", i) {
				t.Errorf("partition %d wrote %q", i, got)
			}
		}
		for _, reader := range []*agent{client, server} {
			if got := reader.status(run); got.Status != sheaf.RunSucceeded || got.Partitions.Succeeded != 3 {
				t.Errorf("the run is %+v", got.RunStub)
			}
			if got := reader.ok("job", "logs", "-partition", "1", run); !strings.HasSuffix(got, "| b\n") {
				t.Errorf("the log of partition 1 is %q", got)
			}
		}
	}

	if err := os.Symlink(forbidden, filepath.Join(allowed, "link")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		forbidden: "file_root", filepath.Dir(allowed): "file_root", allowed + "/../" + filepath.Base(forbidden): "without ..", allowed + "/link": "link",
	} {
		for name, r := range map[string]ran{
			"preview": client.cli("input", "preview", "-json", jobspec(t, listing("denied", dir))),
			"plan":    client.cli("job", "plan", jobspec(t, listing("denied", dir))),
		} {
			if r.code != 2 || strings.Contains(r.stdout+r.stderr, "secret") || !strings.Contains(r.stderr, want) {
				t.Errorf("%s of %s: exit %d, want 2 and %q\n%s%s", name, dir, r.code, want, r.stdout, r.stderr)
			}
		}
	}
}

// TestServerKilled: while the server is dead its client's tasks run on; nothing is begun twice.
func TestServerKilled(t *testing.T) {
	in := t.TempDir()
	held := filepath.Join(in, "held")
	write(t, held, "")
	server, client := startPair(t, in)
	w := watch(t, held)
	gate := filepath.Join(in, "gate")
	client.ok("job", "run", "-detach", "-id", "orphan", jobspec(t, shell("orphan", 3, `if [ $SHEAF_PARTITION_INDEX = 1 ]; then exec 3<`+held+`; `+waiting(gate)+`; fi; echo done`, "")))
	server.until("orphan", "two are committed and one runs", func(s sheaf.RunSummary) bool {
		return s.Partitions.Succeeded == 2 && len(w.running()) == 1
	})
	server.kill()
	write(t, gate, "")
	await(t, "the task has ended", func() bool { return len(w.running()) == 0 })
	server.start()
	client.ok("job", "wait", "orphan")
	w.check()
	for _, p := range server.partitions("orphan") {
		if p.State != sheaf.PartitionSucceeded || p.Attempt != 1 || p.Losses != 0 {
			t.Errorf("partition %d is %+v", p.Index, p)
		}
	}
	if n := len(w.started()["held"]); n != 1 {
		t.Errorf("the task was begun %d times", n)
	}
}

// TestConfiguration: what is wrong with a configuration is said, with its place, and the agent does not start.
func TestConfiguration(t *testing.T) {
	for what, c := range map[string]struct{ config, want string }{
		"no role":          {``, "no role"},
		"unknown argument": {"colour = \"red\"\n", "colour"},
		"open to others":   {"bind = \"0.0.0.0\"\nserver {\n enabled = true\n }\n", "insecure"},
		"unknown driver":   {"client {\n enabled = true\n drivers = [\"docker\"]\n }\n", "containerd"},
		"relative root":    {"client {\n enabled = true\n file_root \"data\" {\n }\n }\n", "absolute"},
	} {
		file := filepath.Join(t.TempDir(), "agent.hcl")
		write(t, file, fmt.Sprintf("data_dir = %q\n%s", t.TempDir(), c.config))
		if r := runCLI(t, nil, "start", "-config", file); r.code == 0 || r.code == 124 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit %d\n%s", what, r.code, r.stderr)
		}
	}
	if r := runCLI(t, nil, "start", "-server"); r.code != 2 || !strings.Contains(r.stderr, "data_dir") {
		t.Errorf("no data directory: exit %d\n%s", r.code, r.stderr)
	}
}
