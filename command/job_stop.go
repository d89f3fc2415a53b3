package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) jobStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop JOB", Short: "Cancel a run", Long: "Cancels a run: what runs is ended, what is committed is kept. Stopping one that is over is no mistake.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, err := client.Stop(ctx, run)
			if err != nil {
				return err
			}
			return e.stub(got)
		}),
	}
}

// stub prints what became of a run.
func (e *env) stub(s sheaf.RunStub) error {
	if ok, err := e.shaped(s, string(s.ID)); ok {
		return err
	}
	_, err := fmt.Fprintf(e.out, "%s %s: %s\n", s.ID, statusText(s), countsText(s.Partitions))
	return err
}

func (e *env) jobDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete JOB", Short: "Forget a run that is over", Long: "Forgets a run that is over, with its outputs and logs.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, _, err := client.Run(ctx, run, api.Read{})
			if err != nil {
				return err
			}
			if err := client.Delete(ctx, string(got.ID)); err != nil {
				return err
			}
			if ok, err := e.shaped(got.RunStub, string(got.ID)); ok {
				return err
			}
			_, err = fmt.Fprintln(e.out, got.ID, "deleted")
			return err
		}),
	}
}

func (e *env) jobRetry() *cobra.Command {
	var req api.RetryRequest
	var partitions string
	c := &cobra.Command{
		Use: "retry JOB", Short: "Run partitions again, in the same run",
		Long: "Runs partitions again, in the same run: the failed and cancelled ones, those named, or those whose outputs were lost.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			if partitions != "" {
				of, err := sheaf.ParseRanges(partitions)
				if err != nil {
					return err
				}
				req.Partitions = of
			}
			if req.Failed && req.Lost || req.Partitions != nil && (req.Failed || req.Lost) {
				return usage("-failed, -lost and -partition exclude each other: give one")
			}
			if !req.Failed && !req.Lost && req.Partitions == nil {
				req.Failed = true
			}
			got, err := client.Retry(ctx, run, req)
			if err != nil {
				return err
			}
			return e.stub(got)
		}),
	}
	c.Flags().BoolVar(&req.Failed, "failed", false, "the failed and cancelled ones; meant without a flag")
	c.Flags().BoolVar(&req.Lost, "lost", false, "those whose outputs are on lost nodes")
	c.Flags().StringVar(&partitions, "partition", "", "these, as in 3,7-9")
	return c
}
