package command

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/jobspec"
)

func (e *env) jobValidate() *cobra.Command {
	var vars variables
	c := &cobra.Command{
		Use: "validate FILE", Short: "Check a jobspec, offline", Long: "Checks a jobspec without an agent; - reads stdin.\n\n" + exitHelp,
		Args: args(1, "one file"),
		RunE: func(c *cobra.Command, args []string) error {
			job, err := e.load(c.Context(), args[0], vars)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(job, job.Name); ok {
				return err
			}
			fmt.Fprintf(e.out, "%s: job %q is valid\n", args[0], job.Name)
			return nil
		},
	}
	vars.bind(c)
	return c
}

func (e *env) fmtCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "fmt FILE...", Short: "Format jobspecs", Long: "Formats jobspecs in place; - reads stdin and writes stdout. Prints the files it changed.\n\n" + exitHelp,
		Args: func(c *cobra.Command, given []string) error {
			if len(given) == 0 {
				return usage("`agent fmt` takes files\nusage: %s", c.UseLine())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			changed := 0
			for _, path := range args {
				src, err := e.read(path)
				if err != nil {
					return err
				}
				text, err := jobspec.Format(src.Name, src.Data)
				if err != nil {
					return mistakes(err)
				}
				if path == "-" && !check {
					_, err := e.out.Write(text)
					return err
				}
				if bytes.Equal(text, src.Data) {
					continue
				}
				changed++
				fmt.Fprintln(e.out, path)
				if check {
					continue
				}
				if err := os.WriteFile(path, text, 0o644); err != nil {
					return fmt.Errorf("write formatted file: %w", err)
				}
			}
			if check && changed > 0 {
				return usage("%d files are not formatted: run `agent fmt` on them", changed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit 2 if a file is not formatted")
	return c
}
