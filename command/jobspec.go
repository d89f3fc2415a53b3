package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/sheaf"
)

// variables are the flags that set a jobspec's variables.
type variables struct {
	vars  []string
	files []string
}

func (v *variables) bind(c *cobra.Command) {
	c.Flags().StringArrayVar(&v.vars, "var", nil, "set a variable, `NAME=VALUE`")
	c.Flags().StringArrayVar(&v.files, "var-file", nil, "set variables from a `FILE`")
}

// maxSource is read at most; jobspec has the limit that a person is told.
const maxSource = 8 << 20

// load reads the jobspec in a file, or on stdin for "-".
func (e *env) load(ctx context.Context, path string, v variables) (*sheaf.Job, error) {
	src, err := e.read(path)
	if err != nil {
		return nil, err
	}
	opts := jobspec.Options{Drivers: builtin.Schemas(), Vars: map[string]string{}, Env: os.Environ()}
	for _, set := range v.vars {
		name, value, ok := strings.Cut(set, "=")
		if !ok {
			return nil, usage("-var %q has no value: write it as NAME=VALUE", set)
		}
		opts.Vars[name] = value
	}
	for _, f := range v.files {
		file, err := e.read(f)
		if err != nil {
			return nil, err
		}
		opts.VarFiles = append(opts.VarFiles, file)
	}
	job, warnings, err := jobspec.Parse(ctx, src, opts)
	if unknownDriver(err) {
		opts.Drivers = e.schemas(ctx)
		job, warnings, err = jobspec.Parse(ctx, src, opts)
	}
	for _, w := range warnings {
		fmt.Fprintln(e.err, e.colour(e.err, "warning: "+w.Text(), yellow))
	}
	if err != nil {
		return nil, mistakes(err)
	}
	return job, nil
}

// unknownDriver reports whether a job's driver is not the agent's own.
func unknownDriver(err error) bool {
	var ds jobspec.Diagnostics
	return errors.As(err, &ds) && slices.ContainsFunc(ds, func(d jobspec.Diagnostic) bool { return d.Problem.Field == "task.driver" })
}

// schemas are the drivers that jobs may name: the agent's own, and, where a cluster answers at once,
// those that its nodes have beside them.
func (e *env) schemas(ctx context.Context) map[string]sheaf.ConfigSchema {
	all := maps.Clone(builtin.Schemas())
	client, err := e.client()
	if err != nil {
		return all
	}
	ctx, cancel := context.WithTimeout(ctx, schemaPatience)
	defer cancel()
	nodes, _, err := client.Nodes(ctx, api.Read{Stale: true})
	if err != nil {
		return all // a file is checked without a cluster, too
	}
	for _, n := range nodes {
		for _, d := range n.Drivers {
			if _, known := all[d.Name]; !known {
				all[d.Name] = sheaf.ConfigSchema{Driver: d.Name, Open: true}
			}
		}
	}
	return all
}

// schemaPatience is how long a cluster may take to say which drivers it has.
const schemaPatience = 10 * time.Second

// mistakes shows each mistake of a jobspec with its source line.
func mistakes(err error) error {
	var ds jobspec.Diagnostics
	if !errors.As(err, &ds) {
		return err
	}
	var b strings.Builder
	for i, d := range ds {
		if i > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(strings.TrimRight(d.Text(), "\n"))
	}
	return &outcome{code: ExitUsage, text: b.String()}
}

func (e *env) read(path string) (jobspec.Source, error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(e.in, maxSource))
		if err != nil {
			return jobspec.Source{}, fmt.Errorf("read stdin: %w", err)
		}
		dir, err := os.Getwd()
		return jobspec.Source{Name: "stdin", Dir: dir, Data: b}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return jobspec.Source{}, usage("read jobspec: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSource))
	if err != nil {
		return jobspec.Source{}, usage("read jobspec: %v", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	return jobspec.Source{Name: path, Dir: dir, Data: b}, err
}
