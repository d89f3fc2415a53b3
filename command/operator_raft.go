package command

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

func (e *env) operatorRaft() *cobra.Command {
	return grouped("raft", "Who the servers are", e.raftListPeers(), e.raftRemovePeer(), e.raftTransfer(), e.raftReset(), e.raftRecover())
}

// duration of contact, as tables show it.
func contact(s api.Server) string {
	if s.Health == nil || s.Health.LastContact < 0 {
		return "-"
	}
	return s.Health.LastContact.String()
}

func soundness(s api.Server) string {
	if s.Health == nil {
		return "-"
	}
	return fmt.Sprint(s.Health.Healthy)
}

func (e *env) printServers(servers []api.Server) error {
	rows := [][]string{{"ID", "NAME", "RPC", "STATE", "VOTER", "ALIVE", "HEALTHY", "LAST CONTACT", "INDEX"}}
	for _, s := range servers {
		state, index := "follower", "-"
		if s.Leader {
			state = "leader"
		}
		if s.Health != nil {
			index = fmt.Sprint(s.Health.LastIndex)
		}
		rows = append(rows, []string{s.ID, s.Name, s.Address, state, fmt.Sprint(s.Voter), fmt.Sprint(s.Alive), soundness(s), contact(s), index})
	}
	return e.table(rows)
}

func (e *env) raftListPeers() *cobra.Command {
	return &cobra.Command{
		Use: "list-peers", Short: "The servers, and how they do", Args: args(0, "no arguments"),
		Long: "Lists the servers of raft's configuration and those that gossip knows beside them. With -stale the agent asked\n" +
			"answers from what it knows, also while there is no leader.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			servers, err := client.RaftPeers(c.Context(), false)
			if err != nil {
				return err
			}
			var ids []string
			for _, s := range servers {
				ids = append(ids, s.ID)
			}
			if ok, err := e.shaped(servers, ids...); ok {
				return err
			}
			return e.printServers(servers)
		},
	}
}

func (e *env) raftRemovePeer() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "remove-peer ID", Short: "Take a server out of the configuration", Args: args(1, "one server's ID"),
		Long: "Removes a server that is gone and will not come back. One that is alive leaves by `agent server leave`.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.RemovePeer(c.Context(), api.RemovePeer{ID: given[0], Force: force})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "even one that is alive; the leader may take it in again")
	return c
}

func (e *env) raftTransfer() *cobra.Command {
	var id string
	c := &cobra.Command{
		Use: "transfer-leadership", Short: "Make another server lead", Args: args(0, "no arguments"),
		Long: "Hands leadership to the voter named, or to the one whose log is furthest. Work goes on; clients find the new leader by themselves.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.TransferLeadership(c.Context(), id)
		},
	}
	c.Flags().StringVar(&id, "id", "", "the `ID` of the server that is to lead")
	return c
}

func (e *env) raftReset() *cobra.Command {
	var dir string
	var force bool
	c := &cobra.Command{
		Use: "reset", Short: "Let a server with a damaged store begin anew", Args: args(0, "no arguments"),
		Long: "Moves the raft directory of a server that is not running aside, and gives the server a new ID in the same cluster. When it is started\n" +
			"the leader takes it in, in the place of the old one, and it gets the state from there. It is refused where no other server has the state.\n\n" + exitHelp,
		RunE: func(_ *cobra.Command, _ []string) error {
			dir, err := dataDir(dir)
			if err != nil {
				return err
			}
			moved, err := resetServer(dir, force)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(map[string]string{"moved": moved}, moved); ok {
				return err
			}
			fmt.Fprintln(e.out, "moved to", moved)
			e.hint("start the server now; delete what was moved once `agent operator raft list-peers` shows the server as a voter")
			return nil
		},
	}
	c.Flags().StringVar(&dir, "data-dir", "", "the agent's data `DIR`, as in its configuration")
	c.Flags().BoolVar(&force, "force", false, "even where no other server is known to have the state")
	return c
}

func (e *env) raftRecover() *cobra.Command {
	var dir string
	var peers []string
	c := &cobra.Command{
		Use: "recover", Short: "Make a cluster of the servers that remain", Args: args(0, "no arguments"),
		Long: "For when a quorum is lost for good. Stop all servers that remain, and run this on each of them with the same list of -peer; then start them.\n" +
			"What the logs of these servers hold counts as agreed from then on; what only the lost ones had is lost. A server's ID and address stand in\n" +
			"server/raft/servers.json of the data directory.\n\n" +
			"    agent operator raft recover -data-dir /var/lib/sheaf -peer ID1=10.0.0.1:7611 -peer ID2=10.0.0.2:7611\n\n" + exitHelp,
		RunE: func(_ *cobra.Command, _ []string) error {
			dir, err := dataDir(dir)
			if err != nil {
				return err
			}
			list := map[string]string{}
			for _, p := range peers {
				id, address, ok := strings.Cut(p, "=")
				if !ok || id == "" || address == "" {
					return usage("-peer %q: write it as ID=HOST:PORT", p)
				}
				if list[id] != "" {
					return usage("-peer %q: the ID is there twice", p)
				}
				list[id] = address
			}
			if len(list) == 0 {
				return usage("name every server that remains: -peer ID=HOST:PORT")
			}
			log, err := logger(e.err, "warn")
			if err != nil {
				return err
			}
			index, err := recoverServer(dir, list, log)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(map[string]uint64{"index": index}, fmt.Sprint(index)); ok {
				return err
			}
			fmt.Fprintln(e.out, "recovered at index", index)
			e.hint("do the same on every other server of the list, then start them all")
			return nil
		},
	}
	c.Flags().StringVar(&dir, "data-dir", "", "the agent's data `DIR`, as in its configuration")
	c.Flags().StringArrayVar(&peers, "peer", nil, "a server that remains, as `ID=HOST:PORT` of its RPC; repeated, this server included")
	return c
}

func dataDir(dir string) (string, error) {
	if dir == "" {
		return "", usage("-data-dir is needed: the data_dir of the agent's configuration")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", usage("-data-dir %q: %v", dir, err)
	}
	return abs, nil
}
