package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// previewShown is how many partitions a person is shown unless told.
const previewShown = 10

func (e *env) inputPreview() *cobra.Command {
	var vars variables
	var n int
	c := &cobra.Command{
		Use: "preview FILE", Short: "How the inputs would be split",
		Long: "Splits the inputs of a jobspec as a run would, without running it. With -json it prints every partition, a line each.\n" +
			"Where no agent answers, the files are read on this machine.\n\n" + exitHelp,
		Args: args(1, "one file"),
		RunE: func(c *cobra.Command, given []string) error {
			job, err := e.load(c.Context(), given[0], vars)
			if err != nil {
				return err
			}
			return e.reachOrLocal(c.Context(), job, func(ctx context.Context, client *api.Client) error { return e.preview(ctx, client, job, n) })
		},
	}
	vars.bind(c)
	c.Flags().IntVar(&n, "n", 0, "show this many partitions; 10 for people and all for -json unless told")
	return c
}

// reachOrLocal uses the agent that answers; where the environment names none and none
// does, an agent of this command's own.
func (e *env) reachOrLocal(ctx context.Context, job *sheaf.Job, do func(context.Context, *api.Client) error) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	if e.apiConfig().Address == "" {
		if _, err := client.Self(ctx); sheaf.ClassOf(err) == sheaf.Unavailable {
			e.hint("no agent answers at %s: reading on this machine", client.Address())
			return e.withLocal(ctx, do)
		}
	}
	e.inNamespace(job)
	return do(ctx, client)
}

// shardLine is the part of a partition's JSON form that people are shown.
type shardLine struct {
	Index int    `json:"index"`
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
	Atoms []struct {
		Path string `json:"path"`
		B64  string `json:"path_b64"`
	} `json:"atoms"`
}

func (e *env) preview(ctx context.Context, client *api.Client, job *sheaf.Job, n int) error {
	limit := n
	if n == 0 && !e.json {
		limit = previewShown
	}
	total, err := client.Preview(ctx, api.PreviewRequest{Job: *job, Limit: limit}, func(raw json.RawMessage) error {
		if e.json {
			_, err := fmt.Fprintf(e.out, "%s\n", raw)
			return err
		}
		var s shardLine
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read partition: %w", err)
		}
		_, err := fmt.Fprintln(e.out, s.text())
		return err
	})
	if err != nil {
		return previewError(err)
	}
	for _, w := range total.Warnings {
		fmt.Fprintln(e.err, e.colour(e.err, "warning: "+printable(w), yellow))
	}
	if e.json {
		return nil
	}
	if total.Partitions > limit && limit > 0 {
		fmt.Fprintf(e.out, "… and %s more\n", grouped3(total.Partitions-limit))
	}
	fmt.Fprintf(e.out, "%s, %s, %s; the smallest %s, the largest %s\n", counted(total.Partitions, "partition"), counted(int(total.Atoms), "atom"),
		humanize.IBytes(uint64(total.Bytes)), humanize.IBytes(uint64(total.SmallestBytes)), humanize.IBytes(uint64(total.LargestBytes)))
	return nil
}

func (s shardLine) text() string {
	text := fmt.Sprintf("%6d  %9s  %s", s.Index, humanize.IBytes(uint64(s.Bytes)), counted(len(s.Atoms), "atom"))
	if s.Key != "" {
		text += "  group " + printable(s.Key)
	}
	if len(s.Atoms) > 0 {
		text += "  " + printable(s.Atoms[0].Path)
	}
	if len(s.Atoms) > 1 {
		text += " … " + printable(s.Atoms[len(s.Atoms)-1].Path)
	}
	return text
}

// previewError: what a preview finds wrong with the inputs is wrong input.
func previewError(err error) error {
	switch sheaf.ClassOf(err) {
	case sheaf.Invalid, sheaf.Denied, sheaf.NotFound:
		return &outcome{code: ExitUsage, err: err}
	}
	return err
}
