package jobspec

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Source is a jobspec as it was read.
type Source struct {
	Name string // for messages: the file's name, or "-"
	Dir  string // absolute; relative paths are taken from it. "" refuses them
	Data []byte
}

// Options is what a jobspec is evaluated with. The zero value gives no
// variables and checks no driver.
type Options struct {
	Vars     map[string]string // -var NAME=VALUE; they win over files and environment
	VarFiles []Source          // -var-file, later ones win; lines of NAME = VALUE
	Env      []string          // NAME=VALUE as of os.Environ, of which SHEAF_VAR_x alone is looked at

	// Drivers are the config schemas of the known drivers by name. Where it is
	// nil, drivers and their configs are taken as they are.
	Drivers map[string]sheaf.ConfigSchema

	// Exec is the command line of the child process that evaluates HCL. Where
	// it is empty, it is this executable with [ChildArg].
	Exec []string
}

// Parse reads a jobspec, HCL or JSON, fills in the defaults and checks it.
// JSON is what begins with '{'. The error is of type [Diagnostics] where the source is at fault;
// another means that it could not be evaluated at all.
func Parse(ctx context.Context, src Source, opts Options) (*sheaf.Job, Warnings, error) {
	data, ds := normalize(src.Name, src.Data, MaxJob)
	if len(ds) > 0 {
		return nil, nil, ds
	}
	src.Data = data
	if isJSON(data) {
		job, ds := decodeJSON(src, opts.Drivers)
		return job, nil, errorOf(job, ds)
	}
	ds = measure(src.Name, data)
	for i, f := range opts.VarFiles {
		fdata, fds := normalize(f.Name, f.Data, MaxSource)
		if len(fds) == 0 {
			fds = measure(f.Name, fdata)
		}
		opts.VarFiles = append([]Source(nil), opts.VarFiles...)
		opts.VarFiles[i].Data = fdata
		ds = append(ds, fds...)
	}
	opts.Env = variablesOf(opts.Env)
	ds = append(ds, measureVariables(opts)...)
	if len(ds) > 0 {
		return nil, nil, ds
	}
	return runChild(ctx, src, opts)
}

// Eval is [Parse] within this process: for the child itself, and for tests.
// A hostile source can make it take any amount of memory and time.
func Eval(src Source, opts Options) (*sheaf.Job, Warnings, error) {
	data, ds := normalize(src.Name, src.Data, MaxJob)
	if len(ds) > 0 {
		return nil, nil, ds
	}
	src.Data = data
	if isJSON(data) {
		job, ds := decodeJSON(src, opts.Drivers)
		return job, nil, errorOf(job, ds)
	}
	if ds := append(measure(src.Name, data), measureVariables(opts)...); len(ds) > 0 {
		return nil, nil, ds
	}
	job, warnings, ds := evaluate(src, opts)
	return job, warnings, errorOf(job, ds)
}

// ParseJSON reads the JSON form of a job strictly, fills in the defaults and
// checks it. Its error is of type [Diagnostics]; their Field is the JSON path. Relative
// paths are refused, since there is no folder to take them from.
func ParseJSON(data []byte, drivers map[string]sheaf.ConfigSchema) (*sheaf.Job, error) {
	data, ds := normalize("", data, MaxJob)
	if len(ds) > 0 {
		return nil, ds
	}
	job, ds := decodeJSON(Source{Data: data}, drivers)
	return job, errorOf(job, ds)
}

func errorOf(job *sheaf.Job, ds Diagnostics) error {
	if job == nil && len(ds) == 0 {
		return errors.New("jobspec: neither a job nor a mistake")
	}
	return ds.orNil()
}

// variablesOf keeps what sets variables.
func variablesOf(env []string) []string {
	var keep []string
	for _, e := range env {
		if strings.HasPrefix(e, envPrefix) {
			keep = append(keep, e)
		}
	}
	return keep
}

// envPrefix is how an environment variable that sets a variable begins.
const envPrefix = "SHEAF_VAR_"

// childCommand is the command line of the evaluating child.
func (o Options) childCommand() ([]string, error) {
	if len(o.Exec) > 0 {
		return o.Exec, nil
	}
	exe, err := os.Executable()
	return []string{exe, ChildArg}, err
}
