package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/e2e/bench/fleet"
)

const (
	fleetClients    = 1000
	fleetLeast      = 20 // clients, however small the scale
	fleetProcesses  = 2
	fleetGossiping  = 100 // of the clients; a thousand on one machine's gossip do not converge
	fleetSlots      = 16
	fleetMean       = 500 * time.Millisecond // of a task
	fleetFailing    = 0.01
	fleetPartitions = 1_000_000
	fleetServers    = 3

	failoverLength = 10 * time.Second // of the run in the midst of which the leader is killed, at least

	fleetTarget       = 20_000 // partitions a second
	fleetMemoryTarget = 4096   // MB, of servers and clients together
	failoverTarget    = 3000   // ms

	fleetLook = 500 * time.Millisecond
)

// fleetArgument is the first argument of this program as a share of the fleet; a file for a CPU profile may follow, its configuration does on stdin.
const fleetArgument = "fleet-of-clients"

// fleetMain is this program as a share of the fleet. It ends when its parent does.
func fleetMain() error {
	var c fleet.Config
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&c); err != nil {
		return fmt.Errorf("read what clients to be: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if len(os.Args) > 2 {
		f, err := os.Create(os.Args[2])
		if err != nil {
			return fmt.Errorf("write a CPU profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("write a CPU profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	return fleet.Run(ctx, c, func() { fmt.Println("ready") })
}

// swarm is servers with clients.
type swarm struct {
	servers []*process
	rpc     []string // their addresses
	clients []*exec.Cmd
	closes  []io.Closer
}

func (s *swarm) stop() {
	for _, c := range s.closes {
		_ = c.Close() // which ends the clients
	}
	for _, c := range s.clients {
		_ = c.Wait()
	}
	for _, p := range s.servers {
		if p != nil {
			p.stop()
		}
	}
}

func (b *bench) fleetSize() int { return max(fleetLeast, b.scaled(fleetClients)) }

// memory is the proportional set size of all, bytes.
func (s *swarm) memory() (int64, error) {
	var sum int64
	for _, p := range s.servers {
		n, err := proportional(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	for _, c := range s.clients {
		n, err := proportional(c.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// computed is the processor time of all so far.
func (s *swarm) computed() (sum time.Duration) {
	for _, p := range s.servers {
		sum += computed(p.cmd.Process.Pid)
	}
	for _, c := range s.clients {
		sum += computed(c.Process.Pid)
	}
	return sum
}

// newSwarm starts three servers and the fleet, and waits until every client has its session.
func (b *bench) newSwarm(ctx context.Context) (_ *swarm, err error) {
	s := &swarm{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	var gossip []string
	ports := make([][]int, fleetServers)
	for i := range ports {
		if ports[i], err = freePorts(3); err != nil {
			return nil, err
		}
		s.rpc, gossip = append(s.rpc, fmt.Sprintf("127.0.0.1:%d", ports[i][1])), append(gossip, fmt.Sprintf("127.0.0.1:%d", ports[i][2]))
	}
	s.servers = make([]*process, fleetServers)
	var starting errgroup.Group // none is ready before they have found each other
	for i := range ports {
		starting.Go(func() (err error) {
			s.servers[i], err = b.server(ctx, fmt.Sprintf("server-%d", i+1), ports[i], gossip)
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	ready := make(chan error, fleetProcesses)
	clients := b.fleetSize()
	for i := range fleetProcesses {
		first, next := clients*i/fleetProcesses, clients*(i+1)/fleetProcesses
		dir, err := os.MkdirTemp(b.root, "fleet-")
		if err != nil {
			return nil, fmt.Errorf("make a directory: %w", err)
		}
		c := fleet.Config{
			First: first, Count: next - first, Gossiping: min(fleetGossiping/fleetProcesses, next-first), Servers: s.rpc, Join: gossip, Dir: dir,
			Work: fleet.Work{Mean: fleetMean, Failing: fleetFailing, Slots: fleetSlots},
		}
		cmd := exec.Command(self, fleetArgument)
		if b.keep != "" {
			cmd.Args = append(cmd.Args, filepath.Join(b.keep, fmt.Sprintf("clients-%d.prof", i+1)))
		}
		cmd.Stderr = os.Stderr
		// A thousand machines have a thousand schedulers and heaps of their own; these share two processors with the servers.
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, fmt.Errorf("start clients: %w", err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, fmt.Errorf("start clients: %w", err)
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start clients: %w", err)
		}
		s.clients, s.closes = append(s.clients, cmd), append(s.closes, in)
		if err := json.NewEncoder(in).Encode(c); err != nil {
			return nil, fmt.Errorf("start clients: %w", err)
		}
		go func() {
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
				ready <- fmt.Errorf("clients %d to %d ended: %q, %w", first, next-1, line, err)
				return
			}
			ready <- nil
		}()
	}
	for range fleetProcesses {
		select {
		case err := <-ready:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the clients: %w", context.Cause(ctx))
		}
	}
	return s, nil
}

// server starts one of several servers.
func (b *bench) server(ctx context.Context, name string, ports []int, join []string) (*process, error) {
	dir := filepath.Join(b.root, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	config := fmt.Sprintf("name = %q\ndata_dir = %q\nlog_level = \"warn\"\nports {\n  http = %d\n  rpc = %d\n  gossip = %d\n}\nserver {\n  enabled = true\n  bootstrap_expect = %d\n}\n",
		name, filepath.Join(dir, "state"), ports[0], ports[1], ports[2], fleetServers)
	if len(join) > 0 {
		config += fmt.Sprintf("join = [\"%s\"]\n", strings.Join(join, `", "`))
	}
	file := filepath.Join(dir, "agent.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	return b.launch(ctx, name, "start", "-config", file)
}
