package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Limits of request bodies, in bytes.
const (
	maxJobBody    = 1 << 20   // as large as a job may be in the log
	maxSourceBody = 600 << 10 // 256 KiB of HCL, escaped as JSON
	maxSmallBody  = 64 << 10
)

// RunParams name a run.
type RunParams struct {
	Job       string `path:"job" maxLength:"128"`
	Namespace string `query:"namespace" maxLength:"64"`
}

// Body is a reply.
type Body[T any] struct {
	ReadHeaders
	Body T
}

// submitBody is api.SubmitRequest with the job still as it came: what is left
// out of a job and what is written as zero are told apart by jobspec alone.
type submitBody struct {
	ID    sheaf.RunID     `json:"id,omitempty"`
	Hold  bool            `json:"hold,omitempty"`
	Rerun bool            `json:"rerun,omitempty"`
	Job   json.RawMessage `json:"job"`
}

// readJob reads a job's JSON form, which must be there.
func (a *API) readJob(raw json.RawMessage) (*sheaf.Job, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "job", Msg: "the request has no job", Hint: `send {"job": {…}}, a job as POST /v1/jobs/parse makes it of HCL`}
	}
	return a.ReadJob(raw)
}

func (a *API) submit(ctx context.Context, in *struct{ Body submitBody }) (*Body[api.SubmitReply], error) {
	job, err := a.readJob(in.Body.Job)
	if err != nil {
		return nil, err
	}
	if err := a.namespaceFor(ctx, job); err != nil {
		return nil, err
	}
	if err := mayReadResults(ctx, job); err != nil {
		return nil, err
	}
	id := in.Body.ID
	if id == "" {
		id = api.NewRunID(job.Name)
	}
	if err := sheaf.CheckName("id", string(id)); err != nil {
		return nil, err
	}
	got, err := a.Server.SubmitWith(ctx, id, *job, server.SubmitOptions{Held: in.Body.Hold, Rerun: in.Body.Rerun})
	if err != nil {
		return nil, err
	}
	return &Body[api.SubmitReply]{Body: api.SubmitReply{Run: got.Run, Created: got.Created, Index: got.Index}}, nil
}

// mayReadResults refuses a caller that may not read the outputs of other runs and submits a job that does.
func mayReadResults(ctx context.Context, job *sheaf.Job) error {
	x := accessOf(ctx)
	for _, in := range job.Inputs {
		if _, _, reads := sheaf.CutResult(in.Source); reads && !x.acl.Allows(ReadOutputs, job.Namespace) {
			return (&caller{acl: x.acl, anonymous: x.anonymous}).lacks(ReadOutputs, job.Namespace)
		}
	}
	return nil
}

func (a *API) parse(ctx context.Context, in *struct{ Body api.ParseRequest }) (*Body[*sheaf.Job], error) {
	job, err := a.Parse(ctx, jobspec.Source{Name: "jobspec", Data: []byte(in.Body.HCL)}, in.Body.Vars)
	if err != nil {
		return nil, err
	}
	return &Body[*sheaf.Job]{Body: job}, nil
}

func (a *API) plan(ctx context.Context, in *struct{ Body json.RawMessage }) (*Body[api.PlanReply], error) {
	job, err := a.readJob(in.Body)
	if err != nil {
		return nil, err
	}
	if err := a.namespaceFor(ctx, job); err != nil {
		return nil, err
	}
	_, reads, err := a.Server.Snapshot().Pinned(*job)
	if err != nil {
		return nil, err
	}
	got := a.Server.Obstacles(*job)
	out := api.PlanReply{Eligible: got.Feasible, Reads: reads}
	if got.Nodes == 0 {
		out.Obstacles = append(out.Obstacles, api.Reason{What: "the cluster has no nodes yet"})
	}
	for _, r := range got.Reasons {
		out.Obstacles = append(out.Obstacles, api.Reason{What: r.Text, Nodes: len(r.Nodes)})
	}
	return &Body[api.PlanReply]{Body: out}, nil
}

func (a *API) listRuns(ctx context.Context, in *struct {
	ReadParams
	PageParams
	Namespace string `query:"namespace" maxLength:"64"`
	Name      string `query:"name" maxLength:"64" doc:"of the job"`
}) (*Body[[]sheaf.RunStub], error) {
	if in.Namespace != "*" {
		if err := allow(ctx, orDefault(in.Namespace)); err != nil {
			return nil, err
		}
	}
	snap, headers, err := a.view(ctx, in.ReadParams, ofRuns(orDefault(in.Namespace)))
	if err != nil {
		return nil, err
	}
	who := aclOf(ctx)
	stubs := func(yield func(sheaf.RunStub) bool) {
		runs := snap.Runs()
		if in.Prefix != "" {
			runs = snap.RunsWithPrefix(in.Prefix)
		}
		for r := range runs {
			if (in.Namespace == "*" && who.Allows(ReadJobs, r.Job.Namespace) || r.Job.Namespace == orDefault(in.Namespace)) && (in.Name == "" || r.Job.Name == in.Name) && !yield(a.stub(r)) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, stubs, func(s sheaf.RunStub) string { return string(s.ID) })
	headers.NextToken = next
	return &Body[[]sheaf.RunStub]{headers, page}, err
}

func orDefault(namespace string) string {
	if namespace == "" {
		return "default"
	}
	return namespace
}

// stub is a run's, with the partitions that clients report running told apart
// from those that wait on their node.
func (a *API) stub(r *state.Run) sheaf.RunStub {
	s := r.Stub()
	if s.Partitions.Assigned > 0 {
		s.Partitions.Running = min(a.Server.Progress(r.ID).Running.Len(), s.Partitions.Assigned)
		s.Partitions.Assigned -= s.Partitions.Running
	}
	return s
}

// lookup resolves the run of a read, waiting for a change of it if asked.
func (a *API) lookup(ctx context.Context, p ReadParams, in RunParams) (*state.Snapshot, *state.Run, ReadHeaders, error) {
	first := p
	first.Index = ""
	snap, headers, err := a.view(ctx, first, ofRuns(orDefault(in.Namespace)))
	if err != nil {
		return nil, nil, headers, err
	}
	r, err := a.findRun(ctx, snap, in.Namespace, in.Job)
	if err != nil {
		return nil, nil, headers, err
	}
	p.Stale = true // the view above has verified what must be
	if snap, headers, err = a.view(ctx, p, ofRun(r.ID)); err != nil {
		return nil, nil, headers, err
	}
	if r = snap.Run(r.ID); r == nil {
		return nil, nil, headers, &sheaf.Error{Class: sheaf.NotFound, Field: "job", Msg: fmt.Sprintf("the run of %q has been deleted", in.Job)}
	}
	return snap, r, headers, nil
}

// RunRead is a read of a run.
type RunRead struct {
	RunParams
	ReadParams
}

func (a *API) getRun(ctx context.Context, in *RunRead) (*Body[api.Run], error) {
	_, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	return &Body[api.Run]{headers, api.Run{RunStub: a.stub(r), Job: *r.Job, Image: r.Image, Warnings: r.Manifest.Warnings}}, nil
}

func (a *API) summary(ctx context.Context, in *RunRead) (*Body[sheaf.RunSummary], error) {
	snap, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	out := sheaf.RunSummary{RunStub: a.stub(r), Bytes: int64(r.Manifest.Bytes), Unreached: snap.Unreached(r), Conflict: snap.Conflict(r)}
	p := a.Server.Progress(r.ID)
	out.Rate, out.Slowest, out.Waiting, out.Backups = p.Rate, p.Slowest, p.Waiting, p.Backups
	out.Warnings = slices.Concat(r.Manifest.Warnings, p.Warnings)
	if p.ETA {
		low, high := sheaf.Duration(p.ETALow), sheaf.Duration(p.ETAHigh)
		out.ETALow, out.ETAHigh = &low, &high
	}
	out.Reduce = snap.Reduce(r)
	if r.Result.Sealed {
		out.ResultSHA = hex.EncodeToString(r.Result.Digest[:])
	}
	if r.Result.Published && r.Job.Publish != nil {
		folder := strings.TrimSuffix(r.Job.Publish.To, "/") + "/" + string(r.ID)
		out.Published = folder + "/manifest.json"
		if c := r.Result.Car; c.Root != "" {
			out.Published, out.PublishedCID = fmt.Sprintf("%s/%d/result.car", folder, c.Attempt), c.Root
		}
	}
	out.Failures = errorGroups(r, 10)
	return &Body[sheaf.RunSummary]{headers, out}, nil
}

// errorGroups are a run's failures, at most n groups.
func errorGroups(r *state.Run, n int) []sheaf.ErrorGroup {
	groups := []sheaf.ErrorGroup{}
	if r.Errors != nil {
		for _, g := range r.Errors.Groups[:min(n, len(r.Errors.Groups))] {
			groups = append(groups, g.Group)
		}
	}
	return groups
}

func (a *API) runErrors(ctx context.Context, in *RunRead) (*Body[api.ErrorsReply], error) {
	_, r, headers, err := a.lookup(ctx, in.ReadParams, in.RunParams)
	if err != nil {
		return nil, err
	}
	return &Body[api.ErrorsReply]{headers, api.ErrorsReply{Groups: errorGroups(r, maxPerPage)}}, nil
}

func (a *API) stop(ctx context.Context, in *RunParams) (*Body[sheaf.RunStub], error) {
	r, err := a.findRun(ctx, a.Server.Snapshot(), in.Namespace, in.Job)
	if err != nil {
		return nil, err
	}
	got, err := a.Server.Cancel(ctx, r.ID)
	return &Body[sheaf.RunStub]{Body: got.Run}, err
}

func (a *API) retry(ctx context.Context, in *struct {
	RunParams
	Body api.RetryRequest
}) (*Body[sheaf.RunStub], error) {
	r, err := a.findRun(ctx, a.Server.Snapshot(), in.Namespace, in.Job)
	if err != nil {
		return nil, err
	}
	var kind server.RetryKind
	kinds := 0
	for k, set := range map[server.RetryKind]bool{server.RetryFailed: in.Body.Failed, server.RetryLost: in.Body.Lost, server.RetryPartitions: len(in.Body.Partitions) > 0} {
		if set {
			kind = k
			kinds++
		}
	}
	if kinds != 1 {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "failed, lost, partitions", Msg: fmt.Sprintf("%d of these are given", kinds), Hint: "give exactly one"}
	}
	got, err := a.Server.Retry(ctx, r.ID, kind, in.Body.Partitions)
	return &Body[sheaf.RunStub]{Body: got.Run}, err
}

func (a *API) deleteRun(ctx context.Context, in *RunParams) (*struct{}, error) {
	r, err := a.findRun(ctx, a.Server.Snapshot(), in.Namespace, in.Job)
	if err != nil {
		return nil, err
	}
	_, err = a.Server.Delete(ctx, r.ID)
	return nil, err
}
