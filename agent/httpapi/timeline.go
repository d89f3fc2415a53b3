package httpapi

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a timeline: what a page can draw, in a reply of at most some megabytes.
const (
	defaultExact  = 2_000
	timelineLanes = 500
	timelineParts = 240 // stretches
)

func (a *API) timeline(ctx context.Context, in *struct {
	RunParams
	ReadParams
	Exact int `query:"exact" minimum:"0" maximum:"20000" doc:"runs of at most so many ended partitions come with each of them, 2000 unless told"`
}) (*Body[api.Timeline], error) {
	snap, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	return &Body[api.Timeline]{headers, timelineOf(snap, r, cmp.Or(in.Exact, defaultExact))}, nil
}

// lane is one that is being filled.
type lane struct {
	api.TimelineLane
	steps []int // stretch: how many more ran in it than in the one before
}

// timelineOf makes the timeline of what ended, in two passes: one for its span, one to fill it.
func timelineOf(snap *state.Snapshot, r *state.Run, exact int) api.Timeline {
	out := api.Timeline{Lanes: []api.TimelineLane{}}
	if r.Partitions == nil {
		return out
	}
	ended, start, end := 0, int64(0), int64(0)
	each := func(f func(i int, row table.Row)) {
		for _, s := range [...]sheaf.PartitionState{sheaf.PartitionSucceeded, sheaf.PartitionFailed} {
			for i, row := range r.Partitions.In(s) {
				if row.StartedMs > 0 && row.Node != 0 {
					f(i, row)
				}
			}
		}
	}
	each(func(_ int, row table.Row) {
		if last := row.StartedMs + int64(row.DurationMs); ended == 0 {
			start, end = row.StartedMs, last
		} else {
			start, end = min(start, row.StartedMs), max(end, last)
		}
		ended++
	})
	if ended > exact {
		out.BucketMs = max(1, (end-start+timelineParts)/timelineParts)
	}
	if ended > 0 {
		first, last := time.UnixMilli(start).UTC(), time.UnixMilli(end).UTC()
		out.Start, out.End = &first, &last
	}
	lanes := map[uint32]*lane{}
	laneOf := func(number uint32) *lane {
		l := lanes[number]
		if l == nil && len(lanes) < timelineLanes {
			l = &lane{}
			if n := snap.NodeByNumber(number); n != nil {
				l.Node, l.Name = n.ID, n.Name
			}
			lanes[number] = l
		}
		return l
	}
	if !r.Masked() {
		for _, c := range r.NodeCounts() {
			if c.Assigned == 0 {
				continue
			}
			if l := laneOf(c.Node); l != nil {
				l.Now = int(c.Assigned)
			}
		}
	}
	each(func(i int, row table.Row) {
		l := laneOf(row.Node)
		if l == nil {
			out.Others++
			return
		}
		l.add(i, row, start, out.BucketMs)
	})
	for _, l := range lanes {
		out.Lanes = append(out.Lanes, l.done())
	}
	slices.SortFunc(out.Lanes, func(a, b api.TimelineLane) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Node, b.Node))
	})
	return out
}

func (l *lane) add(i int, row table.Row, start, bucketMs int64) {
	failed := row.State == sheaf.PartitionFailed
	l.Ended++
	if failed {
		l.Failed++
	}
	from := row.StartedMs - start
	if bucketMs == 0 {
		l.Tries = append(l.Tries, api.TimelineTry{Partition: i, StartMs: from, DurationMs: int64(row.DurationMs), Failed: failed})
		return
	}
	if l.steps == nil {
		l.steps = make([]int, timelineParts+1)
	}
	l.steps[from/bucketMs]++
	l.steps[(from+int64(row.DurationMs))/bucketMs+1]--
}

func (l *lane) done() api.TimelineLane {
	slices.SortFunc(l.Tries, func(a, b api.TimelineTry) int {
		return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), cmp.Compare(a.Partition, b.Partition))
	})
	running := 0
	for _, s := range l.steps {
		running += s
		l.Busy = append(l.Busy, running)
	}
	if len(l.Busy) > timelineParts {
		l.Busy = l.Busy[:timelineParts]
	}
	return l.TimelineLane
}
