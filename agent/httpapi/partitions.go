package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// runningOf is a run's partitions that clients report running.
func (a *API) runningOf(r *state.Run) map[int]bool {
	running := map[int]bool{}
	for _, x := range a.Server.Progress(r.ID).Running {
		for i := x.First; i <= x.Last; i++ {
			running[i] = true
		}
	}
	return running
}

func asRunning(p sheaf.Partition, running map[int]bool) sheaf.Partition {
	if p.State == sheaf.PartitionAssigned && running[p.Index] {
		p.State = sheaf.PartitionRunning
	}
	return p
}

func (a *API) listPartitions(ctx context.Context, in *struct {
	RunParams
	ReadParams
	PageParams
	State      string `query:"state" maxLength:"16" doc:"only those in this state"`
	Partitions string `query:"partitions" maxLength:"65536" doc:"only these, as in 3,7-9"`
}) (*Body[[]sheaf.Partition], error) {
	snap, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	of, err := rangesOf(r, in.Partitions)
	if err != nil {
		return nil, err
	}
	running := a.runningOf(r)
	if in.State != "" {
		var want sheaf.PartitionState
		if err := want.UnmarshalText([]byte(in.State)); err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "state", Msg: fmt.Sprintf("there is no state %q", in.State), Limit: "pending, assigned, running, succeeded, failed, cancelled or reused"}
		}
		if want == sheaf.PartitionRunning {
			want = sheaf.PartitionAssigned
		}
		if in.Partitions == "" {
			of = r.Ranges(want)
		}
	}
	start, err := in.from()
	if err != nil {
		return nil, err
	}
	from := 0
	if start != "" {
		if from, err = strconv.Atoi(start); err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "next_token", Msg: "this page token is of another list"}
		}
	}
	rows := func(yield func(sheaf.Partition) bool) {
		for _, x := range of {
			for i := max(x.First, from); i <= x.Last; i++ {
				p := asRunning(snap.Partition(r, i), running)
				if in.State != "" && p.State.String() != in.State {
					continue
				}
				if !yield(p) {
					return
				}
			}
		}
	}
	params := in.PageParams
	params.NextToken, params.Prefix, params.Reverse = "", "", false
	page, next, err := Page(ctx, params, rows, func(p sheaf.Partition) string { return strconv.Itoa(p.Index) })
	headers.NextToken = next
	return &Body[[]sheaf.Partition]{headers, page}, err
}

// rangesOf reads which partitions of a run are meant and checks that it has them; "" is all.
func rangesOf(r *state.Run, text string) (sheaf.Ranges, error) {
	total := r.Counts().Total
	if text == "" {
		return sheaf.Ranges{{First: 0, Last: total - 1}}, nil
	}
	of, err := sheaf.ParseRanges(text)
	if err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "partitions", Msg: fmt.Sprintf("%q is no list of partitions", text), Hint: `write numbers and ranges, as in "3,7-9"`}
	}
	if last := of[len(of)-1].Last; last >= total {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "partitions", Msg: fmt.Sprintf("run %s has no partition %d", r.ID, last), Limit: fmt.Sprintf("%d partitions, from 0", total)}
	}
	return of, nil
}

// partitionOf reads a partition's number and checks that the run has it. What a run's reduce is asked for by
// is "reduce", or the number behind the last partition's.
func partitionOf(r *state.Run, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if text == "reduce" && r.Partitions != nil {
		n, err = r.Partitions.Len(), nil
	}
	if err == nil && r.IsReduce(n) {
		return n, nil
	}
	if err != nil || n < 0 || n >= r.Counts().Total {
		return 0, &sheaf.Error{Class: sheaf.NotFound, Field: "partition", Msg: fmt.Sprintf("run %s has no partition %q", r.ID, text), Limit: fmt.Sprintf("%d partitions, from 0", r.Counts().Total)}
	}
	return n, nil
}

func (a *API) getPartition(ctx context.Context, in *struct {
	RunParams
	ReadParams
	N string `path:"n" maxLength:"12"`
}) (*Body[sheaf.Partition], error) {
	snap, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	n, err := partitionOf(r, in.N)
	if err != nil {
		return nil, err
	}
	return &Body[sheaf.Partition]{headers, asRunning(snap.Partition(r, n), a.runningOf(r))}, nil
}

// grid answers with one byte a partition: '0' plus the number of its state.
func (a *API) grid(w http.ResponseWriter, r *http.Request, in *RunRead) error {
	_, run, headers, err := a.lookup(r.Context(), in.ReadParams, in.RunParams)
	if err != nil {
		return err
	}
	cells := make([]byte, run.Counts().Total)
	for s := range sheaf.PartitionState(sheaf.PartitionStates) {
		for _, x := range run.Ranges(s) {
			for i := x.First; i <= x.Last; i++ {
				cells[i] = '0' + byte(s)
			}
		}
	}
	for i := range a.runningOf(run) {
		if cells[i] == '0'+byte(sheaf.PartitionAssigned) {
			cells[i] = '0' + byte(sheaf.PartitionRunning)
		}
	}
	headers.write(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(cells)
	return nil
}

func (a *API) explain(ctx context.Context, in *struct {
	RunParams
	ReadParams
	Partition string `query:"partition" maxLength:"12"`
}) (*Body[api.Explanation], error) {
	snap, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	n, out := -1, api.Explanation{Subject: "run", State: string(r.Status), Reasons: []api.Reason{}}
	if in.Partition != "" {
		if n, err = partitionOf(r, in.Partition); err != nil {
			return nil, err
		}
		p := asRunning(snap.Partition(r, n), a.runningOf(r))
		out.Subject, out.State = fmt.Sprintf("partition %d", n), p.State.String()
		if m := p.MadeBy; m != nil {
			out.Reasons = append(out.Reasons, api.Reason{What: fmt.Sprintf("its output was taken over from partition %d of run %s, whose task and shard are the same", m.Partition, m.Run)})
		}
		why, err := a.Server.WhyRan(ctx, r, n)
		if err != nil {
			return nil, err
		}
		if len(why) > 0 {
			out.Reasons = append(out.Reasons, api.Reason{What: "it was not taken over from an earlier run: " + strings.Join(why, "; ")})
		}
		if p.Reason != "" {
			what := fmt.Sprintf("attempt %d ended: %s", p.Attempt, p.Reason)
			if p.ExitCode != nil && *p.ExitCode != 0 {
				what = fmt.Sprintf("attempt %d ended with exit code %d (%s)", p.Attempt, *p.ExitCode, p.Reason)
			}
			out.Reasons = append(out.Reasons, api.Reason{What: what, Node: p.Node, Name: nodeName(snap, p.Node)})
		}
	}
	switch c := r.Counts(); {
	case n >= 0:
	case r.Reuse.Waits && !r.Status.Terminal():
		out.Reasons = append(out.Reasons, api.Reason{What: "it is being compared with earlier runs of its job: nothing of it is placed before"})
	case c.Reused > 0:
		out.Reasons = append(out.Reasons, api.Reason{What: fmt.Sprintf("%d of its %d partitions were taken over from earlier runs", c.Reused, c.Total)})
	}
	got, err := a.Server.Explain(r.ID, n)
	if err != nil {
		return nil, err
	}
	for _, s := range got.Summary {
		out.Reasons = append(out.Reasons, api.Reason{What: s})
	}
	for _, reason := range append(got.Placement.Reasons, got.Placement.Preferred[:min(len(got.Placement.Preferred), 8)]...) {
		for i, id := range reason.Nodes {
			if i == 8 {
				out.Reasons = append(out.Reasons, api.Reason{What: fmt.Sprintf("the same on %d more nodes: %s", len(reason.Nodes)-i, reason.Text)})
				break
			}
			out.Reasons = append(out.Reasons, api.Reason{What: reason.Text, Node: id, Name: nodeName(snap, id)})
		}
	}
	return &Body[api.Explanation]{headers, out}, nil
}

func nodeName(s *state.Snapshot, id sheaf.NodeID) string {
	if n := s.Node(id); n != nil {
		return n.Name
	}
	return ""
}
