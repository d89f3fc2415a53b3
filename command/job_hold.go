package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

func (e *env) jobHold() *cobra.Command {
	return &cobra.Command{
		Use: "hold JOB", Short: "Place nothing more of a run",
		Long: "Holds a run: nothing more of it is placed, and what waits at nodes is taken back. What runs goes on. `agent job release` lets it go on.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, err := client.Hold(ctx, run)
			if err != nil {
				return err
			}
			return e.stub(got)
		}),
	}
}

func (e *env) jobRelease() *cobra.Command {
	return &cobra.Command{
		Use: "release JOB", Short: "Go on with a run that is held", Long: "Lets a run that is held go on.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, err := client.Release(ctx, run)
			if err != nil {
				return err
			}
			return e.stub(got)
		}),
	}
}

func (e *env) jobUpdate() *cobra.Command {
	var priority, parallelism int
	c := &cobra.Command{
		Use: "update JOB", Short: "Change a run's priority or parallelism while it goes",
		Long: "Changes how a run that is not over is scheduled. A higher priority counts at the next slots that become free. A lower parallelism ends nothing: what has\n" +
			"not begun is taken back, and the rest runs to its end. The job that was submitted stays as it is.\n\n" + exitHelp,
		Example: "  agent job update -priority 90 thumbnails\n  agent job update -parallelism 20 last",
		Args:    args(1, "one run"),
	}
	c.Flags().IntVar(&priority, "priority", 0, "its weight against other runs, 1 to 100")
	c.Flags().IntVar(&parallelism, "parallelism", 0, "how many of its partitions may be under way at once; 0 is no bound")
	c.RunE = func(cmd *cobra.Command, given []string) error {
		var req api.ChangeRequest
		if cmd.Flags().Changed("priority") {
			req.Priority = &priority
		}
		if cmd.Flags().Changed("parallelism") {
			req.Parallelism = &parallelism
		}
		if req == (api.ChangeRequest{}) {
			return usage("nothing is to change: give -priority or -parallelism")
		}
		return e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, err := client.Change(ctx, run, req)
			if err != nil {
				return err
			}
			return e.stub(got)
		})(cmd, given)
	}
	return c
}
