package command

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) monitorCommand() *cobra.Command {
	var o api.MonitorOptions
	var node, server string
	c := &cobra.Command{
		Use: "monitor", Short: "Follow an agent's log", Args: args(0, "no arguments"),
		Long: "Follows an agent's log until it is interrupted: of the agent that is asked, or of another.\n" +
			"The level is the follower's own: with -level debug come records that the agent itself does not write.\n\n" + exitHelp,
		Example: "  agent monitor -level debug\n  agent monitor -node worker-3",
		RunE: func(c *cobra.Command, _ []string) error {
			if node != "" && server != "" {
				return usage("give -node or -server, not both")
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			o.Agent = server
			if node != "" {
				n, _, err := client.Node(c.Context(), node, api.Read{})
				if err != nil {
					return err
				}
				o.Agent = string(n.ID)
			}
			for line, err := range client.Monitor(c.Context(), o) {
				if c.Context().Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				if err := e.logLine(line); err != nil {
					return err
				}
			}
			if c.Context().Err() != nil {
				return nil
			}
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: "the agent ended the stream", Hint: "it may have stopped: `agent server members` shows who is there"}
		},
	}
	c.Flags().StringVar(&o.Level, "level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&node, "node", "", "of the client with this ID, unique prefix of one, or `NAME`")
	c.Flags().StringVar(&server, "server", "", "of the server with this `NAME`")
	return c
}

// logLine prints a record; a beat is none.
func (e *env) logLine(x api.LogLine) error {
	if x.Dropped > 0 {
		e.hint("%s are missing: the connection was too slow", counted(int(x.Dropped), "record"))
	}
	if x.Message == "" && x.Level == "" {
		return nil
	}
	if e.json {
		return json.NewEncoder(e.out).Encode(x)
	}
	if ok, err := e.shaped(x); ok {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s %s", x.Time, x.Level, printable(x.Message))
	for _, k := range slices.Sorted(maps.Keys(x.Attrs)) {
		v := x.Attrs[k]
		if strings.ContainsAny(v, " \t\n\"") || v == "" {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, " %s=%s", k, printable(v))
	}
	_, err := fmt.Fprintln(e.out, b.String())
	return err
}
