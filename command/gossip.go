package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/internal/gossip"
)

func (e *env) gossipKeygen() *cobra.Command {
	return &cobra.Command{
		Use: "keygen", Short: "Make a key that encrypts gossip", Args: args(0, "no arguments"),
		Long: "Prints a new key for the gossip block of every agent's configuration.\n\n" + exitHelp,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(e.out, gossip.NewKey())
			return nil
		},
	}
}
