package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/api"
)

// trio is three servers that found a cluster together, and a client, each a process.
type trio struct {
	t       *testing.T
	servers []*agent
	client  *agent
	job     string
}

func startTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{t: t, job: jobspec(t, shell("small", 1, "echo done", ""))}
	first := freePort(t)
	var ready []<-chan string
	daemon := func(name, gossip, role string) *agent {
		a := &agent{t: t, dataDir: t.TempDir(), home: t.TempDir()}
		file := filepath.Join(t.TempDir(), "agent.hcl")
		write(t, file, fmt.Sprintf("name = %q\ndata_dir = %q\njoin = [\"127.0.0.1:%s\"]\n%s%s", name, a.dataDir, first, portsBlock(t, gossip), role))
		a.args = []string{"start", "-config", file}
		ready = append(ready, a.begin())
		t.Cleanup(a.stop)
		return a
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if r := runCLI(t, nil, "secret", "keygen"); r.code != 0 {
		t.Fatal(r.stderr)
	} else if err := os.WriteFile(keys, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		gossip := first
		if i > 0 {
			gossip = freePort(t)
		}
		c.servers = append(c.servers, daemon(fmt.Sprintf("server-%d", i+1), gossip, fmt.Sprintf("server {\n enabled = true\n bootstrap_expect = 3\n secrets_key_file = %q\n }\n", keys)))
	}
	c.client = daemon("worker", freePort(t), "client {\n enabled = true\n drivers = [\"exec\"]\n }\n")
	for i, a := range append(c.servers[:3:3], c.client) {
		select {
		case a.address = <-ready[i]:
		case <-a.exited:
			t.Fatalf("an agent ended before it was ready:\n%s", a.stderr)
		case <-time.After(patience):
			t.Fatalf("an agent is not ready after %s:\n%s", patience, a.stderr)
		}
	}
	return c
}

// peers are the servers as one agent tells.
func (c *trio) peers(asked *agent) (list []api.Server) {
	c.t.Helper()
	r := asked.cli("operator", "raft", "list-peers", "-json")
	if r.code != 0 {
		return nil // no leader at this moment
	}
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		c.t.Fatal(err)
	}
	return list
}

// voting waits until the servers that vote are these, one leads, and all are healthy.
func (c *trio) voting(servers ...*agent) (ids map[*agent]string, leader *agent) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("%d servers that vote", len(servers)), func() bool {
		ids, leader = map[*agent]string{}, nil
		list := c.peers(servers[0])
		for _, p := range list {
			for _, a := range servers {
				if a.address == "http://"+p.HTTP && p.Voter && p.Alive && p.Health != nil && p.Health.Healthy {
					ids[a] = p.ID
					if p.Leader {
						leader = a
					}
				}
			}
		}
		return len(list) == len(servers) && len(ids) == len(servers) && leader != nil
	})
	return ids, leader
}

// same waits until these servers have one state.
func (c *trio) same(servers ...*agent) {
	c.t.Helper()
	await(c.t, "one state", func() bool {
		var first api.State
		for i, a := range servers {
			s, err := a.client().State(context.Background())
			if err != nil || i > 0 && s != first {
				return false
			}
			first = s
		}
		return true
	})
}

// ok runs a command that must succeed, again while the servers elect: on a machine that is too busy that may be at any moment, and
// take longer than an agent waits for it.
func (c *trio) ok(a *agent, args ...string) {
	c.t.Helper()
	var last ran
	await(c.t, fmt.Sprintf("agent %s succeeds", strings.Join(args, " ")), func() bool {
		if last = a.cli(args...); last.code != 0 && !unavailable(last) {
			c.t.Fatalf("agent %s: exit %d\n%s%s\nthe agent's log:\n%s", strings.Join(args, " "), last.code, last.stdout, last.stderr, a.stderr)
		}
		return last.code == 0
	})
}

// unavailable reports whether a command failed for want of a leader.
func unavailable(r ran) bool {
	return r.code == 1 && (strings.Contains(r.stderr, "leader") || strings.Contains(r.stderr, "try again") || strings.Contains(r.stderr, "asking again is safe"))
}

// TestOperatingServers goes through what an operator does to three servers, by the command line alone.
func TestOperatingServers(t *testing.T) {
	c := startTrio(t)
	ids, leader := c.voting(c.servers...)
	c.ok(leader, "operator", "autopilot", "set-config", "-server-stabilization-time", "0s")

	// Whoever leads, every agent takes requests.
	for i, next := range c.servers {
		await(t, "the next server leads", func() bool { // on a machine that is too busy another may be elected
			if leader != next {
				c.client.cli("operator", "raft", "transfer-leadership", "-id", ids[next])
				_, leader = c.voting(c.servers...)
			}
			return leader == next
		})
		for j, a := range []*agent{c.client, c.servers[(i+1)%3]} {
			c.ok(a, "job", "run", "-q", "-id", fmt.Sprintf("led-%d-%d", i, j), c.job)
		}
	}
	_, leader = c.voting(c.servers...)

	// SIGTERM hands leadership on; an agent that is asked meanwhile waits for it.
	leader.stop()
	c.ok(c.client, "job", "run", "-q", "-id", "handed-on", c.job)
	leader.start()
	_, leader = c.voting(c.servers...)

	// A saved state comes back.
	saved := filepath.Join(t.TempDir(), "state.snap")
	c.ok(c.client, "operator", "snapshot", "save", saved)
	c.ok(leader, "job", "run", "-q", "-id", "too-late", c.job)
	broken := []byte(read(t, saved))
	broken[len(broken)/2] ^= 1
	if err := os.WriteFile(saved+".broken", broken, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"inspect", saved + ".broken"}, {"restore", saved + ".broken"}, {"inspect", c.job}} {
		if r := c.client.cli(append([]string{"operator", "snapshot"}, args...)...); r.code != 2 || !strings.Contains(r.stderr, "no whole snapshot") {
			t.Errorf("%v: exit %d, %s", args, r.code, r.stderr)
		}
	}
	if out := runCLI(t, nil, "operator", "snapshot", "inspect", saved).stdout; !regexp.MustCompile(`(?m)^runs +7$`).MatchString(out) {
		t.Errorf("the snapshot holds\n%s", out)
	}
	c.ok(c.client, "operator", "snapshot", "restore", saved)
	if r := c.client.cli("job", "status", "too-late"); r.code == 0 {
		t.Error("what came after the snapshot is there")
	}
	c.ok(c.client, "job", "status", "handed-on")
	c.ok(c.client, "job", "run", "-q", "-id", "restored", c.job)
	c.same(c.servers...)

	// A damaged store: its server says which command to run, and is one of three again after it.
	ids, leader = c.voting(c.servers...)
	hurt := c.servers[0]
	if hurt == leader {
		hurt = c.servers[1]
	}
	hurt.kill()
	log := filepath.Join(hurt.dataDir, "server", "raft", "log.db")
	b := []byte(read(t, log))
	b[40] ^= 1 // in the first page, which is read at each start
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-hurt.begin():
		t.Fatal("the server started with a damaged log")
	case <-hurt.exited:
	}
	said := regexp.MustCompile("run `agent (operator raft reset [^`]*)`").FindStringSubmatch(hurt.stderr.String())
	if said == nil || !strings.Contains(hurt.stderr.String(), log) {
		t.Fatalf("the damage is told as\n%s", hurt.stderr)
	}
	if r := runCLI(t, nil, strings.Fields(said[1])...); r.code != 0 {
		t.Fatalf("agent %s: exit %d\n%s", said[1], r.code, r.stderr)
	}
	hurt.start()
	now, leader := c.voting(c.servers...)
	if now[hurt] == ids[hurt] {
		t.Error("the server that forgot came back under its old ID")
	}
	c.same(c.servers...)

	// One leaves, and comes back.
	away := c.servers[2]
	await(t, "a server leaves", func() bool {
		select {
		case <-away.exited: // its answer may be lost
			return true
		default:
			return away.cli("server", "leave").code == 0
		}
	})
	<-away.exited
	if code := away.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("having left, the agent exits with %d:\n%s", code, away.stderr)
	}
	c.voting(c.servers[:2]...)
	away.start()
	ids, leader = c.voting(c.servers...)

	// A lost quorum: writes fail, stale reads do not, and the one that is left becomes a cluster again.
	left := c.servers[0]
	for _, s := range c.servers[1:] {
		s.kill()
	}
	began := time.Now()
	await(t, "a job is refused for want of a quorum", func() bool { // at first a connection to who led may just break
		r := left.cli("job", "run", "-detach", "-id", "lost", c.job)
		if r.code == 0 {
			t.Fatalf("without a quorum a job is taken after %v", time.Since(began))
		}
		return strings.Contains(r.stderr, "leader") || strings.Contains(r.stderr, "agree")
	})
	await(t, "the last server knows that nobody leads", func() bool { return left.cli("job", "list").code != 0 })
	if list := left.ok("job", "list", "-stale", "-q"); !strings.Contains(list, "restored\n") {
		t.Errorf("a stale list is %q", list)
	}
	left.stop()
	peer := ""
	for _, p := range c.recorded(left) {
		if p.ID == ids[left] {
			peer = p.ID + "=" + p.Address
		}
	}
	if r := runCLI(t, nil, "operator", "raft", "recover", "-data-dir", left.dataDir, "-peer", "somebody=127.0.0.1:1"); r.code != 2 {
		t.Errorf("recovered without this server: exit %d, %s", r.code, r.stderr)
	}
	if r := runCLI(t, nil, "operator", "raft", "recover", "-data-dir", left.dataDir, "-peer", peer); r.code != 0 {
		t.Fatalf("recover: exit %d, %s", r.code, r.stderr)
	}
	left.start()
	c.voting(left)
	left.ok("job", "status", "restored")
	left.ok("job", "run", "-q", "-id", "recovered", c.job)
}

// recorded are the servers that stand in a server's data directory.
func (c *trio) recorded(a *agent) (list []struct{ ID, Address string }) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(read(c.t, a.dataDir, "server", "raft", "servers.json")), &list); err != nil {
		c.t.Fatal(err)
	}
	return list
}
