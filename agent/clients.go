package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// satellite is where a further client of a dev agent is reached.
type satellite struct {
	listener net.Listener
	grpc     *grpc.Server
}

func newGRPC() *grpc.Server {
	return grpc.NewServer(wire.ServerOptions()...)
}

// serveGRPC serves until ctx ends. Calls under way are cut off: streams have no end of their own.
func serveGRPC(ctx context.Context, s *grpc.Server, l net.Listener) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.Stop()
	}()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return fmt.Errorf("serve RPC: %w", err)
	}
	<-done
	return nil
}

// discovery answers clients from gossip, and for the clients of their own process
// itself: of those, gossip knows the first alone.
type discovery struct{ *Agent }

func (d discovery) Servers() []string {
	var addrs []string
	for _, m := range d.pool.Servers() {
		addrs = append(addrs, m.Address)
	}
	return addrs
}

func (d discovery) NodeAddress(id sheaf.NodeID) (string, bool) {
	for i, c := range d.clients {
		switch {
		case c.ID() != id:
		case i == 0:
			return d.advertised(d.rpcListener), true
		default:
			return d.advertised(d.extra[i-1].listener), true
		}
	}
	for _, m := range d.pool.Members() {
		if m.Node == id {
			return m.Address, true
		}
	}
	return "", false
}

// buildClients makes the agent's client and, in dev, the further ones.
func (a *Agent) buildClients(rpc string) error {
	for i := range max(a.opts.Clients, 1) {
		address, registrar, name := rpc, a.grpc, a.conf.Name
		if i > 0 {
			l, err := a.listen("rpc", 0)
			if err != nil {
				return err
			}
			s := &satellite{listener: l, grpc: newGRPC()}
			a.extra = append(a.extra, s)
			address, registrar, name = a.advertised(l), s.grpc, fmt.Sprintf("%s-%d", a.conf.Name, i+1)
		}
		conf, err := a.clientConfig(i, name, address)
		if err != nil {
			return err
		}
		c, err := client.New(conf)
		if err != nil {
			return err
		}
		wire.RegisterNodesServer(registrar, c.Nodes())
		a.clients = append(a.clients, c)
	}
	a.pool.Update(func(m *gossip.Member) { m.Node = a.clients[0].ID() })
	return nil
}

func (a *Agent) clientConfig(i int, name, address string) (client.Config, error) {
	cc := a.conf.Client
	exe, err := os.Executable()
	if err != nil {
		return client.Config{}, fmt.Errorf("find the agent's own binary: %w", err)
	}
	resources, err := cc.Resources.resources("client.resources")
	if err != nil {
		return client.Config{}, err
	}
	reserve, err := cc.Reserve.resources("client.reserve")
	if err != nil {
		return client.Config{}, err
	}
	conf := client.Config{
		Name: name, Region: a.conf.Region, Datacenter: a.conf.Datacenter, Class: cc.Class, Address: address,
		Resources: resources, Reserve: reserve, Slots: cc.Slots, Attributes: a.attributes(cc),
		Discovery: discovery{a}, Dialer: a.dialer, Logger: a.log.With("part", "client"),
	}
	if a.conf.DataDir != "" {
		conf.DataDir = below(a.conf.DataDir, "client")
		if i > 0 {
			conf.DataDir = below(a.conf.DataDir, fmt.Sprintf("client-%d", i+1))
		}
	}
	for _, d := range cc.Drivers {
		conf.Drivers = append(conf.Drivers, client.Driver{Name: d, Command: []string{exe, "plugin", d}, Env: cc.driverEnv(d)})
	}
	plugins, err := cc.plugins()
	if err != nil {
		return client.Config{}, err
	}
	conf.Drivers = append(conf.Drivers, plugins...)
	for _, r := range cc.FileRoots {
		conf.FileRoots = append(conf.FileRoots, client.FileRoot{Path: r.Path, Shared: r.Shared, Writable: r.Writable})
	}
	if err := cc.gc(&conf); err != nil {
		return client.Config{}, err
	}
	err = cc.sources(&conf)
	return conf, err
}

// attributes are a client's beside what it measures: this program's version, and what the
// configuration adds.
func (a *Agent) attributes(cc *ClientConfig) map[string]string {
	all := map[string]string{"sheaf.version": a.opts.Version}
	maps.Copy(all, cc.Attributes)
	return all
}

// driverEnv is what a driver is told of the configuration.
func (c *ClientConfig) driverEnv(driver string) []string {
	if driver != "containerd" || c.Containerd == nil {
		return nil
	}
	var env []string
	for name, value := range map[string]string{"CONTAINERD_ADDRESS": c.Containerd.Address, "SHEAF_CONTAINERD_IMAGES": c.Containerd.Images} {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// check finds mistakes that the driver could only pass over.
func (c *ContainerdConfig) check() error {
	if c == nil {
		return nil
	}
	var kept time.Duration
	return durations("client.containerd", time.Minute, map[string]duration{"images": {c.Images, &kept}})
}
