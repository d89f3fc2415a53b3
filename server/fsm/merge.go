package fsm

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// maxRoot bounds the text of a CID, which takes 59 bytes: a seal stays small.
const maxRoot = 128

// sealResult is the point of no return: the run's result stands. The run is over, unless its result
// is published: then it is over when whoever merges says for the second time that it is.
func (s *step) sealResult(c *SealResult) error {
	k := c.Request
	if k == nil || len(k.Digest) != len(table.Digest{}) {
		return refuse(sheaf.Invalid, "the seal has no digest of 32 bytes")
	}
	if len(k.Root) > maxRoot {
		return refuse(sheaf.Invalid, "the seal has a CID of %d bytes", len(k.Root))
	}
	r := s.Run(sheaf.RunID(k.Run))
	if r == nil {
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		return s.noRun(k.Run)
	}
	n := s.Node(sheaf.NodeID(k.Node))
	if k.Published {
		return s.publishedResult(r, n, k)
	}
	switch {
	case r.Result.Sealed && r.Result.Attempt == k.MergeAttempt:
		if r.Result.Digest != table.Digest(k.Digest) {
			return refuse(sheaf.Conflict, "merge attempt %d of run %s is sealed with another digest", k.MergeAttempt, k.Run)
		}
		s.reply.Verdict = wire.Verdict_VERDICT_ALREADY
		return nil
	case r.Result.Publishing:
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		return nil
	case r.Status == sheaf.RunCancelled:
		s.reply.Verdict = wire.Verdict_VERDICT_CANCELLED
		return nil
	case r.Status != sheaf.RunMerging || n == nil || !r.Merge.Valid(k.MergeAttempt, n.Number):
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		return nil
	case n.Session != k.Session:
		s.reply.Verdict = wire.Verdict_VERDICT_RESEND
		return nil
	}
	row := r.Change()
	kept := r.Result.Kept()
	row.Result = state.Result{
		Sealed: true, Attempt: k.MergeAttempt, Node: n.Number, Digest: table.Digest(k.Digest), Files: k.Files, Bytes: k.Bytes, Published: kept.Published, Car: kept.Car,
	}
	s.reply.Verdict = wire.Verdict_VERDICT_COMMITTED
	if r.Publishes() {
		row.Result.Publishing, row.DeadlineMs = true, 0
		if k.Root != "" {
			row.Result.Car = state.Car{Root: k.Root, Attempt: k.MergeAttempt}
		}
		return nil
	}
	row.Merge.Active, row.Merge.Done = false, true
	s.conclude(r)
	return nil
}

// publishedResult ends a run whose sealed result is published. Whoever holds the valid merge
// attempt says so, which may be a later one than that which sealed.
func (s *step) publishedResult(r *state.RunTxn, n *state.Node, k *wire.SealResultRequest) error {
	switch {
	case !r.Result.Sealed || r.Generation != k.Generation || r.Result.Digest != table.Digest(k.Digest):
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		return nil
	case r.Result.Published && r.Merge.Done:
		s.reply.Verdict = wire.Verdict_VERDICT_ALREADY
		return nil
	case !r.Result.Publishing || n == nil || !r.Merge.Valid(k.MergeAttempt, n.Number):
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		return nil
	case n.Session != k.Session:
		s.reply.Verdict = wire.Verdict_VERDICT_RESEND
		return nil
	}
	row := r.Change()
	row.Merge.Active, row.Merge.Done = false, true
	row.Result.Publishing, row.Result.Published = false, true
	s.reply.Verdict = wire.Verdict_VERDICT_COMMITTED
	s.conclude(r)
	return nil
}

// invalidateOutput makes committed outputs again that are gone. Those whose
// committed attempt is another have been made again already.
func (s *step) invalidateOutput(c *InvalidateOutput) error {
	o := c.Outputs
	if o == nil || len(o.First) != len(o.Count) || len(o.First) != len(o.Attempt) {
		return refuse(sheaf.Invalid, "no outputs are named")
	}
	r := s.Run(sheaf.RunID(o.Run))
	switch {
	case r == nil:
		return s.noRun(o.Run)
	case r.Status.Terminal() && c.Note:
		s.noteLost(r, o)
		return nil
	case r.Status.Terminal():
		return &sheaf.Error{Class: sheaf.Conflict, Msg: "run " + o.Run + " is " + string(r.Status), Hint: "agent job retry -lost " + o.Run}
	case r.Partitions == nil:
		return refuse(sheaf.Conflict, "run %s has no partitions yet", o.Run)
	case r.Result.Publishing:
		return refuse(sheaf.Conflict, "the result of run %s is sealed, and is being published", o.Run)
	}
	t := r.Table()
	remake := false
	for i, first := range o.First {
		remake = remake || r.IsReduce(int(first)+int(o.Count[i])-1) && r.Reduce.Done && r.Reduce.Attempt == o.Attempt[i] && r.Status == sheaf.RunMerging
		end := min(int(first)+int(o.Count[i]), t.Len())
		for p := int(first); p < end; p++ {
			row := t.Row(p)
			// What was taken over has no attempt here, and once given up is never taken over again.
			if row.State == sheaf.PartitionSucceeded && row.Attempt == o.Attempt[i] || row.State == sheaf.PartitionReused && o.Attempt[i] == 0 {
				s.giveUp(r, p, row)
				s.reply.Partitions++
				if r.Nodes != nil {
					if n := s.NodeByNumber(r.Nodes[p]); n != nil && n.Status == sheaf.NodeDown {
						s.failBound(r, n, sheaf.FailLosses, "its output was lost with node "+string(n.ID))
					}
				}
			}
		}
	}
	switch {
	case s.reply.Partitions > 0 && (r.Status == sheaf.RunMerging || r.Status == sheaf.RunReducing):
		row := r.Change()
		row.Status = sheaf.RunRunning
		row.Merge, row.Reduce = state.Exec{Fence: row.Merge.Fence}, row.Reduce.Again()
		s.settle(r)
	case remake:
		s.regather(r)
	}
	return nil
}
