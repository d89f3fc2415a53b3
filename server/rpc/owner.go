package rpc

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// speaksFor refuses a caller that speaks for a node which is not its own: a certificate is for
// the node of its name. In plain text there is no telling.
func speaksFor(ctx context.Context, snap *state.Snapshot, id sheaf.NodeID) error {
	caller, secured := wire.PeerOf(ctx)
	if !secured {
		return nil
	}
	n := snap.Node(id)
	if n == nil {
		return &sheaf.Error{Class: sheaf.Denied, Field: "node", Msg: fmt.Sprintf("%s speaks for node %s, which has not registered", caller, id)}
	}
	return ownName(caller, n.Name, id)
}

func ownName(caller pki.Identity, name string, id sheaf.NodeID) error {
	if caller.Name == name {
		return nil
	}
	return &sheaf.Error{
		Class: sheaf.Denied, Field: "node", Msg: fmt.Sprintf("%s may not speak for node %s, which is called %q", caller, id, name),
		Hint: "give the agent the certificate of its own name",
	}
}

// mayRegister refuses a registration under another name than the certificate's, and of an ID
// that a node of another name has: whoever took over an ID could report its results. See RATIONALE.md,
// "A node's ID belongs to a name".
func mayRegister(ctx context.Context, snap *state.Snapshot, n *sheaf.Node) error {
	caller, secured := wire.PeerOf(ctx)
	if !secured {
		return nil
	}
	if err := ownName(caller, n.Name, n.ID); err != nil {
		return err
	}
	if old := snap.Node(n.ID); old != nil && old.Name != n.Name {
		return &sheaf.Error{
			Class: sheaf.Denied, Field: "name", Msg: fmt.Sprintf("node %s is called %q, and %s may not take it over as %q", n.ID, old.Name, caller, n.Name),
			Hint: "a node keeps its name; under another it starts with an empty data directory",
		}
	}
	return nil
}

// registering keeps apart registrations of one ID, so that between mayRegister and the entry
// in the log no other comes. Strangers share a lock now and then, which only makes them wait.
type registering struct {
	seed    maphash.Seed
	stripes [64]sync.Mutex
}

func newRegistering() *registering { return &registering{seed: maphash.MakeSeed()} }

// hold locks the ID and gives the unlocking.
func (r *registering) hold(id sheaf.NodeID) func() {
	l := &r.stripes[maphash.String(r.seed, string(id))%uint64(len(r.stripes))]
	l.Lock()
	return l.Unlock
}
