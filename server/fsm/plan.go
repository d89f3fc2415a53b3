package fsm

import (
	"fmt"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// applyPlan places what still fits. The attempt is raised here and nowhere else.
func (s *step) applyPlan(c *ApplyPlan) error {
	s.reply.Placed = make([]Placed, len(c.Placements))
	for i, p := range c.Placements {
		s.reply.Placed[i] = s.place(p)
	}
	return nil
}

func (s *step) place(p *Placement) Placed {
	want := 1
	if p.Kind == wire.Kind_KIND_PARTITION {
		want = 0
		for _, n := range p.Count {
			want += int(n)
		}
	}
	r := s.Run(sheaf.RunID(p.Run))
	n := s.Node(sheaf.NodeID(p.Node))
	if why := s.unplaceable(r, n, p); why != "" {
		return Placed{Refused: want, Reason: why}
	}
	var placed Placed
	switch {
	case p.Kind == wire.Kind_KIND_SPLIT:
		placed = s.placeSplit(r, n)
	case p.Kind == wire.Kind_KIND_MERGE:
		placed = s.placeMerge(r, n)
	case p.Kind == wire.Kind_KIND_REDUCE:
		placed = s.placeReduce(r, n)
	case p.Backup:
		placed = s.placeBackups(r, n, p)
	default:
		placed = s.placePartitions(r, n, p)
	}
	if placed.Executions != nil {
		s.started(r)
	}
	return placed
}

// unplaceable is why nothing of a placement can be done; "" if something may be.
func (s *step) unplaceable(r *state.RunTxn, n *state.Node, p *Placement) string {
	switch {
	case r == nil:
		return "the run is not there"
	case r.Status.Terminal():
		return "the run is " + string(r.Status)
	case r.Held():
		return "the run is held"
	case len(r.Waits) > 0:
		return "the run waits for run " + string(r.Waits[0])
	case n == nil:
		return "the node is not there"
	case !n.Placeable():
		return "the node takes no placements"
	case n.Session != p.Session:
		return fmt.Sprintf("the node's session is %d, not %d", n.Session, p.Session)
	case len(p.First) != len(p.Count):
		return "the ranges are malformed"
	}
	if p.Kind == wire.Kind_KIND_PARTITION || p.Kind == wire.Kind_KIND_REDUCE {
		if why, blocked := r.PrepareBlocked(n.Number, s.TimeMs()); blocked {
			return why
		}
	}
	if p.Kind == wire.Kind_KIND_PARTITION {
		if r.Partitions == nil || r.Masked() {
			return "the run has no partitions to place"
		}
		if r.Reuse.Waits {
			return "the run is yet to be compared with earlier ones"
		}
	}
	return ""
}

// started notes the first placement of a run, and of a generation.
func (s *step) started(r *state.RunTxn) {
	row := r.Change()
	if row.Status == sheaf.RunPending {
		row.Status = sheaf.RunRunning
	}
	if row.StartedMs == 0 {
		row.StartedMs = s.TimeMs()
	}
	if row.DeadlineMs == 0 && row.Job.Timeout > 0 {
		row.DeadlineMs = s.TimeMs() + max(int64(row.Job.Timeout)/1e6, 1)
	}
}

func (s *step) placeSplit(r *state.RunTxn, n *state.Node) Placed {
	if !r.Job.Splits() || r.Partitions != nil || !r.Split.Ready(s.TimeMs()) {
		return Placed{Refused: 1, Reason: "the run needs no split now"}
	}
	row := r.Change()
	row.Status = sheaf.RunSplitting
	row.Split.Place(n.Number)
	return Placed{Executions: state.One(row, wire.Kind_KIND_SPLIT, row.Split.Attempt)}
}

// placeMerge begins a merge. It freezes nothing by itself: all partitions are
// terminal, and whatever changes one of them ends this attempt.
func (s *step) placeMerge(r *state.RunTxn, n *state.Node) Placed {
	if r.Status != sheaf.RunMerging || !r.Merge.Ready(s.TimeMs()) {
		return Placed{Refused: 1, Reason: "the run needs no merge now"}
	}
	row := r.Change()
	row.Merge.Place(n.Number)
	return Placed{Executions: state.One(row, wire.Kind_KIND_MERGE, row.Merge.Attempt)}
}

func (s *step) placePartitions(r *state.RunTxn, n *state.Node, p *Placement) Placed {
	t, now, room := r.Table(), s.TimeMs(), s.room(r)
	placed, e := Placed{}, newExecutions(r)
	for i, first := range p.First {
		end := placed.clip(t.Len(), first, p.Count[i])
		for at := int(first); at < end; at++ {
			row := t.Row(at)
			if row.State != sheaf.PartitionPending || row.StartedMs > now {
				placed.refuse("partition %d is %s", at, row.State)
				continue
			}
			if r.Nodes != nil && r.Nodes[at] != n.Number {
				placed.refuse("partition %d is for another node", at)
				continue
			}
			if room == 0 {
				placed.refuse("as many of the run are under way as its parallelism allows")
				continue
			}
			room--
			row.Fence++
			row.Attempt, row.Node = row.Fence, n.Number
			row.State, row.StartedMs = sheaf.PartitionAssigned, 0
			t.Set(at, row)
			state.AppendExecution(e, at, row.Attempt)
		}
	}
	if len(e.First) > 0 {
		placed.Executions = e
	}
	return placed
}

func (s *step) placeBackups(r *state.RunTxn, n *state.Node, p *Placement) Placed {
	t, room := r.Table(), s.room(r)
	placed, e := Placed{}, newExecutions(r)
	for i, first := range p.First {
		end := placed.clip(t.Len(), first, p.Count[i])
		for at := int(first); at < end; at++ {
			row := t.Row(at)
			switch {
			case row.State != sheaf.PartitionAssigned:
				placed.refuse("partition %d is %s", at, row.State)
				continue
			case row.Node == n.Number:
				placed.refuse("partition %d is on that node already", at)
				continue
			case r.Backups > 0 && s.Backup(r.ID, uint32(at)) != nil:
				placed.refuse("partition %d has a backup", at)
				continue
			case r.Nodes != nil:
				placed.refuse("partition %d is for one node only", at)
				continue
			case room == 0:
				placed.refuse("as many of the run are under way as its parallelism allows")
				continue
			}
			room--
			row.Fence++
			t.Set(at, row)
			s.PutBackup(r, &state.Backup{Run: r.ID, Partition: uint32(at), Attempt: row.Fence, Node: n.Number})
			state.AppendExecution(e, at, row.Fence)
		}
	}
	if len(e.First) > 0 {
		placed.Executions = e
	}
	return placed
}

func newExecutions(r *state.RunTxn) *wire.Executions {
	return &wire.Executions{Run: string(r.ID), Generation: r.Generation}
}

// clip is the end of a range within n partitions; the rest of it is refused.
func (p *Placed) clip(n int, first, count uint32) int {
	end := int(first) + int(count)
	if end <= n {
		return end
	}
	p.refuse("there is no partition %d", max(n, int(first)))
	p.Refused += end - max(n, int(first)) - 1
	return n
}

func (p *Placed) refuse(format string, args ...any) {
	p.Refused++
	if p.Reason == "" {
		p.Reason = fmt.Sprintf(format, args...)
	}
}
