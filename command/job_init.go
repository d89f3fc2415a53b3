package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/jobspec"
)

func (e *env) jobInit() *cobra.Command {
	var template string
	c := &cobra.Command{
		Use: "init [FILE]", Short: "Write a commented example", Long: "Writes a commented example of a jobspec to FILE (job.hcl), which must not exist; - is stdout.\n\n" + exitHelp,
		Args: atMostOne("one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			path := "job.hcl"
			if len(args) == 1 {
				path = args[0]
			}
			text, err := jobspec.Template(template)
			if err != nil {
				return err
			}
			if path == "-" {
				_, err := e.out.Write(text)
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, os.ErrExist) {
				return usage("%s exists already: name another file", path)
			}
			if err != nil {
				return usage("write example: %v", err)
			}
			if _, err := f.Write(text); err != nil {
				f.Close()
				return fmt.Errorf("write example: %w", err)
			}
			if err := f.Close(); err != nil {
				return fmt.Errorf("write example: %w", err)
			}
			fmt.Fprintln(e.out, path)
			e.hint("see what it would run: agent job plan %s", path)
			return nil
		},
	}
	c.Flags().StringVar(&template, "template", "glob", strings.Join(jobspec.TemplateNames(), ", "))
	return c
}
