package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

func (e *env) jobWait() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "wait JOB", Short: "Wait for a run's end", Long: "Waits until a run is over and ends with its outcome.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			if timeout > 0 {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, timeout)
				defer stop()
			}
			s, err := e.watch(ctx, client, run)
			if timedOut(ctx) {
				return &outcome{code: ExitTimedOut, text: fmt.Sprintf("%s has not ended within %s", run, timeout)}
			}
			if err != nil {
				return err
			}
			return e.finish(ctx, client, s, "")
		}),
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "wait at most so long")
	return c
}

// withRun is the shape of commands about one run: they get a client and what the
// API may call the run.
func (e *env) withRun(do func(ctx context.Context, client *api.Client, run string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		run, err := runRef(args[0])
		if err != nil {
			return err
		}
		client, err := e.client()
		if err != nil {
			return err
		}
		return do(c.Context(), client, run)
	}
}
