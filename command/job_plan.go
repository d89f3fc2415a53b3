package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// plan is what `agent job plan` prints as JSON.
type plan struct {
	Job        string            `json:"job"`
	Partitions int               `json:"partitions"`
	Split      *api.PreviewTotal `json:"split,omitempty"`
	First      []json.RawMessage `json:"first,omitempty"` // partitions
	Placement  api.PlanReply     `json:"placement"`
}

func (e *env) jobPlan() *cobra.Command {
	var vars variables
	var n int
	var diff bool
	c := &cobra.Command{
		Use: "plan FILE", Short: "What a job would run",
		Long: "Shows what a job would run: how many partitions, their sizes, the first of them, and everything that would hold it up.\n" +
			"Where no agent answers, this machine is planned for.\n\n" + exitHelp,
		Args: args(1, "one file"),
		RunE: func(c *cobra.Command, given []string) error {
			job, err := e.load(c.Context(), given[0], vars)
			if err != nil {
				return err
			}
			if diff && !job.Splits() {
				return usage("-diff compares with what earlier runs have read, and the job has neither a split nor reuse")
			}
			if diff {
				return e.reachOrLocal(c.Context(), job, func(ctx context.Context, client *api.Client) error { return e.planDiff(ctx, client, job) })
			}
			return e.reachOrLocal(c.Context(), job, func(ctx context.Context, client *api.Client) error { return e.plan(ctx, client, job, n) })
		},
	}
	vars.bind(c)
	c.Flags().IntVar(&n, "partitions", 5, "show `N` partitions")
	c.Flags().BoolVar(&diff, "diff", false, "which partitions would run, and why, and which are taken over from earlier runs (reuse)")
	return c
}

func (e *env) plan(ctx context.Context, client *api.Client, job *sheaf.Job, n int) error {
	p := plan{Job: job.Name, Partitions: job.Count}
	if len(job.Inputs) > 0 {
		total, err := client.Preview(ctx, api.PreviewRequest{Job: *job, Limit: max(n, 1)}, func(raw json.RawMessage) error {
			p.First = append(p.First, raw)
			return nil
		})
		if err != nil {
			return previewError(err)
		}
		p.Partitions, p.Split = total.Partitions, &total
	}
	var err error
	if p.Placement, err = client.Plan(ctx, *job); err != nil {
		return err
	}
	if job.Type == sheaf.JobOps {
		p.Partitions = p.Placement.Eligible // once on each
	}
	if ok, err := e.shaped(p, job.Name); ok {
		if err == nil && p.Placement.Eligible == 0 {
			err = &outcome{code: ExitUnplaced}
		}
		return err
	}
	fmt.Fprintf(e.out, "job %q would run %s\n", job.Name, counted(p.Partitions, "partition"))
	if s := p.Split; s != nil && job.Split == nil {
		fmt.Fprintf(e.out, "  without a split each of them gets the whole of %s\n", counted(len(job.Inputs), "input"))
	} else if s != nil {
		fmt.Fprintf(e.out, "  %s of %s listed, %s in all", counted(int(s.Atoms), "atom"), grouped3(int(s.Listed)), humanize.IBytes(uint64(s.Bytes)))
		if s.Partitions > 0 && s.Bytes > 0 {
			fmt.Fprintf(e.out, "; a partition %s to %s, the largest %.1f times the mean", humanize.IBytes(uint64(s.SmallestBytes)), humanize.IBytes(uint64(s.LargestBytes)),
				float64(s.LargestBytes)*float64(s.Partitions)/float64(s.Bytes))
		}
		fmt.Fprintln(e.out)
		for _, raw := range p.First {
			var line shardLine
			if err := json.Unmarshal(raw, &line); err != nil {
				return fmt.Errorf("read partition: %w", err)
			}
			fmt.Fprintln(e.out, " "+line.text())
		}
		for _, w := range s.Warnings {
			fmt.Fprintln(e.err, e.colour(e.err, "warning: "+printable(w), yellow))
		}
	}
	if p.Placement.Eligible == 0 {
		return unplaced(p.Placement)
	}
	for _, id := range p.Placement.Reads {
		fmt.Fprintf(e.out, "it reads the result of run %s\n", id)
	}
	fmt.Fprintf(e.out, "%s can take it\n", counted(p.Placement.Eligible, "node"))
	for _, r := range p.Placement.Obstacles {
		fmt.Fprintln(e.out, "  others not: "+obstacle(r))
	}
	return nil
}
