// Package gossip is a region's LAN pool: which agents are there, in which roles, and at
// which address they answer RPC. It is how clients find servers, how servers
// bootstrap, and the first hint that an agent died. All it says is a hint: without a
// key any process can join, so nothing is decided by it alone.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// leaveTimeout is how long a leaving member waits for its farewell to be
	// sent; a few rounds of gossip. Without it others find out by probing.
	leaveTimeout = 500 * time.Millisecond
	// updateTimeout bounds the spreading of a change of ours.
	updateTimeout = time.Second
	// joinFirst and joinMax bound the pauses between attempts to join; an agent
	// that starts before its servers is in within a few seconds of theirs.
	joinFirst = 100 * time.Millisecond
	joinMax   = 15 * time.Second
)

// Config is what a pool needs to know of its agent.
type Config struct {
	Self      Member   // Name and Region are needed
	Bind      string   // host:port; port 0 takes any
	Advertise string   // host:port others are told; empty is the bound address
	Join      []string // addresses of members; empty founds a pool
	Key       []byte   // 16, 24 or 32 bytes; empty is no encryption
	// KeyringFile keeps the keys of a rotation, and goes before Key once it is there; empty keeps none.
	KeyringFile string
	Logger      *slog.Logger // needed
}

// Pool is the membership of one agent. Its methods may be called
// concurrently, also before and after Run.
type Pool struct {
	conf *memberlist.Config
	join []string
	log  *slog.Logger

	keyringFile string
	keyring     sync.Mutex // held while keys are read or changed

	ready chan struct{} // closed once the listeners stand
	tried chan struct{} // closed once joining was tried, or there was nothing to join

	mu      sync.Mutex
	self    Member
	list    *memberlist.Memberlist // nil before Ready
	own     string                 // the address of this agent's member; memberlist writes into its own while it spreads a change
	members map[string]Member      // alive, by name, this agent included
	lost    map[string]absence     // held for dead, by name
	changed chan struct{}          // closed and replaced at each change of members
	dirty   chan struct{}          // of size 1: self has changed
}

// New checks the configuration. It opens nothing; Run does.
func New(c Config) (*Pool, error) {
	if c.Self.Name == "" {
		return nil, errors.New("gossip: the member has no name")
	}
	if len(c.Self.encode()) > memberlist.MetaMaxSize {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "name", Msg: "the agent's names and addresses are too long for gossip", Limit: strconv.Itoa(memberlist.MetaMaxSize) + " bytes"}
	}
	host, port, err := splitHostPort("gossip.bind", c.Bind)
	if err != nil {
		return nil, err
	}
	conf := memberlist.DefaultLANConfig()
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		// One machine: no network to be patient with.
		conf = memberlist.DefaultLocalConfig()
	}
	conf.Name = c.Self.Name
	conf.BindAddr, conf.BindPort, conf.AdvertisePort = host, port, port
	if c.Advertise != "" {
		conf.AdvertiseAddr, conf.AdvertisePort, err = splitHostPort("gossip.advertise", c.Advertise)
		if err != nil {
			return nil, err
		}
	}
	// The label keeps pools of different regions apart that reach each other by mistake.
	conf.Label = "sheaf/" + c.Self.Region
	if len(conf.Label) > memberlist.LabelMaxSize {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "region", Msg: fmt.Sprintf("region name %q is too long", c.Self.Region)}
	}
	if conf.Keyring, err = loadKeys(c); err != nil {
		return nil, err
	}
	p := &Pool{
		conf: conf, join: c.Join, log: c.Logger, self: c.Self, keyringFile: c.KeyringFile,
		ready: make(chan struct{}), tried: make(chan struct{}), members: map[string]Member{}, lost: map[string]absence{},
		changed: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	conf.Delegate, conf.Events = delegate{p}, delegate{p}
	conf.Logger = log.New(&lineLogger{log: c.Logger}, "", 0)
	return p, nil
}

// Run takes part until ctx ends, then says farewell. It fails only when its
// address cannot be bound; joining is tried for as long as it takes.
func (p *Pool) Run(ctx context.Context) error {
	list, err := memberlist.Create(p.conf)
	if err != nil {
		return fmt.Errorf("start gossip on %s: %w", net.JoinHostPort(p.conf.BindAddr, strconv.Itoa(p.conf.BindPort)), err)
	}
	p.mu.Lock()
	p.list, p.own = list, list.LocalNode().Address() // before anybody changes the node
	p.mu.Unlock()
	close(p.ready)

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.keepJoining(gctx, list) })
	g.Go(func() error { return p.keepUpdating(gctx, list) })
	<-gctx.Done()
	err = g.Wait()
	if leaveErr := list.Leave(leaveTimeout); leaveErr != nil {
		p.log.Debug("gossip farewell", "error", leaveErr)
	}
	if stopErr := list.Shutdown(); stopErr != nil && err == nil {
		err = fmt.Errorf("stop gossip: %w", stopErr)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keepUpdating spreads changes of what is said of this agent.
func (p *Pool) keepUpdating(ctx context.Context, list *memberlist.Memberlist) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.dirty:
		}
		if err := list.UpdateNode(updateTimeout); err != nil {
			p.log.Warn("spread a change of this agent by gossip", "error", err)
		}
	}
}

// Ready is closed once the pool listens. Joining goes on behind it.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// Tried is closed once the pool has tried to join: from then on Members holds whom it found.
func (p *Pool) Tried() <-chan struct{} { return p.tried }

// Joins reports whether the pool has addresses to join.
func (p *Pool) Joins() bool { return len(p.join) > 0 }

// Address is where others join, "host:port"; it is known after Ready.
func (p *Pool) Address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own
}

// Update changes what is said of this agent. Name and Region stay as they are.
func (p *Pool) Update(change func(*Member)) {
	p.mu.Lock()
	name, region := p.self.Name, p.self.Region
	change(&p.self)
	p.self.Name, p.self.Region = name, region
	p.mu.Unlock()
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

func splitHostPort(field, address string) (string, int, error) {
	host, portText, err := net.SplitHostPort(address)
	port, convErr := strconv.Atoi(portText)
	if err != nil || convErr != nil || port < 0 || port > 65535 {
		return "", 0, &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: fmt.Sprintf("%q is no address", address), Hint: `write it as "host:port"`}
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, nil
}
