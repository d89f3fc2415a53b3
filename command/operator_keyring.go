package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

// operatorKeyring are the steps of a rotation: install a new key everywhere, use
// it, remove the old one.
func (e *env) operatorKeyring() *cobra.Command {
	return grouped("keyring", "Gossip's keys",
		e.keyringList(),
		e.keyringChange(api.KeyInstall, "KEY", "Let all agents read with one more key",
			"Installs a key on all agents: they read with it from now on, and go on writing with the one in use. It is the first step of a rotation;\n"+
				"`agent gossip keygen` makes keys."),
		e.keyringChange(api.KeyUse, "KEY|ID", "Let all agents write with a key",
			"Makes all agents write with a key that all of them have. Afterwards put it into their configurations, so that new agents find in."),
		e.keyringChange(api.KeyRemove, "KEY|ID", "Make all agents forget a key",
			"Removes a key that no agent writes with any more. Agents that missed the rotation are shut out then."),
	)
}

func (e *env) keyringList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Which keys the agents have", Args: args(0, "no arguments"),
		Long: "Lists the keys that encrypt gossip, by their IDs, and how many agents have them and write with them.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			report, err := client.Keyring(c.Context())
			if err != nil {
				return err
			}
			return e.printKeyring(report)
		},
	}
}

func (e *env) keyringChange(operation, takes, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: operation + " " + takes, Short: short, Long: long + "\n\n" + exitHelp, Args: args(1, "one key"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			report, err := client.ChangeKeyring(c.Context(), api.KeyringChange{Operation: operation, Key: given[0]})
			if err != nil {
				return err
			}
			return e.printKeyring(report)
		},
	}
}

// printKeyring prints a report. It fails when agents did.
func (e *env) printKeyring(r api.Keyring) error {
	var ids []string
	rows := [][]string{{"KEY", "INSTALLED", "IN USE"}}
	for _, k := range r.Keys {
		ids = append(ids, k.ID)
		rows = append(rows, []string{k.ID, fmt.Sprintf("%d of %d", k.Installed, r.Members), fmt.Sprintf("%d of %d", k.Primary, r.Members)})
	}
	if ok, err := e.shaped(r, ids...); ok {
		if err != nil {
			return err
		}
	} else if err := e.table(rows); err != nil {
		return err
	}
	if len(r.Failed) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d agents failed:", len(r.Failed), r.Members)
	for _, f := range r.Failed {
		text += fmt.Sprintf("\n  %s: %s", f.Member, f.Error)
	}
	return &outcome{code: ExitAgent, text: text + "\nthe same command again asks all of them again"}
}
