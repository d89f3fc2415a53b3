package command

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/sheaf"
)

// quickJob is a job made of flags, without a file.
type quickJob struct {
	image, wasm string
	exec        bool
	name        string
	count       int
	inputs      []string
	glob        string
	basePath    string
	batchSize   int
	outputs     []string
	envs        []string
	print       bool
}

func (q *quickJob) bind(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&q.image, "image", "", "run the command in this container `IMAGE`")
	f.StringVar(&q.wasm, "wasm", "", "run this WebAssembly `MODULE`")
	f.BoolVar(&q.exec, "exec", false, "run the command as a plain program (where agents allow it)")
	f.StringVar(&q.name, "name", "", "the job's `NAME`")
	f.IntVar(&q.count, "count", 0, "`N` partitions, without -glob")
	f.StringArrayVar(&q.inputs, "input", nil, "`SOURCE:MOUNT`, a folder or URL and where the task sees it")
	f.StringVar(&q.glob, "glob", "", "split the inputs by this `GLOB`")
	f.StringVar(&q.basePath, "base-path", "", "`PATH` where the glob is anchored")
	f.IntVar(&q.batchSize, "batch-size", 0, "`N` files a partition")
	f.StringArrayVar(&q.outputs, "output", nil, "`NAME:PATH`, a folder that the task fills")
	f.StringArrayVar(&q.envs, "env", nil, "`NAME=VALUE` for the task")
	f.BoolVar(&q.print, "print", false, "print the jobspec instead of running it")
}

func (q *quickJob) given() bool { return q.image != "" || q.wasm != "" || q.exec }

// job builds the job. Its text is taken literally: $ means nothing here.
func (q *quickJob) job(command []string, count *pflag.Flag) (*sheaf.Job, error) {
	if count.Changed && q.count < 1 {
		return nil, usage("-count %d: give a whole number from 1 to 10,000,000", q.count)
	}
	kinds := 0
	for _, given := range []bool{q.image != "", q.wasm != "", q.exec} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, usage("-image, -wasm and -exec exclude each other: give one")
	}
	j := &sheaf.Job{Name: q.name, Count: q.count}
	literal := make([]any, len(command))
	for i, c := range command {
		literal[i] = sheaf.EscapeTemplate(c)
	}
	if err := q.task(j, literal); err != nil {
		return nil, err
	}
	for i, in := range q.inputs {
		input, err := quickInput(in, i, len(q.inputs))
		if err != nil {
			return nil, err
		}
		j.Inputs = append(j.Inputs, input)
	}
	if q.glob != "" || q.basePath != "" || q.batchSize > 0 {
		j.Split = &sheaf.Split{Glob: q.glob, BasePath: q.basePath, BatchSize: q.batchSize}
		if q.glob == "" {
			return nil, usage("-base-path and -batch-size need -glob")
		}
	}
	for _, out := range q.outputs {
		name, path, ok := strings.Cut(out, ":")
		if !ok {
			return nil, usage("-output %q: write it as NAME:PATH", out)
		}
		j.Outputs = append(j.Outputs, sheaf.Output{Name: name, Path: path})
	}
	for _, v := range q.envs {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, usage("-env %q: write it as NAME=VALUE", v)
		}
		if j.Task.Env == nil {
			j.Task.Env = map[string]string{}
		}
		j.Task.Env[name] = sheaf.EscapeTemplate(value)
	}
	jobspec.Defaults(j)
	if err := jobspec.Check(j, builtin.Schemas()); err != nil {
		return nil, mistakes(err)
	}
	return j, nil
}

func (q *quickJob) task(j *sheaf.Job, command []any) error {
	first := ""
	switch {
	case q.image != "":
		j.Task = sheaf.Task{Driver: "containerd", Config: map[string]any{"image": sheaf.EscapeTemplate(q.image), "args": command}}
		first = q.image[strings.LastIndex(q.image, "/")+1:]
	case q.wasm != "":
		path, err := filepath.Abs(q.wasm)
		if err != nil {
			return usage("-wasm: %v", err)
		}
		j.Task = sheaf.Task{Driver: "wasm", Config: map[string]any{"module": "file://" + sheaf.EscapeTemplate(path), "args": command}}
		first = q.wasm
	default:
		if len(command) == 0 {
			return usage("-exec needs a command behind --")
		}
		j.Task = sheaf.Task{Driver: "exec", Config: map[string]any{"command": command[0], "args": command[1:]}}
		first = command[0].(string)
	}
	name := quickName(filepath.Base(first))
	j.Task.Name = name
	if j.Name == "" {
		j.Name = name
	}
	return nil
}

// quickName makes a name of a program's or image's.
func quickName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.TrimSuffix(s, filepath.Ext(s)))
	s = strings.Trim(s, "-_")
	if s == "" {
		return "job"
	}
	return s[:min(len(s), 40)]
}

func quickInput(text string, i, n int) (sheaf.Input, error) {
	at := strings.LastIndex(text, ":/")
	if at <= 0 || strings.HasPrefix(text[at:], "://") {
		return sheaf.Input{}, usage("-input %q: write it as SOURCE:MOUNT, as in ./data:/in", text)
	}
	source, mount := text[:at], text[at+1:]
	if !strings.Contains(source, "://") {
		abs, err := filepath.Abs(source)
		if err != nil {
			return sheaf.Input{}, usage("-input %q: %v", text, err)
		}
		source = "file://" + abs
	}
	name := "input"
	if n > 1 {
		name += strconv.Itoa(i + 1)
	}
	return sheaf.Input{Name: name, Source: source, Mount: mount}, nil
}
