package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) operatorAutopilot() *cobra.Command {
	return grouped("autopilot", "How servers become voters and are removed", e.autopilotGet(), e.autopilotSet(), e.autopilotState())
}

func (e *env) printAutopilot(a api.AutopilotConfig) error {
	if ok, err := e.shaped(a, fmt.Sprint(a.ModifyIndex)); ok {
		return err
	}
	return e.table([][]string{
		{"SETTING", "VALUE"},
		{"cleanup-dead-servers", fmt.Sprint(a.CleanupDeadServers)},
		{"dead-server-after", a.DeadServerAfter.String()},
		{"last-contact-threshold", a.LastContactThreshold.String()},
		{"max-trailing-logs", fmt.Sprint(a.MaxTrailingLogs)},
		{"min-quorum", fmt.Sprint(a.MinQuorum)},
		{"server-stabilization-time", a.ServerStabilizationTime.String()},
	})
}

func (e *env) autopilotGet() *cobra.Command {
	return &cobra.Command{
		Use: "get-config", Short: "Autopilot's settings", Args: args(0, "no arguments"),
		Long: "Prints how servers become voters and when they are removed.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			a, err := client.AutopilotConfig(c.Context())
			if err != nil {
				return err
			}
			return e.printAutopilot(a)
		},
	}
}

func (e *env) autopilotSet() *cobra.Command {
	var given sheaf.Autopilot
	var after, contact, stable time.Duration
	c := &cobra.Command{
		Use: "set-config", Short: "Change autopilot's settings", Args: args(0, "no arguments"),
		Long: "Changes the settings that are given and leaves the others as they are.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			a, err := client.AutopilotConfig(c.Context())
			if err != nil {
				return err
			}
			changed := false
			for flag, take := range map[string]func(){
				"cleanup-dead-servers":      func() { a.CleanupDeadServers = given.CleanupDeadServers },
				"dead-server-after":         func() { a.DeadServerAfter = sheaf.Duration(after) },
				"last-contact-threshold":    func() { a.LastContactThreshold = sheaf.Duration(contact) },
				"max-trailing-logs":         func() { a.MaxTrailingLogs = given.MaxTrailingLogs },
				"min-quorum":                func() { a.MinQuorum = given.MinQuorum },
				"server-stabilization-time": func() { a.ServerStabilizationTime = sheaf.Duration(stable) },
			} {
				if c.Flags().Changed(flag) {
					take()
					changed = true
				}
			}
			if !changed {
				return usage("give a setting to change: see `%s -help`", c.CommandPath())
			}
			if a, err = client.SetAutopilotConfig(c.Context(), a); err != nil {
				return err
			}
			return e.printAutopilot(a)
		},
	}
	f := c.Flags()
	f.BoolVar(&given.CleanupDeadServers, "cleanup-dead-servers", true, "remove servers that are gone for good, while a quorum is left")
	f.DurationVar(&after, "dead-server-after", 0, "how long a server must be gone for that")
	f.DurationVar(&contact, "last-contact-threshold", 0, "how long ago a healthy server heard of the leader")
	f.Uint64Var(&given.MaxTrailingLogs, "max-trailing-logs", 0, "how many entries a healthy server is behind at most")
	f.Uint32Var(&given.MinQuorum, "min-quorum", 0, "how many voters stay, whatever is dead; 0 for no more than a quorum needs")
	f.DurationVar(&stable, "server-stabilization-time", 0, "how long a new server must be healthy before it votes")
	return c
}

func (e *env) autopilotState() *cobra.Command {
	return &cobra.Command{
		Use: "state", Short: "Whether the servers are healthy", Args: args(0, "no arguments"),
		Long: "Prints each server's health as the leader sees it, and how many may fail while a quorum is left.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			s, err := client.AutopilotState(c.Context())
			if err != nil {
				return err
			}
			if ok, err := e.shaped(s, s.Leader); ok {
				return err
			}
			fmt.Fprintf(e.out, "healthy            %v\nfailure tolerance  %d\nleader             %s\n\n", s.Healthy, s.FailureTolerance, s.Leader)
			return e.printServers(s.Servers)
		},
	}
}
