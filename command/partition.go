package command

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) partitionList() *cobra.Command {
	var p pageFlags
	var order, state string
	c := &cobra.Command{
		Use: "list JOB", Short: "List a run's partitions", Long: "Lists a run's partitions.\n\n" + exitHelp, Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			compare, ok := partitionOrders[order]
			if !ok {
				return usage("-sort %q is unknown: use index, duration, attempt or memory", order)
			}
			more := url.Values{}
			if state != "" {
				var known sheaf.PartitionState
				if err := known.UnmarshalText([]byte(state)); err != nil {
					return err
				}
				more.Set("state", state)
			}
			list, err := pages(e, p, more, func(r api.Read) ([]sheaf.Partition, api.Meta, error) { return client.Partitions(ctx, run, r) })
			if err != nil {
				return err
			}
			slices.SortStableFunc(list, compare)
			ids := make([]string, len(list))
			rows := [][]string{{"PARTITION", "STATE", "ATTEMPT", "EXIT", "NODE", "TOOK", "REASON"}}
			for i, x := range list {
				ids[i] = strconv.Itoa(x.Index)
				exit := ""
				if x.ExitCode != nil {
					exit = strconv.Itoa(*x.ExitCode)
				}
				took := ""
				if d := partitionTook(x); d > 0 {
					took = roundDuration(d).String()
				}
				rows = append(rows, []string{ids[i], x.State.String(), fmt.Sprint(x.Attempt), exit, fmt.Sprintf("%.8s", x.Node), took, x.Reason})
			}
			if ok, err := e.shaped(list, ids...); ok {
				return err
			}
			return e.table(rows)
		}),
	}
	p.bind(c)
	c.Flags().StringVar(&state, "state", "", "only those in this state")
	c.Flags().StringVar(&order, "sort", "index", "index, duration, attempt or memory, the largest first")
	return c
}

var partitionOrders = map[string]func(a, b sheaf.Partition) int{
	"index":    func(a, b sheaf.Partition) int { return cmp.Compare(a.Index, b.Index) },
	"duration": func(a, b sheaf.Partition) int { return cmp.Compare(partitionTook(b), partitionTook(a)) },
	"attempt":  func(a, b sheaf.Partition) int { return cmp.Compare(b.Attempt, a.Attempt) },
	"memory":   func(a, b sheaf.Partition) int { return cmp.Compare(b.PeakMem, a.PeakMem) },
}

func partitionTook(p sheaf.Partition) time.Duration {
	if p.Started == nil || p.Ended == nil {
		return 0
	}
	return p.Ended.Sub(*p.Started)
}

func (e *env) partitionStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status JOB/PARTITION", Short: "One partition", Long: "Shows one partition.\n\n" + exitHelp, Args: args(1, "one partition"),
		RunE: func(c *cobra.Command, given []string) error {
			run, n, err := partitionRef(given[0], true)
			if err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			p, _, err := client.Partition(c.Context(), run, n, api.Read{})
			if err != nil {
				return err
			}
			if ok, err := e.shaped(p, strconv.Itoa(p.Index)); ok {
				return err
			}
			rows := [][]string{{"partition", strconv.Itoa(p.Index)}, {"state", p.State.String()}, {"attempt", fmt.Sprint(p.Attempt)}, {"failures", strconv.Itoa(p.Failures)}, {"losses", strconv.Itoa(p.Losses)}}
			if p.Node != "" {
				rows = append(rows, []string{"node", string(p.Node)})
			}
			if p.ExitCode != nil {
				rows = append(rows, []string{"exit code", strconv.Itoa(*p.ExitCode)})
			}
			if p.Reason != "" {
				rows = append(rows, []string{"reason", p.Reason})
			}
			if d := partitionTook(p); d > 0 {
				rows = append(rows, []string{"took", roundDuration(d).String()})
			}
			if m := p.MadeBy; m != nil {
				rows = append(rows, []string{"output of", fmt.Sprintf("partition %d of run %s, taken over: its task and its shard are the same", m.Partition, m.Run)})
			}
			if p.Output != "" {
				rows = append(rows, []string{"output", "sha256:" + p.Output})
			}
			return e.table(rows)
		},
	}
}
