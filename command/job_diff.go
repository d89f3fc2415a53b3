package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// planDiff is what `agent job plan -diff` prints as JSON.
type planDiff struct {
	Job        string         `json:"job"`
	Partitions int            `json:"partitions"`
	Run        int            `json:"run"`        // how many would run
	TakenOver  int            `json:"taken_over"` // how many would not
	Diff       []api.DiffLine `json:"diff"`
}

// planDiff says which partitions of a job would run, and why.
func (e *env) planDiff(ctx context.Context, client *api.Client, job *sheaf.Job) error {
	p := planDiff{Job: job.Name, Diff: []api.DiffLine{}}
	total, err := client.Diff(ctx, *job, func(l api.DiffLine) error {
		p.Diff = append(p.Diff, l)
		if n := l.Last - l.First + 1; l.From != "" {
			p.TakenOver += n
		} else {
			p.Run += n
		}
		return nil
	})
	if err != nil {
		return previewError(err)
	}
	p.Partitions = total.Partitions
	if ok, err := e.shaped(p, job.Name); ok {
		return err
	}
	fmt.Fprintf(e.out, "job %q would run %s of %s, and take over the outputs of %d\n", job.Name, grouped3(p.Run), counted(p.Partitions, "partition"), p.TakenOver)
	for _, l := range p.Diff {
		which := sheaf.Ranges{{First: l.First, Last: l.Last}}.String()
		if l.From != "" {
			as := sheaf.Ranges{{First: l.MadeAs, Last: l.MadeAs + l.Last - l.First}}.String()
			fmt.Fprintf(e.out, "  %s  taken over from run %s, there %s\n", which, l.From, as)
			continue
		}
		fmt.Fprintf(e.out, "  %s  runs: %s\n", which, printable(strings.Join(l.Reasons, "; ")))
	}
	return nil
}
