package leader

import (
	"context"
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// maxCrowded bounds the nodes whose disks wait to be relieved. One that is beyond says so again.
const maxCrowded = 1024

// crowded are the nodes that said that their disks are too full, until something was done.
type crowded struct {
	mu    sync.Mutex
	nodes map[sheaf.NodeID]*wire.Crowded
}

// Crowded implements rpc.Observer.
func (t *Term) Crowded(node sheaf.NodeID, c *wire.Crowded) {
	t.crowded.mu.Lock()
	if t.crowded.nodes == nil {
		t.crowded.nodes = map[sheaf.NodeID]*wire.Crowded{}
	}
	if len(t.crowded.nodes) < maxCrowded {
		t.crowded.nodes[node] = c
	}
	t.crowded.mu.Unlock()
	poke(t.reap)
}

// relieve deletes the oldest runs of nodes whose disks are too full, as many as are needed. How much
// each keeps is the node's own word; that it has anything of them is the log's.
func (t *Term) relieve(ctx context.Context) error {
	t.crowded.mu.Lock()
	nodes := t.crowded.nodes
	t.crowded.nodes = nil
	t.crowded.mu.Unlock()
	snap := t.Store.Snapshot()
	for node, c := range nodes {
		n := snap.Node(node)
		if n == nil {
			continue
		}
		t.discount(snap, n, c)
		if c.Bytes == 0 && c.Files == 0 {
			continue
		}
		runs := t.history.relief(t.clock.nowMs(), t.KeepLeast, c, deleteAtOnce, func(id sheaf.RunID) bool { return leftOn(snap.Run(id), n) })
		if len(runs) == 0 {
			t.Logger.Warn("a node's disk is too full, and no run that is over can go there", "node", n.Name, "bytes", c.Bytes, "files", c.Files)
			continue
		}
		if err := t.deleteRuns(ctx, runs, "the disk of node "+n.Name+" is too full"); err != nil {
			return err
		}
	}
	return nil
}

// discount takes off what a node will gain without more: what it says it keeps of runs that are deleted. It
// had not heard of that when it asked, or has lost it; it is told again.
func (t *Term) discount(snap *state.Snapshot, n *state.Node, c *wire.Crowded) {
	for _, k := range c.Runs {
		if snap.Run(sheaf.RunID(k.Run)) == nil {
			c.Bytes, c.Files = c.Bytes-min(c.Bytes, k.Bytes), c.Files-min(c.Files, k.Files)
			t.hub.DeleteOutputs(n.ID, sheaf.RunID(k.Run), "")
		}
	}
}

// leftOn reports whether a run has left anything on a node, outputs or the logs of failures.
func leftOn(r *state.Run, n *state.Node) bool {
	if r == nil || r.OutputsOn(n.Number) > 0 {
		return r != nil
	}
	if r.Partitions != nil {
		for range r.Partitions.Held(sheaf.PartitionFailed, n.Number) {
			return true
		}
	}
	return false
}

// relief takes the oldest runs that are over of those that a node keeps something of, until enough is
// gained or they are most; none is younger than least.
func (h *history) relief(nowMs int64, least time.Duration, c *wire.Crowded, most int, left func(sheaf.RunID) bool) (runs []sheaf.RunID) {
	kept := make(map[sheaf.RunID]*wire.Kept, len(c.Runs))
	for _, k := range c.Runs {
		kept[sheaf.RunID(k.Run)] = k
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	bytes, files := c.Bytes, c.Files // still to be gained
	for _, o := range h.order {
		if bytes == 0 && files == 0 || len(runs) == most || time.Duration(nowMs-o.endedMs)*time.Millisecond < least {
			break
		}
		k := kept[o.run]
		if at, ok := h.ended[o.run]; k == nil || !ok || at != o.endedMs {
			continue
		}
		helps := min(bytes, k.Bytes) > 0 || min(files, k.Files) > 0
		if !helps || !left(o.run) {
			continue
		}
		delete(h.ended, o.run)
		runs = append(runs, o.run)
		bytes, files = bytes-min(bytes, k.Bytes), files-min(files, k.Files)
	}
	return runs
}
