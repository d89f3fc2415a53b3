package consensus

import (
	"testing"

	autopilot "github.com/hashicorp/raft-autopilot"
)

// TestOnlyTheFailedAreRemoved: a server that gossip has just lost is of unknown state, and stays.
func TestOnlyTheFailedAreRemoved(t *testing.T) {
	servers := func() []*autopilot.Server {
		return []*autopilot.Server{{ID: "restarts", NodeStatus: autopilot.NodeUnknown}, {ID: "gone", NodeStatus: autopilot.NodeFailed}}
	}
	got := new(patient).FilterFailedServerRemovals(nil, nil, &autopilot.FailedServers{FailedVoters: servers(), FailedNonVoters: servers()})
	for _, list := range [][]*autopilot.Server{got.FailedVoters, got.FailedNonVoters} {
		if len(list) != 1 || list[0].ID != "gone" {
			t.Errorf("to be removed are %+v", list)
		}
	}
}
