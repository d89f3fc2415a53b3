package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

type downloadOptions struct {
	partial    bool // of a run without a merged result
	partitions sheaf.Ranges
}

func (e *env) jobResults() *cobra.Command {
	var dir, partitions, provenance string
	var most int
	var o downloadOptions
	c := &cobra.Command{
		Use: "results JOB", Short: "Download the result of a run",
		Long: "Writes the result of a run to a folder: outputs, stdout and stderr of all partitions, and a manifest.\n" +
			"Files are verified against their digests; what is there already, be it half a file, is not fetched again. Without -o it lists the files.\n" +
			"With -provenance it says of a file, or of all below a directory, which partitions made it, where, of which inputs, and by which task.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			if partitions != "" {
				of, err := sheaf.ParseRanges(partitions)
				if err != nil {
					return err
				}
				o.partitions, o.partial = of, true
			}
			if provenance != "" {
				if dir != "" || o.partial {
					return usage("-provenance is about the merged result: leave out -o, -partition and -partial")
				}
				return e.provenance(ctx, client, run, provenance, most)
			}
			if dir == "" {
				return e.listResult(ctx, client, run)
			}
			return e.download(ctx, client, run, dir, o)
		}),
	}
	c.Flags().StringVar(&dir, "o", "", "the `DIR` to write")
	c.Flags().StringVar(&partitions, "partition", "", "only of these, unmerged, as in 3,7-9")
	c.Flags().StringVar(&provenance, "provenance", "", "say where a file comes from: the `PATH` begins with the output's name, as in the list, or is stdout, stderr or one below partitions/")
	c.Flags().IntVar(&most, "n", 0, "with -provenance, name at most so many partitions (100 unless told)")
	c.Flags().BoolVar(&o.partial, "partial", false, "what is committed so far, unmerged: a folder a partition")
	return c
}

// listResult prints the files of the merged result.
func (e *env) listResult(ctx context.Context, client *api.Client, run string) error {
	files := []sheaf.File{}
	rows := [][]string{{"OUTPUT", "SIZE", "PARTS", "PATH"}}
	var ids []string
	err := client.Result(ctx, run, func(f sheaf.File) error {
		files = append(files, f)
		ids = append(ids, f.Output+"/"+f.Path)
		rows = append(rows, []string{f.Output, fmt.Sprint(f.Size), fmt.Sprint(len(f.Parts)), f.Path})
		return nil
	})
	if err != nil {
		return err
	}
	if ok, err := e.shaped(files, ids...); ok {
		return err
	}
	if len(files) == 0 {
		e.hint("no output files; what it printed: agent job logs %s", run)
		return nil
	}
	return e.table(rows)
}
