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

// worksOn refuses a client that has nothing of a run: what the run is made of is not its concern. That
// there is no such run is not either.
func worksOn(ctx context.Context, snap *state.Snapshot, r *state.Run) error {
	caller, secured := wire.PeerOf(ctx)
	if !secured || caller.Role == pki.Server {
		return nil
	}
	if r != nil {
		for n := range snap.Nodes() {
			if n.Name == caller.Name && snap.AssignedOn(r, n.Number) > 0 {
				return nil
			}
		}
	}
	return &sheaf.Error{Class: sheaf.Denied, Field: "run", Msg: fmt.Sprintf("%s has no execution of this run", caller)}
}

// ownReader refuses a client that asks in the name of a node which is not its own, or of none.
func ownReader(ctx context.Context, snap *state.Snapshot, id sheaf.NodeID) error {
	if caller, secured := wire.PeerOf(ctx); !secured || caller.Role == pki.Server {
		return nil
	}
	return speaksFor(ctx, snap, id)
}

// merges refuses a client that is not the one which merges a run, or runs its reduce: the list of outputs comes with a
// token to read them all.
func merges(ctx context.Context, reader *state.Node, r *state.Run, merge, reduce uint32) error {
	caller, secured := wire.PeerOf(ctx)
	if !secured || caller.Role == pki.Server || merge != 0 && r.Merge.Node == reader.Number || reduce != 0 && r.Reduce.Node == reader.Number {
		return nil
	}
	return &sheaf.Error{Class: sheaf.Denied, Field: "run", Msg: fmt.Sprintf("%s does not merge run %s", caller, r.ID)}
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
