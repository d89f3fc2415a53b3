package server_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/sheaf"
)

// await waits for what an election, or autopilot, brings about.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if cond() {
			return
		}
		timer := time.NewTimer(20 * time.Millisecond) // an outside event
		<-timer.C
	}
	t.Fatal("in vain: ", what)
}

// voters are the IDs of those who vote, as h knows them.
func voters(h *host) map[string]bool {
	v := map[string]bool{}
	for _, m := range h.Members() {
		if m.Voter {
			v[m.ID] = true
		}
	}
	return v
}

// hasten makes a server vote as soon as it is healthy.
func hasten(t *testing.T, h *host) {
	t.Helper()
	a := sheaf.DefaultAutopilot()
	a.ServerStabilizationTime = 0
	if _, err := h.SetAutopilot(t.Context(), a, 0); err != nil {
		t.Fatal(err)
	}
}

func same(a, b *host) bool {
	x, y := a.Snapshot(), b.Snapshot()
	return x.Index() == y.Index() && x.Digest() == y.Digest()
}

// TestOneServerGrowsToThreeAndBack: a lone server takes in two more, which vote after a while; one leaves,
// and comes back; the leader hands on when it stops; nothing is lost on the way.
func TestOneServerGrowsToThreeAndBack(t *testing.T) {
	t.Parallel()
	first, pool := sit(t, seat{name: "a", id: "a", expect: 1})
	<-first.Ready()
	hasten(t, first)
	first.submit(t, "r", job(count(3)))
	if err := first.Leave(t.Context()); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("the only server left: %v", err)
	}
	join := []string{pool.Address()}
	second, _ := sit(t, seat{name: "b", id: "b", expect: 1, join: join}) // told to found alone, and finds a cluster
	third, _ := sit(t, seat{name: "c", id: "c", join: join})
	hosts := []*host{first, second, third}
	await(t, "three voters", func() bool { return len(voters(first)) == 3 })
	await(t, "one state", func() bool { return same(first, second) && same(first, third) })
	if first.Snapshot().Run("r") == nil || first.Tolerance() < 0 {
		t.Errorf("run %v, tolerance %d", first.Snapshot().Run("r"), first.Tolerance())
	}
	await(t, "health of all three", func() bool {
		healthy := 0
		for _, m := range first.Members() {
			if m.Health != nil && m.Health.Healthy {
				healthy++
			}
		}
		return healthy == 3 && first.Tolerance() == 1
	})
	if err := first.RemovePeer(t.Context(), "c", false); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("removed a server that is alive: %v", err)
	}
	if err := first.RemovePeer(t.Context(), "nobody", false); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("removed a server that is not there: %v", err)
	}

	for err := error(&sheaf.Error{Class: sheaf.Unavailable}); err != nil; { // what a busy machine is too slow for is tried again
		err = first.Transfer(t.Context(), "b")
		if sheaf.ClassOf(err) == sheaf.NotLeader { // it was only told too late that it had succeeded
			break
		} else if err != nil && sheaf.ClassOf(err) != sheaf.Unavailable {
			t.Fatal(err)
		}
	}
	if leaderOf(t, hosts) != second {
		t.Error("another leads than was asked to")
	}
	for err := error(&sheaf.Error{Class: sheaf.Unavailable}); err != nil; {
		if err = second.Leave(t.Context()); err != nil && sheaf.ClassOf(err) != sheaf.Unavailable { // the leader itself
			t.Fatal(err)
		}
	}
	rest := []*host{first, third}
	leader := leaderOf(t, rest)
	if v := voters(leader); len(v) != 2 || v["b"] {
		t.Errorf("after b left, %v vote", v)
	}
	if err := second.stop(); err != nil {
		t.Error(err)
	}
	leader.submit(t, "s", job(count(3)))
	if err := leader.stop(); err != nil { // it hands on; alone, the other would have no quorum
		t.Fatal(err)
	}
}

// TestReplacedServers: a server whose data are gone takes its old place under a new ID, by its
// address; one that is gone for good is removed.
func TestReplacedServers(t *testing.T) {
	t.Parallel()
	var hosts []*host
	var pools []*gossip.Pool
	var join []string
	for i := range 3 {
		h, pool := founding(t, i, join)
		hosts, pools = append(hosts, h), append(pools, pool)
		join = []string{pools[0].Address()}
	}
	leader := leaderOf(t, hosts)
	hasten(t, leader)
	leader.submit(t, "r", job(count(3)))
	var lost, other *host
	for _, h := range hosts {
		switch {
		case h == leader:
			join = []string{pools[index(hosts, h)].Address()}
		case lost == nil:
			lost = h
		default:
			other = h
		}
	}
	if err := lost.stop(); err != nil {
		t.Fatal(err)
	}
	anew, _ := sit(t, seat{name: "s9", id: "anew", expect: 3, join: join, address: lost.address})
	await(t, "the new server votes in the place of the old", func() bool {
		v := voters(leader)
		return len(v) == 3 && v["anew"]
	})
	await(t, "one state", func() bool { return same(leader, anew) })

	// Gone for good, at another address: removed after its time.
	a := leader.Snapshot().Operator().Autopilot
	a.DeadServerAfter = sheaf.Duration(time.Millisecond)
	if _, err := leader.SetAutopilot(t.Context(), a, 0); err != nil {
		t.Fatal(err)
	}
	if err := other.stop(); err != nil {
		t.Fatal(err)
	}
	await(t, "the dead server is removed", func() bool { return len(leader.Members()) == 2 && len(voters(leader)) == 2 })
	leader.submit(t, "s", job(count(1)))
}

func index(hosts []*host, h *host) int {
	for i, x := range hosts {
		if x == h {
			return i
		}
	}
	return -1
}

// zeros never end; it counts what was taken of them.
type zeros struct{ taken int }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.taken += len(p)
	return len(p), nil
}

// TestDirectoryOfAnotherCluster: a server with the data of another cluster is not taken in, and what it
// has stays as it was; new servers go to the larger cluster.
func TestDirectoryOfAnotherCluster(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	stray, _ := sit(t, seat{name: "x", id: "x", expect: 1, dir: dir})
	<-stray.Ready()
	stray.submit(t, "its-own", job(count(1)))
	cluster := stray.Snapshot().Cluster()
	if err := stray.stop(); err != nil {
		t.Fatal(err)
	}
	first, pool := sit(t, seat{name: "a", id: "a", expect: 1})
	<-first.Ready()
	hasten(t, first)
	second, _ := sit(t, seat{name: "b", id: "b", join: []string{pool.Address()}})
	await(t, "two voters", func() bool { return len(voters(first)) == 2 })
	stray, _ = sit(t, seat{name: "x", id: "x", expect: 1, dir: dir, join: []string{pool.Address()}})
	<-stray.Ready()
	await(t, "the stray and the cluster see each other", func() bool { return len(first.Members()) == 3 && len(stray.Members()) == 3 })
	third, _ := sit(t, seat{name: "c", id: "c", join: []string{pool.Address()}}) // it comes later, and is taken in
	await(t, "three voters", func() bool { return len(voters(first)) == 3 })
	await(t, "all see each other", func() bool { return len(first.Members()) == 4 && len(stray.Members()) == 4 })
	if v := voters(first); !v["a"] || !v["b"] || !v["c"] {
		t.Errorf("%v vote", v)
	}
	if v := voters(stray); len(v) != 1 || !v["x"] || stray.Snapshot().Cluster() != cluster || stray.Snapshot().Run("its-own") == nil {
		t.Errorf("of the stray %v vote, its cluster is %+v, was %+v", v, stray.Snapshot().Cluster(), cluster)
	}
	for _, h := range []*host{first, second, third} {
		if h.Snapshot().Run("its-own") != nil || h.Snapshot().Cluster() == cluster {
			t.Error("the stray's state came over")
		}
	}
}

// TestSnapshotsGoBack: a saved state comes back on all servers, which start again from it; a damaged
// or foreign one changes nothing.
func TestSnapshotsGoBack(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	first, pool := sit(t, seat{name: "a", id: "a", expect: 1, dir: dir})
	<-first.Ready()
	hasten(t, first)
	second, _ := sit(t, seat{name: "b", id: "b", join: []string{pool.Address()}})
	await(t, "two voters", func() bool { return len(voters(first)) == 2 })
	first.submit(t, "before", job(count(3)))
	var saved bytes.Buffer
	if err := first.SaveSnapshot(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	first.submit(t, "after", job(count(3)))

	broken := bytes.Clone(saved.Bytes())
	broken[len(broken)/2] ^= 1
	for name, b := range map[string][]byte{"damaged": broken, "cut off": saved.Bytes()[:saved.Len()-1], "empty": nil, "no snapshot": []byte("{}")} {
		if _, err := first.RestoreSnapshot(t.Context(), bytes.NewReader(b), true); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	endless := &zeros{}
	if _, err := first.RestoreSnapshot(t.Context(), io.LimitReader(endless, 1<<30), true); sheaf.ClassOf(err) != sheaf.Invalid || endless.taken > 1<<20 {
		t.Errorf("%d bytes of no snapshot were taken: %v", endless.taken, err)
	}
	newer := bytes.Replace(saved.Bytes(), []byte("sheaf-raft-snapshot 1"), []byte("sheaf-raft-snapshot 9"), 1)
	if _, err := first.RestoreSnapshot(t.Context(), bytes.NewReader(newer), true); sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), "what was sent was written by a newer version") {
		t.Errorf("of a newer version: %v", err)
	}
	if first.Snapshot().Run("after") == nil {
		t.Fatal("a snapshot that was refused changed the state")
	}
	got, err := first.RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes()), false)
	if err != nil || got.Runs != 1 {
		t.Fatalf("restored %+v, %v", got, err)
	}
	await(t, "the state of before, on both", func() bool {
		return first.VerifyRead(t.Context()) == nil && first.Snapshot().Run("after") == nil && first.Snapshot().Run("before") != nil && same(first, second)
	})
	first.submit(t, "later", job(count(1)))
	await(t, "what came later, on both", func() bool { return second.Snapshot().Run("later") != nil })
	if err := errors.Join(second.stop(), first.stop()); err != nil {
		t.Fatal(err)
	}

	// Its log begins behind a gap now. The other voter is gone for good: this one goes on alone.
	if _, err := server.Recover(dir, []consensus.Peer{{ID: "a", Address: first.address, Voter: true}}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	again, _ := sit(t, seat{name: "a", id: "a", expect: 1, dir: dir, address: first.address})
	<-again.Ready()
	if again.Snapshot().Run("later") == nil || len(voters(again)) != 1 {
		t.Errorf("run %v, voters %v", again.Snapshot().Run("later"), voters(again))
	}

	// Another cluster takes the state only by force, and stays itself.
	other, _ := sit(t, seat{name: "x", id: "x", expect: 1})
	<-other.Ready()
	own := other.Snapshot().Cluster()
	if _, err := other.RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes()), false); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("a snapshot of another cluster: %v", err)
	}
	if _, err := other.RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes()), true); err != nil {
		t.Fatal(err)
	}
	if s := other.Snapshot(); s.Cluster() != own || s.Run("before") == nil {
		t.Errorf("cluster %+v, was %+v; run %v", s.Cluster(), own, s.Run("before"))
	}
}

// TestDamagedServerBeginsAnew: a voter whose log is damaged names the command, and after it
// is one of three again with the same state.
func TestDamagedServerBeginsAnew(t *testing.T) {
	t.Parallel()
	leader, pool := sit(t, seat{name: "a", id: "a", expect: 1})
	<-leader.Ready()
	hasten(t, leader)
	join := []string{pool.Address()}
	dir := tempDir(t)
	hurt, _ := sit(t, seat{name: "b", id: "b", join: join, dir: dir})
	sit(t, seat{name: "c", id: "c", join: join})
	await(t, "three voters", func() bool { return len(voters(leader)) == 3 })
	leader.submit(t, "r", job(count(3)))
	await(t, "one state", func() bool { return same(leader, hurt) })
	if err := hurt.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "raft", "log.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[40] ^= 1 // in the first page
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	broken, _ := sit(t, seat{name: "b", id: "b", join: join, dir: dir, address: hurt.address})
	err = <-broken.done
	broken.done <- err
	var named *sheaf.Error
	if !errors.As(err, &named) || !strings.Contains(named.Hint, "agent operator raft reset -data-dir") || !strings.Contains(named.Msg, path) {
		t.Fatalf("the damage is told as %v", err)
	}
	if _, err := consensus.Reset(dir, "b2", false); err != nil {
		t.Fatal(err)
	}
	anew, _ := sit(t, seat{name: "b", id: "b2", join: join, dir: dir, address: hurt.address})
	await(t, "it votes again, and the old one does not", func() bool { v := voters(leader); return len(v) == 3 && v["b2"] })
	await(t, "one state", func() bool { return same(leader, anew) })

	alone := tempDir(t)
	x, _ := sit(t, seat{name: "x", id: "x", expect: 1, dir: alone})
	<-x.Ready()
	if err := x.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := consensus.Reset(alone, "x2", false); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("the only server was reset: %v", err)
	}
}
