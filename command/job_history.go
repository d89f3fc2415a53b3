package command

import (
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) jobHistory() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "history NAME", Short: "The runs of a job, the newest first", Args: args(1, "one job"),
		Long: "Lists the runs of a job that the servers still keep, the newest first.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			if err := sheaf.CheckName("job", given[0]); err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			runs, err := pages(e, p, url.Values{"name": {given[0]}}, func(r api.Read) ([]sheaf.RunStub, api.Meta, error) { return client.Runs(c.Context(), r) })
			if err != nil {
				return err
			}
			slices.SortStableFunc(runs, func(a, b sheaf.RunStub) int { return b.Submitted.Compare(a.Submitted) })
			ids := make([]string, len(runs))
			rows := [][]string{{"ID", "STATUS", "DONE", "OF", "FAILED", "SUBMITTED", "TOOK", "ERROR"}}
			for i, r := range runs {
				ids[i] = string(r.ID)
				took := ""
				if r.Started != nil && r.Ended != nil {
					took = roundDuration(r.Ended.Sub(*r.Started)).String()
				}
				rows = append(rows, []string{ids[i], string(r.Status), strconv.Itoa(done(r.Partitions)), strconv.Itoa(r.Partitions.Total), strconv.Itoa(r.Partitions.Failed), r.Submitted.Local().Format(time.DateTime), took, r.Error})
			}
			if ok, err := e.shaped(runs, ids...); ok {
				return err
			}
			if len(runs) == 0 {
				return &sheaf.Error{Class: sheaf.NotFound, Field: "job", Msg: "no run of a job called " + strconv.Quote(given[0]) + " is kept", Hint: "`agent job list` shows what there is"}
			}
			return e.table(rows)
		},
	}
	p.bind(c)
	return c
}
