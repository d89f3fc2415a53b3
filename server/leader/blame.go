package leader

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/blame"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// avoidedAgain is after how long nodes that stand out are looked at again although nothing more failed: what is
// remembered fades.
const avoidedAgain = 5 * time.Second

// blamed notes what answered results of a run say of their node. It is called with t.mu locked, with how many
// were committed, and reports whether anything was held against any node.
func (t *tracker) blamed(res *wire.Results, a *wire.Answers, committed int, now time.Time) bool {
	before := t.blame.Counted()
	run, node := sheaf.RunID(res.Run), sheaf.NodeID(res.Node)
	t.blame.Succeeded(run, node, committed, now)
	waits, unprepared := t.blame.Waits(run), false
	for i, v := range a.Verdict {
		switch wire.Verdict(v) {
		case wire.Verdict_VERDICT_COMMITTED:
			if waits {
				t.blame.SucceededAt(run, res.Partition[i], node, now)
			}
		case wire.Verdict_VERDICT_RECORDED:
			if len(res.Failure) <= i {
				continue
			}
			kind := sheaf.FailureKind(res.Failure[i])
			if kind == sheaf.FailPrepare { // once for all that waited for it
				if unprepared {
					continue
				}
				unprepared = true
			}
			t.blame.Failed(run, res.Partition[i], node, kind, now)
		}
	}
	return t.blame.Counted() != before
}

// unprepared notes that a run could not be made ready on a node.
func (t *tracker) unprepared(run sheaf.RunID, node sheaf.NodeID, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blame.Unprepared(run, node, now)
}

// gone notes that what ran on a node was lost with it.
func (t *tracker) gone(node sheaf.NodeID, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blame.Lost(node, now)
}

// avoided are the nodes that stand out by their failures.
func (t *tracker) avoided(now time.Time) map[sheaf.NodeID]blame.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blame.Avoided(now)
}

// Avoided says of nodes to which others are preferred why, in words.
func (t *Term) Avoided() map[sheaf.NodeID]string {
	why := map[sheaf.NodeID]string{}
	for id, r := range t.track.avoided(time.Now()) {
		why[id] = r.Why
	}
	return why
}

// keepBlame tells the cluster when a node begins to stand out by its failures, and when it does so no more.
func (t *Term) keepBlame(ctx context.Context) error {
	told := map[sheaf.NodeID]bool{}
	return t.again(ctx, "tell how nodes do", t.blames, func(ctx context.Context) (time.Duration, error) {
		now := t.track.avoided(time.Now())
		snap := t.Store.Snapshot()
		for _, id := range slices.Sorted(maps.Keys(now)) {
			if told[id] || snap.Node(id) == nil {
				continue
			}
			why := now[id].Why
			if err := t.tellOf(ctx, id, true, why); err != nil {
				return 0, err
			}
			told[id] = true
			t.Logger.Warn("others are preferred to a node that fails too often", "node", id, "because", why)
		}
		for _, id := range slices.Sorted(maps.Keys(told)) {
			if _, still := now[id]; still {
				continue
			}
			if err := t.tellOf(ctx, id, false, ""); err != nil {
				return 0, err
			}
			delete(told, id)
			t.Logger.Info("a node is as good as the others again", "node", id)
			t.nodesChanged()
		}
		if len(now) > 0 {
			return avoidedAgain, nil
		}
		return 0, nil
	})
}

// tellOf logs an entry that changes nothing but is an event on every server.
func (t *Term) tellOf(ctx context.Context, id sheaf.NodeID, avoided bool, why string) error {
	_, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{
		Node: string(id), Change: &fsm.ChangeNode_Tell_{Tell: &fsm.ChangeNode_Tell{Avoided: avoided, Reason: why}},
	}}})
	if sheaf.ClassOf(err) == sheaf.NotFound {
		return nil // it was purged meanwhile
	}
	return err
}
