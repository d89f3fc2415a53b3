package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// agent is an agent in a process, a namespace and a cgroup of its own.
type agent struct {
	*namespace
	t     *current
	c     *cluster
	name  string // without the cluster's prefix
	dir   string // its data
	file  string // its configuration
	log   string
	group *group
	api   *api.Client

	cmd    *exec.Cmd
	exited chan struct{}
}

// start starts the process, also after kill, on the same data directory. It does not wait.
func (a *agent) start() {
	a.t.Helper()
	log, err := os.OpenFile(a.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- started at %s\n", time.Now().Format(time.RFC3339Nano))
	// Shell and nsenter become the agent: the process stays the same. It enters the group by itself, since
	// the kernel (6.18) kills what is cloned into a group that was ever killed.
	a.cmd = exec.Command("sh", "-c", `echo 0 >"$1" && exec nsenter --net="$2" -- "$3" start -config "$4"`, "sh",
		filepath.Join(a.group.path, "cgroup.procs"), filepath.Join(netns, a.namespace.name), binary, a.file)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	cmd, exited := a.cmd, make(chan struct{})
	a.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// running reports whether the agent's process is there, be it frozen.
func (a *agent) running() bool {
	select {
	case <-a.exited:
		return false
	default:
		return true
	}
}

// kill ends the agent's process alone, the hard way.
func (a *agent) kill() {
	a.t.Helper()
	if !a.running() {
		a.t.Fatalf("%s is to be killed and has ended already; its log is %s", a.name, a.log)
	}
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
	<-a.exited
}

// crash ends the agent and all that it started at once.
func (a *agent) crash() {
	a.t.Helper()
	if !a.running() {
		a.t.Fatalf("%s is to be killed and has ended already; its log is %s", a.name, a.log)
	}
	a.group.kill()
	<-a.exited
}

// stop ends the agent in order.
func (a *agent) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.exited:
	case <-time.After(patience):
		a.t.Errorf("%s does not stop on SIGTERM: its log %s ends with what it was doing", a.name, a.log)
		_ = a.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-a.exited:
		case <-time.After(10 * time.Second):
		}
		a.group.kill()
		<-a.exited
	}
}

// askFor bounds one question to an agent, which may be dead or frozen.
const askFor = 2 * time.Second

// ask puts a question to the agent.
func ask[T any](a *agent, question func(context.Context) (T, error)) (T, error) {
	ctx, stop := context.WithTimeout(context.Background(), askFor)
	defer stop()
	return question(ctx)
}

// ready reports whether the agent says that it can do its work.
func (a *agent) ready() bool {
	h, err := ask(a, a.api.Health)
	return err == nil && h.Ready
}

// await waits until the agent is ready.
func (a *agent) await() {
	a.t.Helper()
	await(a.t, a.name+" is ready", func() bool {
		if !a.running() {
			a.t.Fatalf("%s has ended:\n%s", a.name, tail(a.log, 30))
		}
		return a.ready()
	})
}

// try runs a command against the agent, and gives its stdout.
func (a *agent) try(args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 2*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), a.c.environment(a)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("agent %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

// summary is how a run goes, asked of the agents one after another until one answers.
func (c *cluster) summary(run string) sheaf.RunSummary {
	c.t.Helper()
	return anyone(c, "how run "+run+" goes", func(ctx context.Context, a *agent) (sheaf.RunSummary, error) {
		s, _, err := a.api.Summary(ctx, run, api.Read{})
		return s, err
	})
}

// partitions are all of a run's.
func (c *cluster) partitions(run string) []sheaf.Partition {
	c.t.Helper()
	return pages(c, "the partitions of "+run, func(ctx context.Context, a *agent, r api.Read) ([]sheaf.Partition, api.Meta, error) {
		return a.api.Partitions(ctx, run, r)
	})
}

// partition is one of a run's.
func (c *cluster) partition(run string, n int) sheaf.Partition {
	c.t.Helper()
	return anyone(c, fmt.Sprintf("partition %d of %s", n, run), func(ctx context.Context, a *agent) (sheaf.Partition, error) {
		p, _, err := a.api.Partition(ctx, run, n, api.Read{})
		return p, err
	})
}

// pages reads a list to its end.
func pages[T any](c *cluster, what string, read func(context.Context, *agent, api.Read) ([]T, api.Meta, error)) (all []T) {
	c.t.Helper()
	type page struct {
		items []T
		meta  api.Meta
	}
	for token := ""; ; {
		p := anyone(c, what, func(ctx context.Context, a *agent) (page, error) {
			items, m, err := read(ctx, a, api.Read{Params: map[string][]string{"next_token": {token}, "per_page": {"1000"}}})
			return page{items, m}, err
		})
		all = append(all, p.items...)
		if token = p.meta.NextToken; token == "" {
			return all
		}
	}
}

// anyone asks the agents one after another, the servers first, until one answers. What is
// not there is an answer that fails the test.
func anyone[T any](c *cluster, what string, question func(context.Context, *agent) (T, error)) (answer T) {
	c.t.Helper()
	var last error
	if !within(patience, func() bool {
		for _, a := range c.all() {
			if !a.running() {
				continue
			}
			var err error
			if answer, err = ask(a, func(ctx context.Context) (T, error) { return question(ctx, a) }); err == nil {
				return true
			}
			last = fmt.Errorf("%s: %w", a.name, err)
			if class := sheaf.ClassOf(err); class == sheaf.NotFound || class == sheaf.Denied || class == sheaf.Invalid {
				c.t.Fatalf("ask %s %s: %v", a.name, what, err)
			}
		}
		return false
	}) {
		c.t.Fatalf("nobody tells %s within %s: %v", what, patience, last)
	}
	return answer
}
