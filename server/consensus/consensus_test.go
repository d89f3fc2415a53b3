package consensus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waiting for what takes milliseconds, or an election at most.
const patience = time.Minute

// ledger is a machine that keeps every command, in order.
type ledger struct {
	mu       sync.Mutex
	commands [][]byte
	haltAt   []byte // a command that it cannot understand
}

func (l *ledger) Apply(index uint64, command []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.haltAt != nil && bytes.Equal(command, l.haltAt) {
		return nil, errors.New("unknown command")
	}
	l.commands = append(l.commands, bytes.Clone(command))
	return len(l.commands), nil
}

type page [][]byte

func (p page) WriteTo(w io.Writer) (int64, error) { return 0, json.NewEncoder(w).Encode(p) }

func (l *ledger) Image() (consensus.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return page(l.commands[:len(l.commands):len(l.commands)]), nil
}

func (l *ledger) Restore(r io.Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = nil
	return json.NewDecoder(r).Decode(&l.commands)
}

func (l *ledger) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commands[:len(l.commands):len(l.commands)]
}

// member is one server with its mux.
type member struct {
	*consensus.Node
	ledger *ledger
	leads  chan uint64 // terms, as they begin
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

// stop ends the server and gives what Run returned.
func (m *member) stop() error {
	m.once.Do(func() { m.cancel(); m.err = <-m.done })
	return m.err
}

type options struct {
	dir      string
	listener net.Listener
	founders []consensus.Peer
	id       string
	haltAt   string
	election time.Duration
}

func identity(t *testing.T, dir, id string) consensus.Identity {
	t.Helper()
	if dir == "" {
		return consensus.Identity{Server: id, Region: "test"}
	}
	it, err := consensus.ReadIdentity(dir, id, "test")
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, o options) *member {
	t.Helper()
	if o.listener == nil {
		o.listener = listen(t)
	}
	if o.id == "" {
		o.id = "one"
	}
	mux := wire.NewMux(o.listener)
	m := &member{ledger: &ledger{}, leads: make(chan uint64, 16), done: make(chan error, 1)}
	if o.haltAt != "" {
		m.ledger.haltAt = []byte(o.haltAt)
	}
	c := consensus.Config{
		Identity: identity(t, o.dir, o.id), DataDir: o.dir, Address: o.listener.Addr().String(), Listener: mux.Raft(),
		Machine: m.ledger, Logger: slog.New(slog.DiscardHandler), Election: o.election,
		Lead: func(ctx context.Context, term uint64) error {
			m.leads <- term
			<-ctx.Done()
			return ctx.Err()
		},
	}
	if o.founders != nil {
		c.Founders = func(context.Context) ([]consensus.Peer, error) { return o.founders, nil }
	}
	node, err := consensus.New(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Node = node
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	muxed := make(chan error, 1)
	muxCtx, stopMux := context.WithCancel(context.Background())
	go func() { muxed <- mux.Run(muxCtx) }()
	go func() {
		err := node.Run(ctx)
		stopMux()
		m.done <- errors.Join(err, <-muxed)
	}()
	t.Cleanup(func() { m.stop() })
	return m
}

// lead waits until m leads.
func (m *member) lead(t *testing.T) *member {
	t.Helper()
	select {
	case <-m.leads:
	case err := <-m.done:
		m.done <- err
		t.Fatalf("the server ended: %v", err)
	case <-time.After(patience):
		t.Fatal("the server did not come to lead")
	}
	return m
}

// hear waits until m knows who leads: the others are a majority without it.
func (m *member) hear(t *testing.T, leader string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := m.Changed()
		if address, _ := m.Leader(); address == leader {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("a follower has not heard of the leader at %s", leader)
		}
	}
}

func (m *member) apply(t *testing.T, command string) {
	t.Helper()
	if _, _, err := m.Apply(t.Context(), []byte(command)); err != nil {
		t.Fatalf("apply %q: %v", command, err)
	}
}

func commands(from, to int) [][]byte {
	var c [][]byte
	for i := from; i < to; i++ {
		c = append(c, binary.BigEndian.AppendUint32([]byte("command "), uint32(i)))
	}
	return c
}

func TestAloneInMemory(t *testing.T) {
	m := start(t, options{}).lead(t)
	reply, index, err := m.Apply(t.Context(), []byte("a"))
	if err != nil || reply != 1 || index == 0 {
		t.Fatalf("apply: reply %v at %d, %v", reply, index, err)
	}
	if err := m.VerifyLeader(t.Context()); err != nil {
		t.Errorf("verify: %v", err)
	}
	if a, self := m.Leader(); !self || a == "" {
		t.Errorf("leader is %q, self %t", a, self)
	}
	if err := m.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, _, err := m.Apply(t.Context(), []byte("b")); sheaf.ClassOf(err) != sheaf.Unavailable {
		t.Errorf("apply after the end: %v", err)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	m := start(t, options{dir: dir}).lead(t)
	want := commands(0, 200)
	for _, c := range want {
		m.apply(t, string(c))
	}
	if err := m.SetCluster("c0ffee"); err != nil {
		t.Fatal(err)
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	m = start(t, options{dir: dir}).lead(t)
	if got := m.ledger.all(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a restart there are %d commands, want the same %d", len(got), len(want))
	}
	if err := m.SetCluster("decade"); !errors.Is(err, consensus.ErrForeign) {
		t.Errorf("another cluster's log in this directory: %v", err)
	}
}

// The log must be bounded by bytes, the state survive in the snapshot, and the FSM go on meanwhile.
func TestSnapshotsBoundTheLog(t *testing.T) {
	dir := t.TempDir()
	m := start(t, options{dir: dir}).lead(t)
	big := bytes.Repeat([]byte("x"), 60<<10)
	for i := range 700 { // 42 MB, the bound is 16
		binary.BigEndian.PutUint32(big, uint32(i))
		m.apply(t, string(big))
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*.snap"))
	if err != nil || len(found) == 0 || len(found) > 2 {
		t.Fatalf("snapshots: %v, %v", found, err)
	}
	m = start(t, options{dir: dir}).lead(t)
	got := m.ledger.all()
	if len(got) != 700 || binary.BigEndian.Uint32(got[699]) != 699 {
		t.Errorf("restored %d commands", len(got))
	}
}

func TestHaltedMachineEndsTheServer(t *testing.T) {
	dir := t.TempDir()
	m := start(t, options{dir: dir, haltAt: "from the future"}).lead(t)
	m.apply(t, "a")
	if _, _, err := m.Apply(t.Context(), []byte("from the future")); err == nil {
		t.Error("a command that was not applied was acknowledged")
	}
	select {
	case err := <-m.done:
		if err == nil {
			t.Error("Run ended without saying why")
		}
		m.done <- nil
	case <-time.After(patience):
		t.Fatal("the server went on after its machine halted")
	}
}

// steady is longer than a machine under load stalls for: the leader changes when a test wants it to.
const steady = 3 * time.Second

// three starts three servers that found a cluster together.
func three(t *testing.T) []*member {
	t.Helper()
	var founders []consensus.Peer
	var listeners []net.Listener
	for i := range 3 {
		l := listen(t)
		listeners = append(listeners, l)
		founders = append(founders, consensus.Peer{ID: fmt.Sprint("s", i), Address: l.Addr().String()})
	}
	var members []*member
	for i, l := range listeners {
		members = append(members, start(t, options{dir: t.TempDir(), listener: l, id: fmt.Sprint("s", i), founders: founders, election: steady}))
	}
	return members
}

// awaitLeader gives the one that leads.
func awaitLeader(t *testing.T, members []*member) *member {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := members[0].Changed()
		for _, m := range members {
			select {
			case <-m.leads:
				return m
			default:
			}
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no leader")
		}
	}
}

func TestThreeLoseTheirLeader(t *testing.T) {
	members := three(t)
	leader := awaitLeader(t, members)
	want := commands(0, 100)
	for _, c := range want {
		leader.apply(t, string(c))
	}
	var rest []*member
	for _, m := range members {
		if m != leader {
			rest = append(rest, m)
			address, _ := leader.Leader()
			m.hear(t, address)
			_, _, err := m.Apply(t.Context(), []byte("no"))
			var le *consensus.LeaderError
			if sheaf.ClassOf(err) != sheaf.NotLeader || !errors.As(err, &le) || le.Address != address {
				t.Errorf("a follower answers %v, want where the leader is", err)
			}
		}
	}
	if err := leader.stop(); err != nil {
		t.Fatal(err)
	}
	next := awaitLeader(t, rest)
	more := commands(100, 150)
	for _, c := range more {
		next.apply(t, string(c))
	}
	if got := next.ledger.all(); fmt.Sprint(got) != fmt.Sprint(append(want, more...)) {
		t.Errorf("the new leader has %d commands, want 150 in order", len(got))
	}
	// Without a quorum writes must fail, not hang.
	for _, m := range rest {
		if m != next {
			m.stop()
		}
	}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, _, err := next.Apply(ctx, []byte("lost"))
		cancel()
		if class := sheaf.ClassOf(err); class == sheaf.Unavailable || class == sheaf.NotLeader {
			break
		} else if err != nil {
			t.Fatalf("apply without a quorum: %v", err)
		}
	}
}

func TestDirectoryOfAnother(t *testing.T) {
	dir := t.TempDir()
	if _, err := consensus.ReadIdentity(dir, "one", "eu"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "raft", "identity.json")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ id, region string }{{"one", "us"}, {"two", "eu"}} {
		if _, err := consensus.ReadIdentity(dir, c.id, c.region); !errors.Is(err, consensus.ErrForeign) {
			t.Errorf("as %s in %s: %v, want a refusal", c.id, c.region, err)
		}
	}
	if it, err := consensus.ReadIdentity(dir, "", "eu"); err != nil || it.Server != "one" {
		t.Errorf("as itself: %+v, %v", it, err)
	}
	newer := bytes.Replace(before, []byte(`"format":1`), []byte(`"format":2`), 1)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := consensus.ReadIdentity(dir, "", "eu"); !errors.Is(err, consensus.ErrForeign) {
		t.Errorf("a newer version's directory: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, newer) {
		t.Error("the refused directory was changed")
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	start(t, options{dir: dir}).lead(t)
	second := start(t, options{dir: dir})
	if err := <-second.done; sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("a second server on the same directory: %v", err)
	}
	second.done <- nil
}
