package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// slots is how many tasks of the ledger job a client runs at once, by what it says it has.
const (
	slots   = 10
	taskCPU = 100
)

// gossipPort is the default.
const gossipPort = 7612

// current is the test that a cluster is used by at present: a subtest while it runs.
type current struct{ *testing.T }

// use makes a subtest the one that a failure belongs to, until it ends.
func (c *cluster) use(t *testing.T) {
	was := c.t.T
	c.t.T = t
	t.Cleanup(func() { c.t.T = was })
}

// cluster is servers and clients that found each other.
type cluster struct {
	t       *current
	dir     string // of everything but the logs
	logs    string
	shared  string // directory that jobs may read on every client
	net     *network
	servers []*agent
	clients []*agent
	trust   *trust
	small   sheaf.Job // a partition that does nothing
}

// shape is how large a cluster is, and what of its configuration is not as elsewhere.
type shape struct {
	servers, clients int
	server, client   string // further lines within the two blocks
	drivers          string // of the clients, within brackets; empty is all that need nothing else
}

// begin starts a cluster and waits until it takes work. The test's end stops and removes it.
func begin(t *testing.T, s shape) *cluster {
	t.Helper()
	c := &cluster{t: &current{t}}
	var err error
	if c.dir, err = os.MkdirTemp("", "sheaf-cluster-data-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(c.dir, make(chan struct{}, removers)) })
	if c.logs, err = os.MkdirTemp("", "sheaf-cluster-logs-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(c.logs)
		}
	})
	c.shared = filepath.Join(c.dir, "shared")
	if err := os.Mkdir(c.shared, 0o755); err != nil {
		t.Fatal(err)
	}
	c.net = newNetwork(c.t)
	c.trust = newTrust(c)
	for i := range s.servers {
		c.servers = append(c.servers, c.agent(fmt.Sprint("s", i+1), 11+i, fmt.Sprintf("server {\n enabled = true\n bootstrap_expect = %d\n%s\n}\n", s.servers, s.server)))
	}
	for i := range s.clients {
		c.clients = append(c.clients, c.agent(fmt.Sprint("c", i+1), 101+i, fmt.Sprintf(`
client {
  enabled = true
  drivers = [%s]
  file_root %q {
    shared = true
  }
  resources {
    cpu    = %d
    memory = "64GiB"
    disk   = "64GiB"
    pids   = 100000
  }
  %s
}
`, cmp.Or(s.drivers, `"exec", "mock", "wasm"`), c.shared, slots*taskCPU, s.client)))
	}
	t.Cleanup(c.end)
	for _, a := range c.all() {
		a.start()
	}
	for _, a := range c.servers {
		a.await()
	}
	c.trust.bootstrap(c)
	for _, a := range c.clients {
		a.await()
	}
	c.awaitNodes()
	c.awaitMembers()
	c.small = c.job("job \"small\" {\n task \"noop\" {\n driver = \"mock\"\n }\n}\n")
	return c
}

// job reads a jobspec.
func (c *cluster) job(hcl string) sheaf.Job {
	c.t.Helper()
	return anyone(c, "what a job is", func(ctx context.Context, a *agent) (sheaf.Job, error) {
		return a.api.Parse(ctx, api.ParseRequest{HCL: hcl})
	})
}

// take has the cluster take a run of a job.
func (c *cluster) take(run string, job sheaf.Job) {
	c.t.Helper()
	anyone(c, "that run "+run+" is taken", func(ctx context.Context, a *agent) (api.SubmitReply, error) {
		return a.api.Submit(ctx, api.SubmitRequest{ID: sheaf.RunID(run), Job: job})
	})
}

// ended waits until a run is over.
func (c *cluster) ended(run string) (s sheaf.RunSummary) {
	c.t.Helper()
	await(c.t, run+" is over", func() bool {
		s = c.summary(run)
		return s.Status.Terminal()
	})
	return s
}

// agent makes an agent's place and configuration.
func (c *cluster) agent(name string, number int, role string) *agent {
	c.t.Helper()
	a := &agent{
		namespace: c.net.attach(name, number), t: c.t, c: c, name: name,
		dir: filepath.Join(c.dir, name), file: filepath.Join(c.dir, name+".hcl"), log: filepath.Join(c.logs, name+".log"),
		group: newGroup(c.t, c.net.name+"-"+name),
	}
	write(c.t, a.file, fmt.Sprintf("name = %q\ndata_dir = %q\nbind = %q\njoin = [\"%[4]s.11:%[5]d\", \"%[4]s.12:%[5]d\"]\nlog_level = \"debug\"\n%[6]s%[7]s",
		name, a.dir, a.address, c.net.subnet, gossipPort, c.trust.config(a, strings.HasPrefix(name, "s")), role))
	c.connect(a)
	return a
}

// connect makes the agent's API client, as whoever the test is now.
func (c *cluster) connect(a *agent) {
	c.t.Helper()
	var err error
	if a.api, err = api.New(c.trust.client(a)); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(a.api.Close)
}

// environment is what the command line needs to reach an agent.
func (c *cluster) environment(a *agent) []string {
	return append(c.trust.environment(a), "XDG_CONFIG_HOME="+c.dir)
}

// end stops everything, and says what there is to know where the test has failed.
func (c *cluster) end() {
	for _, a := range c.all() {
		a.group.thaw()
		a.heal()
	}
	if c.t.Failed() {
		c.report()
	}
	// All at once, as an operator does who stops the whole: nobody may wait for another for long.
	began := time.Now()
	var stopping sync.WaitGroup
	for _, a := range c.all() {
		if a.running() {
			stopping.Go(a.stop)
		}
	}
	stopping.Wait()
	c.t.Logf("all agents had stopped %s after they were told to", time.Since(began).Round(time.Millisecond))
}

// all are the agents, servers first.
func (c *cluster) all() []*agent { return slices.Concat(c.servers, c.clients) }

// leader waits for a server that leads and answers reads that need a quorum.
func (c *cluster) leader() *agent {
	c.t.Helper()
	var found *agent
	await(c.t, "there is a leader", func() bool { found = c.leads(c.servers...); return found != nil })
	return found
}

// leads gives the one of the servers that leads; nil when none does at present.
func (c *cluster) leads(among ...*agent) *agent {
	for _, s := range among {
		if !s.running() {
			continue
		}
		address, err := ask(s, s.api.Leader)
		if err != nil {
			continue
		}
		for _, l := range among {
			if !l.running() || !strings.HasPrefix(address, l.address+":") {
				continue
			}
			if _, err := ask(l, func(ctx context.Context) ([]sheaf.Node, error) {
				nodes, _, err := l.api.Nodes(ctx, api.Read{})
				return nodes, err
			}); err == nil {
				return l
			}
		}
	}
	return nil
}

// besides are the running servers but one. Who needs a leader and its followers asks once who leads: the next answer
// may be another.
func (c *cluster) besides(one *agent) (list []*agent) {
	for _, s := range c.servers {
		if s != one && s.running() {
			list = append(list, s)
		}
	}
	return list
}

// nodes are the clients as the servers see them, by name.
func (c *cluster) nodes() map[string]sheaf.Node {
	c.t.Helper()
	all := map[string]sheaf.Node{}
	for _, n := range pages(c, "the nodes", func(ctx context.Context, a *agent, r api.Read) ([]sheaf.Node, api.Meta, error) {
		return a.api.Nodes(ctx, r)
	}) {
		all[n.Name] = n
	}
	return all
}

// awaitNodes waits until every client that runs is ready to the servers.
func (c *cluster) awaitNodes() {
	c.t.Helper()
	await(c.t, "every client is ready", func() bool {
		nodes := c.nodes()
		for _, a := range c.clients {
			if a.running() && nodes[a.name].Status != sheaf.NodeReady {
				return false
			}
		}
		return true
	})
}

// awaitMembers waits until each agent has heard of all others.
func (c *cluster) awaitMembers() {
	c.t.Helper()
	for _, a := range c.all() {
		await(c.t, a.name+" knows all agents", func() bool {
			members, err := ask(a, a.api.Members)
			return err == nil && len(members) == len(c.all())
		})
	}
}

// whole starts what is down, heals what is cut, and waits until the cluster is as it began.
func (c *cluster) whole() {
	c.t.Helper()
	for _, a := range c.all() {
		a.heal()
		a.group.thaw()
		if !a.running() {
			a.start()
		}
	}
	for _, a := range c.all() {
		a.await()
	}
	c.leader()
	c.awaitNodes()
}

// compareStates waits until all running servers have told of the state at one index, and fails
// the test where two differ at one.
func (c *cluster) compareStates() {
	c.t.Helper()
	seen := map[uint64]map[string]string{} // index, server, digest
	await(c.t, "all servers have told of one index", func() bool {
		asked := 0
		for _, s := range c.servers {
			if !s.running() {
				continue
			}
			asked++
			st, err := ask(s, s.api.State)
			if err != nil {
				continue
			}
			if seen[st.Index] == nil {
				seen[st.Index] = map[string]string{}
			}
			seen[st.Index][s.name] = st.Digest
			for other, digest := range seen[st.Index] {
				if digest != st.Digest {
					c.t.Fatalf("at index %d %s holds %s and %s holds %s", st.Index, s.name, st.Digest, other, digest)
				}
			}
		}
		for _, at := range seen {
			if len(at) == asked {
				return true
			}
		}
		return false
	})
}

// removers is how many directories are removed at once. A ledger leaves ten thousand and more, and some disks let each wait.
const removers = 64

// remove removes a directory with all that is in it, directories side by side for as long as there is room in turns.
func remove(dir string, turns chan struct{}) {
	entries, _ := os.ReadDir(dir)
	var beside sync.WaitGroup
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() {
			os.Remove(path)
			continue
		}
		select {
		case turns <- struct{}{}:
			beside.Go(func() { remove(path, turns); <-turns })
		default:
			remove(path, turns)
		}
	}
	beside.Wait()
	os.Remove(dir)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}
