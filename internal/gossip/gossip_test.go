package gossip_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sheaf-run/agent/e2e/port"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) {
	// memberlist waits for its last probe by TCP beyond Shutdown.
	leaktest.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// found bounds the waiting for what gossip spreads in milliseconds on loopback.
const found = time.Minute

type running struct {
	*gossip.Pool
	stop func()
}

func start(t *testing.T, c gossip.Config) running {
	t.Helper()
	c.Logger = slog.New(slog.DiscardHandler)
	return startLogged(t, c)
}

func startLogged(t *testing.T, c gossip.Config) running {
	t.Helper()
	if c.Bind == "" {
		c.Bind = "127.0.0.1:0"
	}
	p, err := gossip.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	select {
	case <-p.Ready():
	case err := <-done:
		t.Fatalf("the pool of %s ended at once: %v", c.Self.Name, err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return running{p, stop}
}

// await waits until ok holds of the pool's members.
func await(t *testing.T, p running, what string, ok func([]gossip.Member) bool) []gossip.Member {
	t.Helper()
	deadline := time.After(found)
	for {
		changed := p.Changed()
		members := p.Members()
		if ok(members) {
			return members
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: members stayed %+v", what, members)
		}
	}
}

func TestClientFindsItsServer(t *testing.T) {
	server := start(t, gossip.Config{Self: gossip.Member{Name: "s", Region: "eu", Server: "s", Address: "127.0.0.1:7611", Expect: 1}})
	client := start(t, gossip.Config{Self: gossip.Member{Name: "c", Region: "eu", Node: "c"}, Join: []string{server.Address()}})

	// Under load the server may be held for dead in between, and is found again.
	var got gossip.Member
	sees := func() bool {
		servers := client.Servers()
		if len(servers) == 1 {
			got = servers[0]
		}
		return len(servers) == 1
	}
	await(t, client, "client sees the server", func([]gossip.Member) bool { return sees() })
	if got.Server != "s" || got.Address != "127.0.0.1:7611" || got.Expect != 1 || got.Gossip != server.Address() {
		t.Errorf("the server is known as %+v", got)
	}

	// A change spreads.
	server.Update(func(m *gossip.Member) { m.Cluster = "c0ffee" })
	await(t, client, "client sees the cluster's ID", func([]gossip.Member) bool { return sees() && got.Cluster == "c0ffee" })

	// A farewell is heard.
	await(t, server, "server sees the client", func(m []gossip.Member) bool { return len(m) == 2 })
	client.stop()
	await(t, server, "server hears the farewell", func(m []gossip.Member) bool { return len(m) == 1 })
}

// One process that is both has one membership and finds itself.
func TestBothRolesShareAMember(t *testing.T) {
	both := start(t, gossip.Config{Self: gossip.Member{Name: "a", Region: "eu", Server: "s", Node: "n", Address: "127.0.0.1:1"}})
	if got := both.Servers(); len(got) != 1 || got[0].Node != sheaf.NodeID("n") {
		t.Errorf("servers of a lone agent: %+v", got)
	}
}

func TestPoolsKeepApart(t *testing.T) {
	key := []byte("0123456789abcdef")
	server := start(t, gossip.Config{Self: gossip.Member{Name: "s", Region: "eu", Server: "s"}, Key: key})
	other := start(t, gossip.Config{Self: gossip.Member{Name: "x", Region: "us"}, Key: key, Join: []string{server.Address()}})
	wrongKey := start(t, gossip.Config{Self: gossip.Member{Name: "y", Region: "eu"}, Key: []byte("fedcba9876543210"), Join: []string{server.Address()}})
	same := start(t, gossip.Config{Self: gossip.Member{Name: "z", Region: "eu"}, Key: key, Join: []string{server.Address()}})
	await(t, same, "the right key joins", func(m []gossip.Member) bool { return len(m) == 2 })
	if n := len(other.Members()) + len(wrongKey.Members()); n != 2 {
		t.Errorf("another region or a wrong key joined: %v %v", other.Members(), wrongKey.Members())
	}
}

func TestNewNamesMistakes(t *testing.T) {
	for _, c := range []gossip.Config{
		{Self: gossip.Member{Name: "a"}, Bind: "nowhere"},
		{Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:99999"},
		{Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:0", Key: []byte("short")},
		{Self: gossip.Member{Name: "a", Version: string(make([]byte, 600))}, Bind: "127.0.0.1:0"},
	} {
		if _, err := gossip.New(c); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("New(%+v): got %v, want an invalid configuration", c, err)
		}
	}
}

// TestJoiningItself: an agent whose own address stands first among those to join goes on until it has found another.
func TestJoiningItself(t *testing.T) {
	later := freeAddress(t)
	first := start(t, gossip.Config{Self: gossip.Member{Name: "a", Region: "eu"}, Bind: freeAddress(t), Join: []string{later}})
	self := freeAddress(t)
	both := start(t, gossip.Config{Self: gossip.Member{Name: "b", Region: "eu"}, Bind: self, Join: []string{self, later}})
	second := start(t, gossip.Config{Self: gossip.Member{Name: "c", Region: "eu"}, Bind: later})
	for _, p := range []running{first, both, second} {
		await(t, p, "all three see each other", func(m []gossip.Member) bool { return len(m) == 3 })
	}
}

// TestMembersAreJoinedAgain: a member that comes back with no address to join is found by those that have its own.
func TestMembersAreJoinedAgain(t *testing.T) {
	address := freeAddress(t)
	gone := start(t, gossip.Config{Self: gossip.Member{Name: "a", Region: "eu"}, Bind: address})
	stays := start(t, gossip.Config{Self: gossip.Member{Name: "b", Region: "eu"}, Join: []string{address}})
	await(t, stays, "both are there", func(m []gossip.Member) bool { return len(m) == 2 })
	gone.stop()
	await(t, stays, "one is gone", func(m []gossip.Member) bool { return len(m) == 1 })
	back := start(t, gossip.Config{Self: gossip.Member{Name: "a", Region: "eu"}, Bind: address})
	await(t, back, "it is found again", func(m []gossip.Member) bool { return len(m) == 2 })
}

func freeAddress(t *testing.T) string {
	t.Helper()
	at, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at)
}
