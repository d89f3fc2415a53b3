package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// reconnectPause is the wait before a stream that broke is taken up again.
const reconnectPause = time.Second

func (e *env) eventsCommand() *cobra.Command {
	var topics []string
	var filter, namespace string
	var since int64
	c := &cobra.Command{
		Use: "events", Short: "Follow what happens in the cluster", Args: args(0, "no arguments"),
		Long: "Follows what happens in the cluster, a line an event, until it is interrupted.\n" +
			"With -json each line is an event's JSON form. The fields of a filter are those of that form.\n" +
			"Topics: " + topicNames() + ".\n\n" + exitHelp,
		Example: "  agent events -topic run,node\n  agent events -filter 'status == \"failed\"' -since 0",
		RunE: func(c *cobra.Command, _ []string) error {
			o := api.EventOptions{Filter: filter, Namespace: namespace}
			for _, t := range topics {
				if !slices.Contains(sheaf.Topics, sheaf.Topic(t)) {
					return usage("-topic %q is unknown: use %s", t, topicNames())
				}
				o.Topics = append(o.Topics, sheaf.Topic(t))
			}
			if since >= 0 {
				after := uint64(since)
				o.After = &after
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			return e.followEvents(c.Context(), client, o)
		},
	}
	c.Flags().StringSliceVar(&topics, "topic", nil, "only these `TOPICS`, separated by commas")
	c.Flags().StringVar(&filter, "filter", "", "only events for which this `EXPRESSION` over their fields is true")
	c.Flags().Int64Var(&since, "since", -1, "begin after this `INDEX`; 0 is all that is kept, without it what comes now")
	c.Flags().StringVar(&namespace, "namespace", "", "only events of this namespace, and of none")
	return c
}

func topicNames() string {
	var names []string
	for _, t := range sheaf.Topics {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// followEvents prints events until ctx ends. A connection that breaks once it was there is taken
// up again after the last index, so that nothing is missed.
func (e *env) followEvents(ctx context.Context, client *api.Client, o api.EventOptions) error {
	for connected := false; ; {
		var broke error
		for line, err := range client.Events(ctx, o) {
			if err != nil {
				broke = err
				break
			}
			connected = true
			o.After = &line.Index
			if line.Gap != nil {
				e.hint("events of the entries %d to %d are missing: the server keeps them no more", line.Gap.After+1, line.Gap.Until)
			}
			for _, event := range line.Events {
				if err := e.event(event); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if !connected || broke != nil && sheaf.ClassOf(broke) != sheaf.Unavailable && !broken(broke) {
			return broke
		}
		e.hint("the connection broke; it goes on after entry %d", *o.After)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectPause):
		}
	}
}

// broken reports whether an error is of the connection rather than an answer.
func broken(err error) bool {
	var ours *sheaf.Error
	return !errors.As(err, &ours)
}

// event prints one.
func (e *env) event(x sheaf.Event) error {
	if e.json {
		return json.NewEncoder(e.out).Encode(x)
	}
	if ok, err := e.shaped(x, x.Key); ok {
		return err
	}
	text := fmt.Sprintf("%s  %d  %s  %s", x.Time.Local().Format(time.TimeOnly), x.Index, x.Type, printable(x.Key))
	switch {
	case x.Was != "" && x.Was != x.Status:
		text += fmt.Sprintf("  %s -> %s", x.Was, x.Status)
	case x.Topic == sheaf.TopicNode || x.Topic == sheaf.TopicServer:
		text += "  " + x.Status
	}
	if x.Count > 0 {
		text += "  " + counted(x.Count, "partition")
		if len(x.Partitions) > 0 {
			text += ": " + x.Partitions.String()
		}
		if x.More {
			text += ", …"
		}
	}
	if x.Node != "" && string(x.Node) != x.Key {
		text += fmt.Sprintf("  on %.8s", x.Node)
	}
	if x.Reason != "" {
		text += "  " + printable(x.Reason)
	}
	_, err := fmt.Fprintln(e.out, text)
	return err
}
