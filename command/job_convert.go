package command

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/jobspec/bacalhau"
	"github.com/sheaf-run/agent/sheaf"
)

// converted is what -json prints.
type converted struct {
	Job   *sheaf.Job      `json:"job"`
	Notes []bacalhau.Note `json:"notes"`
}

func (e *env) jobConvert() *cobra.Command {
	return &cobra.Command{
		Use: "convert FILE", Short: "Make a jobspec of a Bacalhau job file",
		Long: "Reads a Bacalhau job file, YAML or JSON, and writes the same job as HCL to stdout. What has no twin is named in comments at its top; - reads stdin.\n\n" +
			"  agent job convert job.yaml > job.hcl\n\n" + exitHelp,
		Args: args(1, "one file"),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := e.read(args[0])
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(filepath.Base(src.Name), filepath.Ext(src.Name))
			job, notes, err := bacalhau.Convert(src.Data, name)
			if err != nil {
				return fmt.Errorf("%s: %w", src.Name, err)
			}
			if ok, err := e.shaped(converted{job, append([]bacalhau.Note{}, notes...)}, job.Name); ok {
				return err
			}
			var out bytes.Buffer
			for _, n := range notes {
				fmt.Fprintf(&out, "# %s\n", n)
			}
			if len(notes) > 0 {
				out.WriteByte('\n')
			}
			text := jobspec.Write(job)
			out.Write(text)
			if _, err := e.out.Write(out.Bytes()); err != nil {
				return err
			}
			if len(notes) > 0 {
				e.hint("read the notes at the top: what they name runs otherwise here, or not at all")
			}
			var wrong jobspec.Diagnostics
			_, _, err = jobspec.Parse(c.Context(), jobspec.Source{Name: "job.hcl", Data: text}, jobspec.Options{Drivers: builtin.Schemas()})
			if !errors.As(err, &wrong) {
				return err
			}
			for _, d := range wrong {
				e.hint("before it can run: %s", d.Problem.Error())
			}
			return nil
		},
	}
}
