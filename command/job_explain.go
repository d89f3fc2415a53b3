package command

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (e *env) jobExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain JOB[/PARTITION]", Short: "Why a run or partition is where it is",
		Long: "Says why a run waits, or why a partition ran where it did, ran again, or has not run.\n\n" + exitHelp,
		Args: args(1, "one run or partition"),
		RunE: func(c *cobra.Command, given []string) error {
			run, n, err := partitionRef(given[0], false)
			if err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			got, err := client.Explain(c.Context(), run, n)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(got); ok {
				return err
			}
			fmt.Fprintf(e.out, "%s is %s\n", got.Subject, got.State)
			for _, r := range got.Reasons {
				where := ""
				if r.Node != "" {
					where = fmt.Sprintf("node %s (%.8s): ", printable(r.Name), r.Node)
				}
				fmt.Fprintf(e.out, "  %s%s\n", where, printable(r.What))
			}
			return nil
		},
	}
}

// partitionRef reads JOB/17; the partition is -1 where it is left out.
func partitionRef(text string, needed bool) (run string, n int, err error) {
	name, number, both := strings.Cut(text, "/")
	if !both && needed {
		return "", 0, usage("%q names no partition: write it as JOB/17", text)
	}
	n = -1
	if both {
		if n, err = strconv.Atoi(number); err != nil || n < 0 {
			return "", 0, usage("%q is no partition's number: write it as %s/17", number, name)
		}
	}
	run, err = runRef(name)
	return run, n, err
}
