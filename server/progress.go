package server

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sheaf-run/agent/server/leader"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Progress implements API.
func (s *Server) Progress(id sheaf.RunID) Progress {
	t := s.term.Load()
	snap := s.store.Snapshot()
	r := snap.Run(id)
	if t == nil || r == nil || r.Status.Terminal() {
		return Progress{}
	}
	return s.told.ask(id, standingOf(t, r), func() Progress { return progress(t, snap, r) })
}

func progress(t *leader.Term, snap *state.Snapshot, r *state.Run) Progress {
	m := t.Measures(r.ID)
	p := Progress{Rate: m.Rate, Running: m.Running}
	_, p.Waiting = t.Explain(snap, r)
	for _, x := range m.Slowest {
		if r.Partitions == nil || x.Partition >= r.Partitions.Len() {
			continue
		}
		q := snap.Partition(r, x.Partition)
		since := x.Since.UTC()
		q.State, q.Attempt, q.Node, q.Started, q.Ended = sheaf.PartitionRunning, x.Attempt, x.Node, &since, nil
		p.Slowest = append(p.Slowest, q)
	}
	p.Backups = r.Backups
	if t.LeftToMerge(r.ID) {
		p.Warnings = append(p.Warnings, leftToMerge)
	}
	if low, high, ok := t.ETA(snap, r); ok {
		p.ETA, p.ETALow, p.ETAHigh = true, seconds(low), seconds(high)
	}
	return p
}

// leftToMerge is what is said of a run whose outputs are more than a leader compares as they come.
const leftToMerge = "not all of its outputs are compared as they are committed, since they are too many or too long: conflicts among the others are found when they are merged"

// maxETA is what an ETA beyond is given as: nobody waits by it.
const maxETA = 365 * 24 * time.Hour

func seconds(d time.Duration) time.Duration { return min(d, maxETA).Round(time.Second) }

// Explain implements API.
func (s *Server) Explain(id sheaf.RunID, partition int) (Explanation, error) {
	snap := s.store.Snapshot()
	r := snap.Run(id)
	if r == nil {
		return Explanation{}, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("there is no run %s", id)}
	}
	e := Explanation{Run: id, Status: r.Status}
	if partition >= 0 {
		if r.Partitions == nil || partition >= r.Partitions.Len() && !r.IsReduce(partition) {
			return Explanation{}, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("run %s has no partition %d", id, partition)}
		}
		p := snap.Partition(r, partition)
		e.Partition = &p
		e.Summary = append(e.Summary, aboutPartition(snap, r, p)...)
		if t := s.term.Load(); t != nil {
			if why := t.WhyBackedUp(id, partition); why != "" {
				e.Summary = append(e.Summary, "it got a second attempt since "+why)
			}
		}
		if p.State.Terminal() && p.State != sheaf.PartitionCancelled {
			return e, nil // how the run goes is nothing to it any more
		}
	}
	if r.Error != "" {
		e.Summary = append(e.Summary, r.Error)
	}
	if c := snap.Conflict(r); c != nil && !r.Status.Terminal() {
		e.Summary = append(e.Summary, "the run will fail when its outputs are merged: "+c.Message)
	}
	if t := s.term.Load(); t != nil {
		var waits []string
		e.Placement, waits = t.Explain(snap, r)
		e.Summary = append(e.Summary, waits...)
		if partition < 0 {
			e.Summary = append(e.Summary, t.AboutTail(id)...)
		}
	}
	if len(e.Summary) == 0 {
		e.Summary = append(e.Summary, aboutRun(snap, r))
	}
	if n := len(r.Manifest.Largest); n > 0 && partition < 0 && !r.Status.Terminal() {
		e.Summary = append(e.Summary, fmt.Sprintf("partitions with far more bytes than the others go first: there are %d", n))
	}
	return e, nil
}

func aboutRun(snap *state.Snapshot, r *state.Run) string {
	c := r.Counts()
	where := func(number uint32) string {
		if n := snap.NodeByNumber(number); n != nil {
			return " on node " + string(n.ID)
		}
		return ""
	}
	switch {
	case r.Status.Terminal():
		return fmt.Sprintf("the run is over: %s", r.Status)
	case r.Split.Active:
		return "its inputs are being listed and split" + where(r.Split.Node)
	case r.Reduce.Active:
		return "its reduce " + strconv.Quote(r.Job.Reduce.Name) + " is at a node, over the outputs of all partitions" + where(r.Reduce.Node)
	case r.Result.Publishing:
		return "its result is sealed, and is being published below " + r.Job.Publish.To + where(r.Merge.Node)
	case r.Merge.Active && r.Publishes():
		return "its outputs are being merged, and written below " + r.Job.Publish.To + where(r.Merge.Node)
	case r.Merge.Active:
		return "its outputs are being merged" + where(r.Merge.Node)
	}
	return fmt.Sprintf("the run goes on: %d partitions wait, %d are at the nodes, %d are over", c.Pending, c.Assigned, c.Succeeded+c.Failed+c.Cancelled+c.Reused)
}

// aboutPartition says why a partition is where it is, and why it was tried again.
func aboutPartition(snap *state.Snapshot, r *state.Run, p sheaf.Partition) []string {
	var say []string
	switch p.State {
	case sheaf.PartitionPending:
		if p.Reason != "" {
			say = append(say, "it "+p.Reason)
		} else if p.Attempt == 0 {
			say = append(say, "it has not been placed yet")
		}
	case sheaf.PartitionAssigned:
		say = append(say, fmt.Sprintf("attempt %d is at node %s", p.Attempt, p.Node))
		if b := snap.Backup(r.ID, p.Index); b != nil {
			if n := snap.NodeByNumber(b.Node); n != nil {
				say = append(say, fmt.Sprintf("attempt %d is a backup on node %s: the first to end counts", b.Attempt, n.ID))
			}
		}
	case sheaf.PartitionSucceeded:
		say = append(say, fmt.Sprintf("attempt %d on node %s was committed", p.Attempt, p.Node))
	case sheaf.PartitionFailed:
		say = append(say, fmt.Sprintf("it failed (%s) after %d tries", p.Reason, p.Failures))
	case sheaf.PartitionCancelled:
		say = append(say, "it was cancelled with the run")
	}
	if _, large := slices.BinarySearch(r.Manifest.Largest, uint32(p.Index)); large {
		say = append(say, "it has far more bytes than the others, and so goes before them")
	}
	if c := snap.Conflict(r); c != nil && slices.Contains(c.Partitions[:], p.Index) {
		say = append(say, c.Message)
	}
	if p.Failures > 0 && p.State != sheaf.PartitionFailed {
		say = append(say, fmt.Sprintf("%d of %d tries have failed", p.Failures, r.Job.Retry.Attempts))
	}
	if p.Losses > 0 {
		say = append(say, fmt.Sprintf("%d executions were lost with their node or driver", p.Losses))
	}
	return say
}
