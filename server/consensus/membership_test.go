package consensus

import (
	"fmt"
	"testing"
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
