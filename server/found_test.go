package server

import (
	"testing"

	"github.com/sheaf-run/agent/internal/gossip"
)

func TestWhoFoundsTheCluster(t *testing.T) {
	at := func(id string, expect int) gossip.Member { return gossip.Member{Server: id, Expect: expect} }
	in := gossip.Member{Server: "d", Expect: 3, Cluster: "x"}
	for _, c := range []struct {
		name    string
		servers []gossip.Member
		self    string
		expect  int
		want    founding
	}{
		{"the first of exactly three", []gossip.Member{at("a", 3), at("b", 3), at("c", 3)}, "a", 3, founds},
		{"whatever their order", []gossip.Member{at("c", 3), at("b", 3), at("a", 3)}, "a", 3, founds},
		{"not the others", []gossip.Member{at("a", 3), at("b", 3), at("c", 3)}, "b", 3, leftToThem},
		{"not two of three", []gossip.Member{at("a", 3), at("b", 3)}, "a", 3, waits},
		{"not four of three", []gossip.Member{at("a", 3), at("b", 3), at("c", 3), at("d", 3)}, "a", 3, tooMany},
		{"a server without the setting counts as one too many", []gossip.Member{at("a", 3), at("b", 3), at("c", 3), at("d", 0)}, "a", 3, tooMany},
		{"not with differing numbers", []gossip.Member{at("a", 3), at("b", 3), at("c", 5)}, "a", 3, disagrees},
		{"never where there is a cluster", []gossip.Member{at("a", 3), at("b", 3), in}, "a", 3, joins},
		{"never where there is a cluster, alone with it", []gossip.Member{at("a", 1), in}, "a", 1, joins},
		{"never without the setting", []gossip.Member{at("a", 0)}, "a", 0, isTold},
		{"not before gossip knows this server itself", nil, "a", 3, waits},
	} {
		if got := mayFound(c.servers, c.self, c.expect); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
