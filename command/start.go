package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/agent"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) devCommand() *cobra.Command {
	var dataDir, level, profile string
	var clients int
	var acls bool
	ports := agent.Ports{}
	c := &cobra.Command{
		Use: "dev", Short: "Run server and clients in one process, to try things out", Args: args(0, "no arguments"),
		Long: "Runs a server and clients in one process on loopback. Every driver is on and every file may be read,\n" +
			"so this is for a machine of your own. Without -data-dir nothing is kept.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			if clients < 1 || clients > 100 {
				return usage("-clients %d: give 1 to 100", clients)
			}
			if dataDir != "" {
				var err error
				if dataDir, err = filepath.Abs(dataDir); err != nil {
					return usage("-data-dir %q: %v", dataDir, err)
				}
			}
			conf := agent.DevConfig(dataDir, ports)
			conf.LogLevel = level
			if acls {
				conf.ACL = &agent.ACLConfig{Enabled: true}
			}
			return profiled(c.Context(), profile, func(ctx context.Context) error {
				return e.runAgent(ctx, conf, agent.Options{Dev: true, Clients: clients})
			})
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "keep state in this `DIR` and take it up again; in memory otherwise")
	c.Flags().BoolVar(&acls, "acl", false, "ask for tokens: agent acl bootstrap makes the first")
	c.Flags().IntVar(&clients, "clients", 1, "how many clients")
	c.Flags().StringVar(&level, "log-level", "warn", "debug, info, warn or error")
	portFlags(c, &ports)
	profileFlag(c.Flags(), &profile)
	return c
}

func portFlags(c *cobra.Command, p *agent.Ports) {
	c.Flags().IntVar(&p.HTTP, "http-port", agent.DefaultHTTPPort, "port of the HTTP API; 0 takes any")
	c.Flags().IntVar(&p.RPC, "rpc-port", agent.DefaultRPCPort, "port of RPC and raft; 0 takes any")
	c.Flags().IntVar(&p.Gossip, "gossip-port", agent.DefaultGossipPort, "port of gossip; 0 takes any")
}

func (e *env) startCommand() *cobra.Command {
	var files []string
	var profile string
	var server, client, insecure bool
	c := &cobra.Command{
		Use: "start", Short: "Run an agent", Args: args(0, "no arguments"),
		Long: "Runs an agent as a server, a client or both, as its configuration says.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := agent.LoadConfig(files)
			if err != nil {
				return err
			}
			if server {
				conf.Server = enabled(conf.Server, func(s *agent.ServerConfig) { s.Enabled = true })
			}
			if client {
				conf.Client = enabled(conf.Client, func(s *agent.ClientConfig) { s.Enabled = true })
			}
			conf.Insecure = conf.Insecure || insecure
			if conf.DataDir == "" {
				return usage("an agent needs a place to keep its state: set data_dir in the configuration, as in \"/var/lib/sheaf\"; `agent dev` runs without")
			}
			if conf.Server != nil && conf.Server.Enabled && os.Getenv("GOGC") == "" {
				debug.SetGCPercent(serverGCPercent)
			}
			return profiled(c.Context(), profile, func(ctx context.Context) error {
				return e.runAgent(ctx, conf, agent.Options{})
			})
		},
	}
	c.Flags().StringArrayVar(&files, "config", nil, "configuration file, or a folder of *.hcl files; may be repeated")
	c.Flags().BoolVar(&server, "server", false, "be a server")
	c.Flags().BoolVar(&client, "client", false, "be a client")
	c.Flags().BoolVar(&insecure, "insecure", false, "allow an address that others can reach, without TLS and ACLs")
	profileFlag(c.Flags(), &profile)
	return c
}

// serverGCPercent is how much garbage a server lets lie before it collects, in per cent of what
// it holds. That is above all the columns of runs, which cost little to collect
// around, since no pointers are in them, and which at Go's own 100 would take twice their size.
const serverGCPercent = 50

func enabled[T any](conf *T, enable func(*T)) *T {
	if conf == nil {
		conf = new(T)
	}
	enable(conf)
	return conf
}

// logger writes records to w from the given level on.
func logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, usage("log level %q is unknown: use debug, info, warn or error", level)
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

func (e *env) runAgent(ctx context.Context, conf agent.Config, opts agent.Options) error {
	log, err := logger(e.err, conf.LogLevel)
	if err != nil {
		return err
	}
	opts.Logger, opts.Version = log, e.version
	a, err := agent.New(conf, opts)
	if err != nil {
		return err
	}
	go reloadOnHangup(ctx, a, log)
	go func() {
		select {
		case <-ctx.Done():
		case <-a.Ready():
			fmt.Fprintf(e.err, "ready at %s\n", a.HTTPAddress())
			if opts.Dev {
				e.hintDev(conf, a.HTTPAddress())
			}
		}
	}()
	return a.Run(ctx)
}

// reloadOnHangup has the agent read its TLS keys again at every SIGHUP.
func reloadOnHangup(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if err := a.Reload(); err != nil {
				log.Error("TLS keys cannot be used; the old ones stay", "error", err)
			}
		}
	}
}

func (e *env) hintDev(conf agent.Config, address string) {
	var b strings.Builder
	if conf.DataDir == "" {
		b.WriteString("nothing is kept when it ends; -data-dir keeps it\n")
	}
	if address != api.DefaultAddress {
		fmt.Fprintf(&b, "export SHEAF_ADDR=%s\n", address)
	}
	b.WriteString("try in another terminal:\n" +
		"  agent job run -exec -count 3 -- sh -c 'echo Partition=$SHEAF_PARTITION_INDEX'\n" +
		"  agent job init && agent job run job.hcl\n" +
		"  agent node list")
	e.hint("%s", b.String())
}

// What needs a file, or the data directory of an agent that is not running, rather than an agent.
var resetServer, recoverServer, inspectSnapshot = agent.ResetServer, agent.RecoverServer, agent.InspectSnapshot

// withLocal runs an agent for just as long as do takes, and gives it a client of
// that agent's API.
func (e *env) withLocal(ctx context.Context, do func(context.Context, *api.Client) error) error {
	conf := agent.DevConfig("", agent.Ports{})
	log, err := logger(e.err, "error")
	if err != nil {
		return err
	}
	a, err := agent.New(conf, agent.Options{Version: e.version, Dev: true, Clients: 1, Logger: log})
	if err != nil {
		return err
	}
	// The agent outlives an interrupt, so that do can put its run down in order.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(own) }()
	select {
	case <-a.Ready():
	case <-ctx.Done():
		stop()
		return errors.Join(ctx.Err(), <-ended)
	case err := <-ended:
		return fmt.Errorf("start the local agent: %w", err)
	}
	c, err := api.New(api.Config{Address: a.HTTPAddress()})
	if err == nil {
		err = do(ctx, c)
		c.Close()
	}
	stop()
	if failed := <-ended; failed != nil && err == nil {
		err = &sheaf.Error{Class: sheaf.Internal, Msg: "the local agent failed", Err: failed}
	}
	return err
}
