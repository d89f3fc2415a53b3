package consensus

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	autopilot "github.com/hashicorp/raft-autopilot"
)

// TestWhoIsTakenIn: what the leader does about a member of the gossip pool.
func TestWhoIsTakenIn(t *testing.T) {
	peers := []Peer{{"a", "h1:1", true}, {"b", "h2:1", true}, {"c", "h3:1", false}}
	for _, c := range []struct {
		name  string
		m     Member
		alive []string
		want  string
	}{
		{"one that is there", Member{ID: "b", Address: "h2:1"}, []string{"a", "b", "c"}, ""},
		{"a new one", Member{ID: "d", Address: "h4:1"}, []string{"a", "b", "c", "d"}, "taking in a server, as a nonvoter at first d"},
		{"a voter that moved", Member{ID: "b", Address: "h9:1"}, []string{"a", "b", "c"}, "following a voter to its new address b"},
		{"a nonvoter that moved", Member{ID: "c", Address: "h9:1"}, []string{"a", "b", "c"}, "following a nonvoter to its new address c"},
		{"in the place of one that is gone", Member{ID: "d", Address: "h2:1"}, []string{"a", "c", "d"}, "removing a server that another replaces b, taking in a server, as a nonvoter at first d"},
		{"in the place of one that is alive", Member{ID: "d", Address: "h2:1"}, []string{"a", "b", "c", "d"}, ""},
		{"in the leader's place", Member{ID: "d", Address: "h1:1"}, []string{"b", "c", "d"}, ""},
	} {
		alive := map[string]bool{}
		for _, id := range c.alive {
			alive[id] = true
		}
		got := ""
		for i, x := range changesFor(peers, c.m, "a", alive) {
			if i > 0 {
				got += ", "
			}
			got += fmt.Sprint(x.say, " ", x.id)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestTwoClustersInOnePool: new servers are left to the larger one, and a nonvoter gets its vote only from the cluster that it says
// it belongs to.
func TestTwoClustersInOnePool(t *testing.T) {
	pool := func(clusters ...string) (list []Member) {
		for _, c := range clusters {
			list = append(list, Member{Cluster: c})
		}
		return list
	}
	for _, c := range []struct {
		members []Member
		want    bool
	}{
		{pool("ours"), false},
		{pool("ours", "", "", ""), false},
		{pool("ours", "theirs"), false},
		{pool("ours", "theirs", "theirs"), true},
		{pool("ours", "ours", "theirs", "theirs", "other"), false},
		{pool("ours", "ours", "theirs", "other", "other", "other"), true},
	} {
		if got := outnumbered(c.members, "ours"); got != c.want {
			t.Errorf("among %v: %v", c.members, got)
		}
	}
	for _, c := range []struct {
		its, ours string
		voter     bool
		want      autopilot.NodeStatus
	}{
		{"ours", "ours", false, autopilot.NodeAlive},
		{"", "ours", false, autopilot.NodeUnknown},
		{"theirs", "ours", false, autopilot.NodeFailed},
		{"", "", false, autopilot.NodeAlive}, // the founders, before the log has named their cluster
		{"", "ours", true, autopilot.NodeAlive},
	} {
		if got := standing(c.its, c.ours, c.voter); got != c.want {
			t.Errorf("%q in %q, votes %v: %s", c.its, c.ours, c.voter, got)
		}
	}
}

// TestFirstGreetingBinds: a server without a cluster hears of entries from one cluster only.
func TestFirstGreetingBinds(t *testing.T) {
	first, second := strings.Repeat("a", clusterIDSize), strings.Repeat("b", clusterIDSize)
	n := &Node{changed: make(chan struct{})}
	n.cluster.Store(new(string))
	n.config.DataDir = t.TempDir()
	n.config.Identity = Identity{Format: directoryFormat, Server: "s", Region: "r"}
	s := &streams{cluster: func() string { return *n.cluster.Load() }, join: n.SetCluster, log: slog.New(slog.DiscardHandler)}
	hear := func(cluster string) error {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		go func() {
			greeting := make([]byte, greetingSize)
			greeting[0] = greetingFormat
			copy(greeting[1:], cluster)
			_, _ = there.Write(greeting)
		}()
		return (&raftConn{Conn: here, streams: s}).check()
	}
	for i, c := range []struct {
		cluster string
		taken   bool
		bound   string
	}{{"", true, ""}, {first, true, first}, {second, false, first}, {"", true, first}, {first, true, first}} {
		if err := hear(c.cluster); (err == nil) != c.taken || *n.cluster.Load() != c.bound {
			t.Errorf("greeting %d: %v, bound to %q", i, err, *n.cluster.Load())
		}
	}
	if it, err := ReadIdentity(n.config.DataDir, "s", "r"); err != nil || it.Cluster != first {
		t.Errorf("after a restart it is %+v, %v", it, err)
	}
}
