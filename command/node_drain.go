package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) nodeDrain() *cobra.Command {
	var req api.DrainRequest
	var deadline time.Duration
	var noWait bool
	c := &cobra.Command{
		Use: "drain NODE", Short: "Empty a node, so that it may be stopped",
		Long: "Takes a node out of use. It gets nothing new; what it has not begun goes elsewhere; what runs goes on until the deadline, and is then ended and placed " +
			"elsewhere, which counts against no retries. Its outputs are copied to other nodes, so that nothing is lost with it. The command waits until the node is empty; " +
			"interrupting it does not stop that. Afterwards the node stays out of use: stop its agent, and `agent node purge` forgets it; or use it again with `agent node eligibility -enable`.\n\n" + exitHelp,
		Args: args(1, "one node"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			if req.Cancel && (req.Force || c.Flags().Changed("deadline")) {
				return usage("-cancel excludes -force and -deadline")
			}
			if deadline > 0 {
				req.Deadline = deadline.String()
			}
			p, err := client.DrainNode(c.Context(), given[0], req)
			if err != nil {
				return err
			}
			if !req.Cancel && !noWait {
				if p, err = e.watchDrain(c.Context(), client, p); err != nil {
					return err
				}
			}
			if ok, err := e.shaped(p, string(p.Node.ID)); ok {
				return err
			}
			_, err = fmt.Fprintf(e.out, "%s %s: %s\n", p.Node.ID, p.Node.Name, drainText(p))
			return err
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", time.Hour, "what still runs then is ended; 0 waits for as long as it takes")
	c.Flags().BoolVar(&req.Force, "force", false, "end what runs at once")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the node is empty")
	c.Flags().BoolVar(&req.Cancel, "cancel", false, "use the node again")
	return c
}

// drainPoll is how often progress is asked for.
const drainPoll = 500 * time.Millisecond

// watchDrain waits until a node is empty, and says how it goes when that changes.
func (e *env) watchDrain(ctx context.Context, client *api.Client, p sheaf.DrainProgress) (sheaf.DrainProgress, error) {
	told := ""
	for {
		switch d := p.Node.Drain; {
		case d == nil:
			return p, &sheaf.Error{Class: sheaf.Conflict, Msg: "draining node " + string(p.Node.ID) + " was cancelled"}
		case d.Done != nil:
			return p, nil
		}
		if now := drainText(p); now != told {
			told = now
			if _, err := fmt.Fprintln(e.err, now); err != nil {
				return p, err
			}
		}
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(drainPoll):
		}
		var err error
		if p, _, err = client.DrainProgress(ctx, string(p.Node.ID), api.Read{}); err != nil {
			return p, err
		}
	}
}

// drainText is how far an emptying is.
func drainText(p sheaf.DrainProgress) string {
	switch d := p.Node.Drain; {
	case d == nil && p.Node.Eligible:
		return "in use"
	case d == nil:
		return "gets no new work"
	case d.Done != nil:
		return "empty; its agent may be stopped"
	}
	s := fmt.Sprintf("draining: %d executions and %d outputs are left", p.Running, p.Outputs)
	if len(p.Waiting) > 0 {
		s += " (" + strings.Join(p.Waiting, "; ") + ")"
	}
	return s
}

func (e *env) nodeEligibility() *cobra.Command {
	var enable, disable bool
	c := &cobra.Command{
		Use: "eligibility NODE", Short: "Say whether a node gets new work",
		Long: "Says whether a node gets new work. What it has goes on.\n\n" + exitHelp, Args: args(1, "one node"),
		RunE: func(c *cobra.Command, given []string) error {
			if enable == disable {
				return usage("give -enable or -disable")
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			n, err := client.SetEligibility(c.Context(), given[0], enable)
			if err != nil {
				return err
			}
			return e.node(n, drainText(sheaf.DrainProgress{Node: n}))
		},
	}
	c.Flags().BoolVar(&enable, "enable", false, "it gets new work")
	c.Flags().BoolVar(&disable, "disable", false, "it gets none")
	return c
}

func (e *env) nodePurge() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "purge NODE", Short: "Forget a node that is down",
		Long: "Forgets a node that is down. One that holds the only copies of outputs is forgotten by -force only, and they are lost then.\n\n" + exitHelp, Args: args(1, "one node"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			n, err := client.PurgeNode(c.Context(), given[0], force)
			if err != nil {
				return err
			}
			return e.node(n, "forgotten")
		},
	}
	c.Flags().BoolVar(&force, "force", false, "although outputs lie only there")
	return c
}

// node prints what became of a node.
func (e *env) node(n sheaf.Node, what string) error {
	if ok, err := e.shaped(n, string(n.ID)); ok {
		return err
	}
	_, err := fmt.Fprintf(e.out, "%s %s: %s\n", n.ID, n.Name, what)
	return err
}
