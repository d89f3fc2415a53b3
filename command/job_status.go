package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

func (e *env) jobStatus() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "status [JOB]", Short: "How a run goes",
		Long: "Shows how a run goes. JOB is an ID, a unique prefix of one, a job's name (its latest run), or last, which is meant without any.\n\n" + exitHelp,
		Args: atMostOne("one run"),
		RunE: func(c *cobra.Command, args []string) error {
			ref := "last"
			if len(args) == 1 {
				ref = args[0]
			}
			run, err := runRef(ref)
			if err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			s, _, err := client.Summary(c.Context(), run, api.Read{})
			if err != nil {
				return err
			}
			if watch && !s.Status.Terminal() {
				s, err = e.watch(c.Context(), client, string(s.ID))
				if c.Context().Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
			}
			if ok, err := e.shaped(s, string(s.ID)); ok {
				return err
			}
			if s.Status.Terminal() {
				e.conclude(e.out, s)
				return nil
			}
			fmt.Fprintf(e.out, "%s  %s\n", s.ID, progressLine(s))
			fmt.Fprintf(e.out, "submitted %s ago, priority %d, %s\n", roundDuration(time.Since(s.Submitted)), s.Priority, countsText(s.Partitions))
			for _, p := range s.Slowest {
				if p.Started != nil {
					fmt.Fprintf(e.out, "slow: %s/%d running for %s on %s\n", s.ID, p.Index, roundDuration(time.Since(*p.Started)), p.Node)
				}
			}
			if r := s.Reduce; r != nil {
				fmt.Fprintf(e.out, "reduce: %s, attempt %d", r.State, r.Attempt)
				if r.Node != "" {
					fmt.Fprintf(e.out, " on %s", r.Node)
				}
				fmt.Fprintln(e.out)
			}
			if s.Backups > 0 {
				fmt.Fprintf(e.out, "%d slow partitions have a second attempt\n", s.Backups)
			}
			for _, w := range s.Waiting {
				fmt.Fprintln(e.out, "waiting:", printable(w))
			}
			if s.Conflict != nil {
				fmt.Fprintln(e.out, "conflict:", printable(s.Conflict.Message))
				fmt.Fprintf(e.out, "the run will fail when its outputs are merged; `agent job stop %s` ends it now\n", s.ID)
			}
			e.failures(e.out, s)
			for _, w := range s.Warnings {
				fmt.Fprintln(e.out, "warning:", printable(w))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "go on until the run is over")
	return c
}
