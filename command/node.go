package command

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) nodeList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List nodes", Long: "Lists the clients of the cluster.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			nodes, err := pages(e, p, nil, func(r api.Read) ([]sheaf.Node, api.Meta, error) { return client.Nodes(c.Context(), r) })
			if err != nil {
				return err
			}
			rows := [][]string{{"ID", "NAME", "STATUS", "CPU", "MEMORY", "DRIVERS"}}
			var ids []string
			for _, n := range nodes {
				ids = append(ids, string(n.ID))
				status := string(n.Status)
				switch {
				case n.Drain != nil && n.Drain.Done == nil:
					status += ", draining"
				case n.Drain != nil:
					status += ", empty"
				case !n.Eligible:
					status += ", ineligible"
				case n.Avoided != "":
					status += ", avoided"
				}
				rows = append(rows, []string{fmt.Sprintf("%.8s", n.ID), n.Name, status, fmt.Sprintf("%d MHz", n.Resources.CPU), mib(n.Resources.Memory), healthy(n)})
			}
			if ok, err := e.shaped(nodes, ids...); ok {
				return err
			}
			return e.table(rows)
		},
	}
	p.bind(c)
	return c
}

func mib(s sheaf.Size) string { return fmt.Sprintf("%d MiB", int64(s)>>20) }

func healthy(n sheaf.Node) string {
	var names []string
	for _, d := range n.Drivers {
		if d.Healthy {
			names = append(names, d.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (e *env) nodeStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status NODE", Short: "One node", Long: "Shows one client: an ID, a unique prefix of one, or a name.\n\n" + exitHelp, Args: args(1, "one node"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			n, _, err := client.Node(c.Context(), given[0], api.Read{})
			if err != nil {
				return err
			}
			if ok, err := e.shaped(n, string(n.ID)); ok {
				return err
			}
			rows := [][]string{
				{"id", string(n.ID)}, {"name", n.Name}, {"status", string(n.Status)}, {"eligible", fmt.Sprint(n.Eligible)},
				{"datacenter", n.Datacenter}, {"class", n.Class}, {"address", n.Address}, {"session", fmt.Sprint(n.Session)},
				{"cpu", fmt.Sprintf("%d MHz", n.Resources.CPU)}, {"memory", mib(n.Resources.Memory)}, {"disk", mib(n.Resources.Disk)}, {"pids", fmt.Sprint(n.Resources.Pids)},
			}
			if n.Avoided != "" {
				rows = append(rows, []string{"avoided", "others are preferred: " + n.Avoided})
			}
			if n.Drain != nil {
				p, _, err := client.DrainProgress(c.Context(), string(n.ID), api.Read{})
				if err != nil {
					return err
				}
				rows = append(rows, []string{"drain", drainText(p)}, []string{"drain began", n.Drain.Began.Format(time.RFC3339)})
				if n.Drain.Deadline != nil {
					rows = append(rows, []string{"drain deadline", n.Drain.Deadline.Format(time.RFC3339)})
				}
			}
			for _, d := range n.Drivers {
				state := "healthy"
				if !d.Healthy {
					state = "not healthy: " + d.Reason
				}
				rows = append(rows, []string{"driver " + d.Name, state})
			}
			for _, s := range n.Sources {
				rows = append(rows, []string{"reads", s.Scheme + "://" + s.Root})
			}
			for _, k := range slices.Sorted(maps.Keys(n.Attributes)) {
				rows = append(rows, []string{"attr." + k, n.Attributes[k]})
			}
			return e.table(rows)
		},
	}
}
