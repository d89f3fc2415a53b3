package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

func (e *env) serverMembers() *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "The agents that gossip knows", Long: "Lists the agents that gossip knows, and who leads.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			members, err := client.Members(c.Context())
			if err != nil {
				return err
			}
			nameLeader(c.Context(), client, members)
			rows := [][]string{{"NAME", "ROLE", "STATUS", "RPC", "LEADER"}}
			var names []string
			for _, m := range members {
				names = append(names, m.Name)
				rows = append(rows, []string{m.Name, m.Role, m.Status, m.RPC, fmt.Sprint(m.Leader)})
			}
			if ok, err := e.shaped(members, names...); ok {
				return err
			}
			return e.table(rows)
		},
	}
}

// nameLeader marks the leader where the agent that answered is no server and does not know it: one is asked. Without a leader none is marked.
func nameLeader(ctx context.Context, client *api.Client, members []api.Member) {
	if slices.ContainsFunc(members, func(m api.Member) bool { return m.Leader }) {
		return
	}
	leader, err := client.Leader(ctx)
	if err != nil {
		return
	}
	for i := range members {
		members[i].Leader = members[i].RPC == leader && strings.Contains(members[i].Role, "server")
	}
}

func (e *env) serverLeave() *cobra.Command {
	return &cobra.Command{
		Use: "leave", Short: "Take the agent out of the cluster and end it", Args: args(0, "no arguments"),
		Long: "Makes the agent that answers leave: a server hands leadership on, is removed from the servers and says farewell to gossip; then it ends.\n" +
			"For good, not for a restart: a stopped agent (SIGTERM) stays a member. The only server cannot leave.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.Leave(c.Context())
		},
	}
}

func (e *env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "This program's version, and the agent's", Long: "Prints the version of this program and of the agent that answers, if one does.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			got := map[string]string{"client": e.version}
			client, err := e.client()
			if err != nil {
				return err
			}
			if self, err := client.Self(c.Context()); err == nil {
				got["agent"] = self.Version
			}
			if ok, err := e.shaped(got, e.version); ok {
				return err
			}
			fmt.Fprintln(e.out, "client", got["client"])
			if v, ok := got["agent"]; ok {
				fmt.Fprintln(e.out, "agent ", v)
			} else {
				e.hint("no agent answers at %s", client.Address())
			}
			return nil
		},
	}
}
