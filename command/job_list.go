package command

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// pageFlags are the flags of every list.
type pageFlags struct {
	filter  string
	perPage int
	token   string
}

func (p *pageFlags) bind(c *cobra.Command) {
	c.Flags().StringVar(&p.filter, "filter", "", `an expression over the fields of the JSON form, as in 'status == "failed"'`)
	c.Flags().IntVar(&p.perPage, "per-page", 0, "items a page; all pages are printed without it")
	c.Flags().StringVar(&p.token, "page-token", "", "go on behind an earlier page")
}

func (p *pageFlags) read() api.Read {
	q := url.Values{}
	if p.filter != "" {
		q.Set("filter", p.filter)
	}
	if p.perPage > 0 {
		q.Set("per_page", strconv.Itoa(p.perPage))
	}
	if p.token != "" {
		q.Set("next_token", p.token)
	}
	return api.Read{Params: q}
}

// pages collects a list: one page if -per-page asks for pages, else all.
func pages[T any](e *env, p pageFlags, more url.Values, list func(api.Read) ([]T, api.Meta, error)) ([]T, error) {
	r := p.read()
	for k, v := range more {
		r.Params[k] = v
	}
	all := []T{}
	for {
		page, m, err := list(r)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if m.NextToken == "" {
			return all, nil
		}
		if p.perPage > 0 {
			e.hint("the next page: -page-token %s", m.NextToken)
			return all, nil
		}
		r.Params.Set("next_token", m.NextToken)
	}
}

func (e *env) jobList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List runs", Long: "Lists runs.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			runs, err := pages(e, p, nil, func(r api.Read) ([]sheaf.RunStub, api.Meta, error) { return client.Runs(c.Context(), r) })
			if err != nil {
				return err
			}
			ids := make([]string, len(runs))
			rows := [][]string{{"ID", "STATUS", "DONE", "OF", "FAILED", "SUBMITTED"}}
			for i, r := range runs {
				ids[i] = string(r.ID)
				rows = append(rows, []string{string(r.ID), statusText(r), strconv.Itoa(done(r.Partitions)), strconv.Itoa(r.Partitions.Total), strconv.Itoa(r.Partitions.Failed), roundDuration(time.Since(r.Submitted)).String() + " ago"})
			}
			if ok, err := e.shaped(runs, ids...); ok {
				return err
			}
			if len(runs) == 0 {
				e.hint("no runs: agent job run FILE")
				return nil
			}
			return e.table(rows)
		},
	}
	p.bind(c)
	return c
}

func (e *env) jobInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect JOB", Short: "A run with its job, as JSON", Long: "Prints a run with its whole job as JSON.\n\n" + exitHelp, Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, _, err := client.Run(ctx, run, api.Read{})
			if err != nil {
				return err
			}
			if e.template == "" && !e.quiet {
				e.json = true
			}
			_, err = e.shaped(got, string(got.ID))
			return err
		}),
	}
}
