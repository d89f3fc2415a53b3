package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sheaf-run/agent/sheaf"
)

func runPath(run, below string) string {
	p := "/v1/job/" + url.PathEscape(run)
	if below != "" {
		p += "/" + below
	}
	return p
}

// Submit asks for a run of a job.
func (c *Client) Submit(ctx context.Context, req SubmitRequest) (SubmitReply, error) {
	var out SubmitReply
	return out, c.send(ctx, http.MethodPut, "/v1/jobs", url.Values{}, req, &out)
}

// Parse has the agent read a jobspec.
func (c *Client) Parse(ctx context.Context, req ParseRequest) (sheaf.Job, error) {
	var out sheaf.Job
	return out, c.send(ctx, http.MethodPost, "/v1/jobs/parse", url.Values{}, req, &out)
}

// Plan says what would hold a job up.
func (c *Client) Plan(ctx context.Context, job sheaf.Job) (PlanReply, error) {
	var out PlanReply
	return out, c.send(ctx, http.MethodPost, "/v1/jobs/plan", url.Values{}, job, &out)
}

// Runs lists runs, a page at a time.
func (c *Client) Runs(ctx context.Context, r Read) ([]sheaf.RunStub, Meta, error) {
	var out []sheaf.RunStub
	m, err := c.get(ctx, "/v1/jobs", r, &out)
	return out, m, err
}

// Run gives a run with its job. run is an ID, a unique prefix of one, or a job's name (its latest run).
func (c *Client) Run(ctx context.Context, run string, r Read) (Run, Meta, error) {
	var out Run
	m, err := c.get(ctx, runPath(run, ""), r, &out)
	return out, m, err
}

// Summary gives a run with what a person asks of it while it goes.
func (c *Client) Summary(ctx context.Context, run string, r Read) (sheaf.RunSummary, Meta, error) {
	var out sheaf.RunSummary
	m, err := c.get(ctx, runPath(run, "summary"), r, &out)
	return out, m, err
}

// Partitions lists partitions, a page at a time.
func (c *Client) Partitions(ctx context.Context, run string, r Read) ([]sheaf.Partition, Meta, error) {
	var out []sheaf.Partition
	m, err := c.get(ctx, runPath(run, "partitions"), r, &out)
	return out, m, err
}

// Partition gives one partition.
func (c *Client) Partition(ctx context.Context, run string, n int, r Read) (sheaf.Partition, Meta, error) {
	var out sheaf.Partition
	m, err := c.get(ctx, "/v1/partition/"+url.PathEscape(run)+"/"+strconv.Itoa(n), r, &out)
	return out, m, err
}

// Errors gives a run's failures grouped by their message.
func (c *Client) Errors(ctx context.Context, run string, r Read) (ErrorsReply, Meta, error) {
	var out ErrorsReply
	m, err := c.get(ctx, runPath(run, "errors"), r, &out)
	return out, m, err
}

// Explain says why a run, or one of its partitions (n >= 0), is where it is.
func (c *Client) Explain(ctx context.Context, run string, n int) (Explanation, error) {
	r := Read{Params: url.Values{}}
	if n >= 0 {
		r.Params.Set("partition", strconv.Itoa(n))
	}
	var out Explanation
	_, err := c.get(ctx, runPath(run, "explain"), r, &out)
	return out, err
}

// Stop cancels a run. Cancelling one that is over is no error.
func (c *Client) Stop(ctx context.Context, run string) (sheaf.RunStub, error) {
	var out sheaf.RunStub
	return out, c.send(ctx, http.MethodPost, runPath(run, "stop"), url.Values{}, struct{}{}, &out)
}

// Hold places nothing more of a run, and takes back what waits at nodes. What runs goes on.
func (c *Client) Hold(ctx context.Context, run string) (sheaf.RunStub, error) {
	var out sheaf.RunStub
	return out, c.send(ctx, http.MethodPost, runPath(run, "hold"), url.Values{}, struct{}{}, &out)
}

// Release goes on with a run that is held.
func (c *Client) Release(ctx context.Context, run string) (sheaf.RunStub, error) {
	var out sheaf.RunStub
	return out, c.send(ctx, http.MethodPost, runPath(run, "release"), url.Values{}, struct{}{}, &out)
}

// Change changes how a run is scheduled.
func (c *Client) Change(ctx context.Context, run string, req ChangeRequest) (sheaf.RunStub, error) {
	var out sheaf.RunStub
	return out, c.send(ctx, http.MethodPatch, runPath(run, ""), url.Values{}, req, &out)
}

// Evaluations lists what the leader is about to place, and what it fails to, a page at a time. It
// cannot be waited for: none of it is in the log.
func (c *Client) Evaluations(ctx context.Context, r Read) ([]sheaf.Evaluation, Meta, error) {
	r.Index, r.Wait = 0, 0
	var out []sheaf.Evaluation
	m, err := c.get(ctx, "/v1/evaluations", r, &out)
	return out, m, err
}

// Retry runs partitions again, in the same run.
func (c *Client) Retry(ctx context.Context, run string, req RetryRequest) (sheaf.RunStub, error) {
	var out sheaf.RunStub
	return out, c.send(ctx, http.MethodPost, runPath(run, "retry"), url.Values{}, req, &out)
}

// Delete forgets a run that is over, with its outputs.
func (c *Client) Delete(ctx context.Context, run string) error {
	return c.send(ctx, http.MethodDelete, runPath(run, ""), url.Values{}, nil, nil)
}

// Diff is a preview that says, in order and by ranges, which partitions a job would run, and why.
func (c *Client) Diff(ctx context.Context, job sheaf.Job, each func(DiffLine) error) (PreviewTotal, error) {
	return c.preview(ctx, PreviewRequest{Job: job, Diff: true}, func(line PreviewLine) error {
		if line.Diff == nil {
			return nil
		}
		return each(*line.Diff)
	})
}

// Preview splits the inputs of a job without running it; each is called with
// every partition in order, and the total is returned.
func (c *Client) Preview(ctx context.Context, req PreviewRequest, each func(partition json.RawMessage) error) (PreviewTotal, error) {
	return c.preview(ctx, req, func(line PreviewLine) error { return each(line.Partition) })
}

func (c *Client) preview(ctx context.Context, req PreviewRequest, each func(PreviewLine) error) (PreviewTotal, error) {
	var total *PreviewTotal
	err := c.stream(ctx, http.MethodPost, "/v1/inputs/preview", url.Values{}, req, func(raw json.RawMessage) error {
		var line PreviewLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("read preview: %w", err)
		}
		if line.Total != nil {
			total = line.Total
			return nil
		}
		return each(line)
	})
	if err == nil && total == nil {
		err = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the preview broke off before its end"}
	}
	if err != nil {
		return PreviewTotal{}, err
	}
	return *total, nil
}

// Result streams the merged manifest of a run, a file a call.
func (c *Client) Result(ctx context.Context, run string, each func(sheaf.File) error) error {
	return c.stream(ctx, http.MethodGet, runPath(run, "results"), url.Values{}, nil, func(raw json.RawMessage) error {
		var f sheaf.File
		if err := json.Unmarshal(raw, &f); err != nil {
			return fmt.Errorf("read result: %w", err)
		}
		return each(f)
	})
}

// Records streams what is kept of the latest ended execution of partitions, in
// partition order; nil ranges are all. Logs come only if logs is set.
func (c *Client) Records(ctx context.Context, run string, of sheaf.Ranges, logs bool, each func(Record) error) error {
	q := url.Values{"logs": {strconv.FormatBool(logs)}}
	if of != nil {
		q.Set("partitions", of.String())
	}
	return c.stream(ctx, http.MethodGet, runPath(run, "records"), q, nil, func(raw json.RawMessage) error {
		var rec Record
		if err := json.Unmarshal(raw, &rec); err != nil {
			return fmt.Errorf("read record: %w", err)
		}
		return each(rec)
	})
}

// File opens the bytes of a file in a partition's output from offset on. The caller closes it.
func (c *Client) File(ctx context.Context, run string, part sheaf.Part, output, path string, offset int64) (io.ReadCloser, error) {
	q := url.Values{
		"partition": {strconv.Itoa(part.Partition)}, "attempt": {strconv.FormatUint(uint64(part.Attempt), 10)},
		"output": {output}, "path": {path},
	}
	h := http.Header{}
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := c.do(ctx, http.MethodGet, runPath(run, "file"), q, nil, h)
	if err != nil {
		return nil, err
	}
	if offset > 0 && resp.StatusCode != http.StatusPartialContent { // something in between knows no ranges
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			return nil, errors.Join(fmt.Errorf("read %q from byte %d: %w", path, offset, err), resp.Body.Close())
		}
	}
	return resp.Body, nil
}

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Stderr  bool
	Attempt uint32 // 0 is the latest
	Offset  int64  // bytes from the start
	Tail    int    // the last so many lines; Offset is ignored then
	Follow  bool   // go on until the execution ends
}

// Log opens a partition's stdout or stderr. The caller closes it.
func (c *Client) Log(ctx context.Context, run string, n int, o LogOptions) (io.ReadCloser, error) {
	q := url.Values{"partition": {strconv.Itoa(n)}}
	if o.Stderr {
		q.Set("stderr", "true")
	}
	if o.Attempt > 0 {
		q.Set("attempt", strconv.FormatUint(uint64(o.Attempt), 10))
	}
	if o.Offset > 0 {
		q.Set("offset", strconv.FormatInt(o.Offset, 10))
	}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	resp, err := c.do(ctx, http.MethodGet, runPath(run, "logs"), q, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ResultManifest opens the merged manifest of a run as it was sealed, JSON lines of sheaf.File. The caller closes it.
func (c *Client) ResultManifest(ctx context.Context, run string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, runPath(run, "results"), url.Values{}, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
