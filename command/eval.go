package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) evalList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "What the leader is about to place, and what it fails to",
		Long: "Lists the leader's evaluations: its requests to itself to look at a run and place what it needs. One that fails is tried again after a pause, with the\n" +
			"cause; one that failed too often is laid aside until its run changes. A run that waits for nothing has none.\n\n" + exitHelp,
		Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := pages(e, p, nil, func(r api.Read) ([]sheaf.Evaluation, api.Meta, error) {
				return client.Evaluations(c.Context(), r)
			})
			if err != nil {
				return err
			}
			ids := make([]string, len(all))
			rows := [][]string{{"RUN", "NAMESPACE", "PRIORITY", "STATUS", "DUE", "FAILURES", "CAUSE"}}
			for i, x := range all {
				ids[i] = string(x.Run)
				due := ""
				if x.Due != nil {
					due = "in " + max(0, roundDuration(time.Until(*x.Due))).String()
				}
				rows = append(rows, []string{ids[i], x.Namespace, fmt.Sprint(x.Priority), string(x.Status), due, fmt.Sprint(x.Failures), printable(x.Cause)})
			}
			if ok, err := e.shaped(all, ids...); ok {
				return err
			}
			if len(all) == 0 {
				e.hint("nothing waits to be placed; why a run waits: agent job explain JOB")
				return nil
			}
			return e.table(rows)
		},
	}
	p.bind(c)
	return c
}
