package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/e2e/port"
)

// stopPatience is how long an agent may take to end when told to, on a machine that is busy. One that is ended by force
// leaves no profile.
const stopPatience = 2 * time.Minute

// keptLog is how much of an agent's log is kept for an error, in bytes: some
// hundred of its last lines.
const keptLog = 16 << 10

// process is an agent.
type process struct {
	cmd     *exec.Cmd
	api     *api.Client
	took    time.Duration // from its start until it was ready
	address string
	dataDir string        // of one made by dev
	exited  chan struct{} // closed once it has ended and its log is read

	mu  sync.Mutex
	log []byte
}

// launch starts an agent and waits until it is ready. Its caller stops it.
func (b *bench) launch(ctx context.Context, name string, args ...string) (*process, error) {
	if b.keep != "" {
		if err := os.MkdirAll(b.keep, 0o755); err != nil {
			return nil, fmt.Errorf("make the folder for profiles: %w", err)
		}
		args = append(args, "-cpu-profile", filepath.Join(b.keep, name+".prof"))
	}
	p := &process{cmd: exec.Command(b.agent, args...), exited: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ready := make(chan string, 1)
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.keep(lines.Text())
			if at, ok := strings.CutPrefix(lines.Text(), "ready at "); ok {
				ready <- at
			}
		}
		_ = p.cmd.Wait()
	}()
	select {
	case p.address = <-ready:
		p.took = time.Since(began)
	case <-p.exited:
		return nil, fmt.Errorf("start %s: it ended:\n%s", name, p.tail())
	case <-ctx.Done():
		p.stop()
		return nil, fmt.Errorf("start %s: %w; its log:\n%s", name, context.Cause(ctx), p.tail())
	}
	if p.api, err = api.New(api.Config{Address: p.address}); err != nil {
		p.stop()
		return nil, fmt.Errorf("reach %s: %w", name, err)
	}
	return p, nil
}

// dev starts an agent that is server and client, with its state on disk.
func (b *bench) dev(ctx context.Context, name string) (*process, error) {
	dir, err := os.MkdirTemp(b.root, name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	p, err := b.launch(ctx, name, "dev", "-data-dir", dir, "-http-port", "0", "-rpc-port", "0", "-gossip-port", "0", "-log-level", "error")
	if p != nil {
		p.dataDir = dir
	}
	return p, err
}

// configured starts an agent by a configuration file, in the role given. It
// returns its gossip address beside it.
func (b *bench) configured(ctx context.Context, role, config string) (*process, string, error) {
	dir, err := os.MkdirTemp(b.root, role+"-")
	if err != nil {
		return nil, "", fmt.Errorf("make a directory: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, "", err
	}
	config = fmt.Sprintf("name = %q\ndata_dir = %q\nlog_level = \"error\"\nports {\n  http = %d\n  rpc = %d\n  gossip = %d\n}\n%s",
		role, filepath.Join(dir, "state"), ports[0], ports[1], ports[2], config)
	file := filepath.Join(dir, "agent.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", fmt.Errorf("write the configuration of the %s: %w", role, err)
	}
	p, err := b.launch(ctx, role, "start", "-"+role, "-config", file)
	return p, fmt.Sprintf("127.0.0.1:%d", ports[2]), err
}

// freePorts finds ports that nobody else is given.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		var err error
		if ports[i], err = port.Free(); err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
	}
	return ports, nil
}

func (p *process) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(append(p.log, line...), '\n')
	if len(p.log) > 2*keptLog {
		p.log = append(p.log[:0], p.log[len(p.log)-keptLog:]...)
	}
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.log)
}

// stop ends the agent in order, or by force when that takes too long.
func (p *process) stop() {
	if p.api != nil {
		p.api.Close()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}
