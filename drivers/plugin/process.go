package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

const (
	// maxSocketDir is the longest path of a directory for sockets: a socket's own path
	// has 107 bytes at most, of which go-plugin takes about 40.
	maxSocketDir = 64
	// endGrace is how long a process may take to go when asked: enough to kill what it runs.
	endGrace = 3 * time.Second
	// goneTimeout is how long a process may live on when its connection is broken.
	goneTimeout = time.Second
)

// process is one process of a driver, from its start to its end.
type process struct {
	cfg    Config
	runner *procRunner
	client driverpb.DriverClient // set before started is closed without error

	started   chan struct{} // closed when it answered or failed to
	startErr  error         // read after started
	startedAt time.Time     // when the start failed or succeeded; read after started
	done      chan struct{} // closed when the process is gone and cleaned up after
	asked     atomic.Bool   // it was told to end
	ending    sync.Once
	plugin    *goplugin.Client
	socketDir string // made by go-plugin, removed by its Kill
	stderr    tail
}

func newProcess(cfg Config) *process {
	return &process{cfg: cfg, runner: newProcRunner(cfg), started: make(chan struct{}), done: make(chan struct{})}
}

// run starts the process and stays until it is gone. Its goroutine keeps its
// thread for as long: the kernel ends the child when the thread that forked it ends.
func (p *process) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	cfg := p.clientConfig()
	p.plugin = goplugin.NewClient(cfg)
	err := p.start(cfg)
	p.startedAt = time.Now()
	if err != nil {
		_ = p.runner.Kill(context.Background())
		if p.runner.pid() != 0 {
			<-p.runner.drained // the text quotes stderr
		}
		// Not go-plugin's Kill: it would connect to what never answered, and leave that connection behind.
		_ = os.RemoveAll(p.socketDir)
		p.startErr = fmt.Errorf("driver %q: %w: %w%s", p.cfg.Name, ErrStart, err, p.stderr.quoted())
		close(p.started)
		return
	}
	close(p.started)
	<-p.runner.gone
	p.endPlugin()
	if !p.asked.Load() {
		p.cfg.Log.Error("driver process ended unexpectedly", "driver", p.cfg.Name, "pid", p.runner.pid(), "state", p.runner.state())
	}
}

func (p *process) clientConfig() *goplugin.ClientConfig {
	cfg := &goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          goplugin.PluginSet{pluginName: &grpcPlugin{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		StartTimeout:     p.cfg.StartTimeout,
		Logger:           newHclog(p.cfg.Log.With("driver", p.cfg.Name)),
		Stderr:           &p.stderr,
		AutoMTLS:         p.cfg.MTLS,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{},
	}
	if len(p.cfg.SocketDir) <= maxSocketDir {
		cfg.UnixSocketConfig.TempDir = p.cfg.SocketDir
	}
	if !p.cfg.MTLS {
		cfg.GRPCDialOptions = append(cfg.GRPCDialOptions, grpc.WithTransportCredentials(onlyPeer(p.runner.pid)))
	}
	cfg.RunnerFunc = func(_ hclog.Logger, spec *exec.Cmd, socketDir string) (runner.Runner, error) {
		p.socketDir = socketDir
		p.runner.env = append(p.runner.env, spec.Env...)
		return p.runner, nil
	}
	return cfg
}

// start takes the process to the point where it has answered a call.
func (p *process) start(cfg *goplugin.ClientConfig) error {
	if err := p.verify(); err != nil {
		return err
	}
	addr, err := p.plugin.Start()
	if err != nil {
		return plain(err)
	}
	// go-plugin's own connection waits without bound for a process that shook hands and
	// then says nothing, so one of ours asks first.
	if err := p.probe(addr, cfg); err != nil {
		return fmt.Errorf("it does not answer within %v: %w", p.cfg.answerTimeout, err)
	}
	protocol, err := p.plugin.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(pluginName)
	if err != nil {
		return err
	}
	p.client = raw.(driverpb.DriverClient)
	return nil
}

func (p *process) verify() error {
	if len(p.cfg.Command) == 0 {
		return errors.New("no command")
	}
	if p.cfg.Checksum == nil {
		return nil
	}
	secure := &goplugin.SecureConfig{Checksum: p.cfg.Checksum, Hash: sha256.New()}
	ok, err := secure.Check(p.cfg.Command[0])
	if err != nil {
		return fmt.Errorf("check sum of %s: %w", p.cfg.Command[0], err)
	}
	if !ok {
		return fmt.Errorf("%s does not have the sha256 that the configuration lists for it", p.cfg.Command[0])
	}
	return nil
}

func (p *process) probe(addr net.Addr, cfg *goplugin.ClientConfig) error {
	creds := onlyPeer(p.runner.pid)
	if cfg.TLSConfig != nil {
		creds = credentials.NewTLS(cfg.TLSConfig)
	}
	conn, err := grpc.NewClient("passthrough:driver", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, addr.Network(), addr.String())
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.answerTimeout)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: goplugin.GRPCServiceName})
	return err
}

func (p *process) alive() bool {
	select {
	case <-p.runner.gone:
		return false
	default:
		return true
	}
}

// over reports whether a call at now needs another process.
func (p *process) over(now time.Time) bool {
	select {
	case <-p.started:
	default:
		return false
	}
	if p.startErr != nil {
		return now.Sub(p.startedAt) >= RestartPause
	}
	return !p.alive()
}

// end asks the process to go and kills it and its tree when it doesn't. It returns at once.
func (p *process) end() {
	p.asked.Store(true)
	go func() {
		<-p.started
		if p.startErr == nil {
			p.endPlugin()
		}
	}()
}

// endPlugin lets go-plugin end the process. It asks first, and waits for the
// answer without bound, so one that cannot answer is killed meanwhile.
func (p *process) endPlugin() {
	p.ending.Do(func() {
		t := time.AfterFunc(endGrace, func() { _ = p.runner.Kill(context.Background()) })
		defer t.Stop()
		p.plugin.Kill()
	})
}

// crash is the error of a call whose connection broke with err. A process
// that still runs behind a broken connection is ended.
func (p *process) crash(err error) error {
	select {
	case <-p.runner.gone:
	case <-time.After(goneTimeout):
		_ = p.runner.Kill(context.Background())
		<-p.runner.gone
	}
	if p.asked.Load() {
		return fmt.Errorf("driver %q: %w", p.cfg.Name, ErrClosed)
	}
	<-p.done // stderr is whole
	return fmt.Errorf("driver %q: %w: %s (%w)%s", p.cfg.Name, ErrCrashed, p.runner.state(), err, p.stderr.quoted())
}
