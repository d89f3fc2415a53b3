package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/rpc"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// seat is where a server of a test runs.
type seat struct {
	name, id string
	expect   int
	join     []string
	dir      string // its data; any unless told
	address  string // of its RPC; any unless told
}

// founding starts one of three servers that find each other by gossip.
func founding(t *testing.T, i int, join []string) (*host, *gossip.Pool) {
	t.Helper()
	id := fmt.Sprint("s", i)
	return sit(t, seat{name: id, id: id, expect: 3, join: join})
}

// steady is longer than a machine under load stalls for: the leader changes when a test wants it to.
const steady = 3 * time.Second

// sit starts a server that finds others by gossip.
func sit(t *testing.T, at seat) (*host, *gossip.Pool) {
	t.Helper()
	if at.address == "" {
		at.address = freeAddress(t)
	}
	if at.dir == "" {
		at.dir = tempDir(t)
	}
	l, err := net.Listen("tcp", at.address)
	if err != nil {
		t.Fatal(err)
	}
	mux := wire.NewMux(l)
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("SHEAF_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", at.id)
	}
	pool, err := gossip.New(gossip.Config{
		Self: gossip.Member{Name: at.name, Region: "test", Server: at.id, Address: l.Addr().String(), Expect: at.expect},
		Bind: "127.0.0.1:0", Join: at.join, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{ID: at.id, Region: "test", DataDir: at.dir, Address: l.Addr().String(), Expect: at.expect, Raft: mux.Raft(), Gossip: pool, Logger: logger, Election: steady,
		Heartbeat: server.Heartbeat{Lease: patience}})
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(wire.ServerOptions()...)
	s.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	below, stopBelow := context.WithCancel(context.Background())
	h := &host{Server: s, address: l.Addr().String(), cancel: cancel, done: make(chan error, 1)}
	ended := make(chan error, 3)
	go func() { ended <- mux.Run(below) }()
	go func() { ended <- pool.Run(below) }()
	go func() { ended <- g.Serve(mux.GRPC()) }()
	go func() {
		err := s.Run(ctx)
		g.Stop()
		stopBelow()
		h.done <- errors.Join(err, <-ended, <-ended, <-ended)
	}()
	t.Cleanup(func() { h.stop() })
	<-pool.Ready()
	return h, pool
}

// leaderOf waits until one of the hosts leads and takes work.
func leaderOf(t *testing.T, hosts []*host) *host {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, h := range hosts {
			if h.VerifyRead(t.Context()) == nil {
				return h
			}
		}
		timer := time.NewTimer(20 * time.Millisecond) // an outside event: an election
		<-timer.C
	}
	t.Fatal("no leader")
	return nil
}

func TestThreeServersLoseTheirLeader(t *testing.T) {
	t.Parallel() // it waits for elections
	var hosts []*host
	var join []string
	for i := range 3 {
		h, pool := founding(t, i, join)
		hosts = append(hosts, h)
		join = []string{pool.Address()}
	}
	first := leaderOf(t, hosts)
	cluster := first.Snapshot().Cluster().ID
	if cluster == "" || len(first.Members()) != 3 {
		t.Fatalf("cluster %q with %+v", cluster, first.Members())
	}

	// A follower says where the leader is.
	var rest []*host
	for _, h := range hosts {
		if h != first {
			rest = append(rest, h)
		}
	}
	<-rest[0].Ready()
	conn, err := wire.Dialer{}.Server(rest[0].address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var trailer metadata.MD
	_, err = wire.NewServersClient(conn).Register(t.Context(), &wire.RegisterRequest{}, grpc.Trailer(&trailer))
	if got := trailer.Get(rpc.LeaderTrailer); status.Code(err) != codes.FailedPrecondition || len(got) != 1 || got[0] != first.address {
		t.Errorf("a follower answers %v, trailer %v; the leader is at %s", err, got, first.address)
	}
	if _, err := rest[0].Submit(t.Context(), "no", job()); sheaf.ClassOf(err) != sheaf.NotLeader {
		t.Errorf("submitted to a follower: %v", err)
	}

	held := func(w work) bool { return w.partition < 4 }
	f := newFake(t, first, "a", func(w work) sheaf.Outcome {
		if held(w) {
			return 0
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	first.submit(t, "r", job(count(300)))
	first.awaitRun(t, "r", "all but what is held", func(r *state.Run) bool { return r.Counts().Succeeded == 296 })
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	<-f.gone

	next := leaderOf(t, rest)
	if got := next.Snapshot().Cluster().ID; got != cluster {
		t.Errorf("the new leader's cluster is %s, it was %s", got, cluster)
	}
	back := newFake(t, next, "a", succeed)
	back.connect(&wire.Hello{Queued: []*wire.Executions{{Run: "r", Generation: 1, First: []uint32{0}, Count: []uint32{4}, Attempt: []uint32{1}}}})
	r := &wire.Results{Run: "r", Generation: 1, Node: "a", Session: back.session}
	for p := range uint32(4) {
		add(r, work{"r", 0, 1, p, 1}, sheaf.OutcomeSucceeded)
	}
	back.out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: r}}
	run := next.awaitStatus(t, "r", sheaf.RunSucceeded)
	sameEvents(t, rest)
	for p := range 300 {
		if row := run.Row(p); row.Attempt != 1 || row.Losses != 0 {
			t.Fatalf("partition %d was touched by the change of leader: %+v", p, row)
		}
	}
}

// sameEvents fails unless both servers tell the same of the entries that both have applied.
func sameEvents(t *testing.T, hosts []*host) {
	t.Helper()
	upTo := min(hosts[0].Events().Index(), hosts[1].Events().Index())
	var all [2][]sheaf.Event
	for i := range all {
		events, _, _ := hosts[i].Events().Since(0, sheaf.Topics, 1<<20)
		for _, e := range events {
			if e.Index <= upTo {
				all[i] = append(all[i], e)
			}
		}
	}
	if len(all[0]) < 10 || !reflect.DeepEqual(all[0], all[1]) {
		t.Errorf("up to entry %d one server has %d events, the other %d: %+v\n%+v", upTo, len(all[0]), len(all[1]), all[0], all[1])
	}
}
