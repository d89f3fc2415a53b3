package command

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) operatorSnapshot() *cobra.Command {
	return grouped("snapshot", "Backups of the servers' state", e.snapshotSave(), e.snapshotInspect(), e.snapshotRestore())
}

func (e *env) snapshotSave() *cobra.Command {
	return &cobra.Command{
		Use: "save FILE", Short: "Save the state to a file", Args: args(1, "one file"),
		Long: "Saves all that the servers have agreed on: jobs, runs, nodes, secrets (sealed), tokens, settings. Outputs lie on the clients and are not in it.\n" +
			"The file is checked by the digest at its end before it gets its name.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) (err error) {
			client, err := e.client()
			if err != nil {
				return err
			}
			half := given[0] + ".part"
			f, err := os.OpenFile(half, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				return &sheaf.Error{Class: sheaf.Invalid, Field: "FILE", Msg: "write " + half, Err: err}
			}
			defer func() {
				if err != nil {
					_ = os.Remove(half)
				}
			}()
			err = client.SaveSnapshot(c.Context(), f)
			if err == nil {
				err = f.Sync()
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			got, err := inspectSnapshot(half)
			if err != nil {
				return err
			}
			if err := os.Rename(half, given[0]); err != nil {
				return fmt.Errorf("name the snapshot: %w", err)
			}
			return e.printSnapshot(got)
		},
	}
}

func (e *env) snapshotInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "What a saved state holds", Args: args(1, "one file"),
		Long: "Checks a saved snapshot as a whole and prints what is in it. It asks no agent.\n\n" + exitHelp,
		RunE: func(_ *cobra.Command, given []string) error {
			got, err := inspectSnapshot(given[0])
			if err != nil {
				return err
			}
			return e.printSnapshot(got)
		},
	}
}

func (e *env) printSnapshot(s api.SnapshotInfo) error {
	if ok, err := e.shaped(s, fmt.Sprint(s.Index)); ok {
		return err
	}
	fmt.Fprintf(e.out, "index    %d\nterm     %d\ntime     %s\ncluster  %s\nregion   %s\nruns     %d\nnodes    %d\nsize     %s\n\n",
		s.Index, s.Term, s.Time.Format(time.RFC3339), s.Cluster, s.Region, s.Runs, s.Nodes, humanize.IBytes(uint64(s.Bytes)))
	rows := [][]string{{"TABLE", "ROWS", "SIZE"}}
	for _, x := range s.Tables {
		rows = append(rows, []string{x.Name, fmt.Sprint(x.Rows), humanize.IBytes(uint64(x.Bytes))})
	}
	return e.table(rows)
}

func (e *env) snapshotRestore() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Replace the state by a saved one", Args: args(1, "one file"),
		Long: "Replaces the state of all servers by a saved one. What came after it is gone; clients end what they run and it knows nothing of.\n" +
			"The file is verified first: a damaged one changes nothing.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			if _, err := inspectSnapshot(given[0]); err != nil {
				return err
			}
			f, err := os.Open(given[0])
			if err != nil {
				return fmt.Errorf("open the snapshot: %w", err)
			}
			defer f.Close()
			client, err := e.client()
			if err != nil {
				return err
			}
			got, err := client.RestoreSnapshot(c.Context(), f, force)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(got, fmt.Sprint(got.Index)); ok {
				return err
			}
			fmt.Fprintf(e.out, "restored the state of index %d: %d runs, %d nodes\n", got.Index, got.Runs, got.Nodes)
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "even a snapshot of another cluster, whose state becomes this one's")
	return c
}
