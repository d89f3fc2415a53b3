package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// ShardMount is where a task finds its shard file: a place that images leave alone.
const ShardMount = "/run/sheaf"

// Place is what an execution is told of where it runs.
type Place struct {
	NodeID     sheaf.NodeID
	NodeName   string
	Region     string
	Datacenter string
	Attributes map[string]string // of the node
}

// Task is a run's task, ready to be told to a driver.
type Task struct {
	config template
	same   []byte // the config of every execution, where it has no reference that differs
	raw    []byte // the config, references still in it
	env    []template
	fixed  []string // env that is the same for all, in the places of env; "" where it is not
}

// Compile makes the task of a run of n partitions. Two names that become one
// variable, and references that are unknown here, are Invalid errors.
func Compile(run sheaf.RunID, job *sheaf.Job, n int, at Place) (*Task, error) {
	lookup := func(name string) (string, bool) {
		switch name {
		case "partition.count":
			return strconv.Itoa(n), true
		case "job.id":
			return string(run), true
		case "job.name":
			return job.Name, true
		case "node.name":
			return at.NodeName, true
		}
		if attr, ok := strings.CutPrefix(name, "node.attr."); ok {
			return at.Attributes[attr], true
		}
		return "", false
	}
	t := &Task{}
	var err error
	if t.raw, err = marshalConfig(job.Task.Config); err != nil {
		return nil, fmt.Errorf("write config of task %q: %w", job.Task.Name, err)
	}
	if t.config, err = compileJSON(t.raw, lookup); err != nil {
		return nil, fmt.Errorf("config of task %q: %w", job.Task.Name, err)
	}
	if t.config.constant() {
		t.same = t.config.appendTo(nil, nil)
	}
	vars := map[string]string{
		"SHEAF_PARTITION_INDEX": "${partition.index}",
		"SHEAF_EXECUTION_ID":    "${execution.id}",
		"SHEAF_ATTEMPT":         "${attempt}",
	}
	for name, v := range map[string]string{
		"SHEAF_PARTITION_COUNT": strconv.Itoa(n),
		"SHEAF_JOB_ID":          string(run),
		"SHEAF_JOB_NAME":        job.Name,
		"SHEAF_JOB_TYPE":        job.Type,
		"SHEAF_NAMESPACE":       job.Namespace,
		"SHEAF_REGION":          at.Region,
		"SHEAF_NODE_ID":         string(at.NodeID),
		"SHEAF_NODE_NAME":       at.NodeName,
		"SHEAF_DATACENTER":      at.Datacenter,
	} {
		vars[name] = sheaf.EscapeTemplate(v)
	}
	if job.Split != nil {
		vars["SHEAF_SHARD_FILE"] = path.Join(ShardMount, stage.ShardName)
	}
	for _, in := range job.Inputs {
		if err := addPath(vars, "SHEAF_INPUT_", "input", in.Name, in.Mount); err != nil {
			return nil, err
		}
	}
	for _, out := range job.Outputs {
		if err := addPath(vars, "SHEAF_OUTPUT_", "output", out.Name, out.Path); err != nil {
			return nil, err
		}
	}
	for _, x := range job.Task.Secrets {
		if x.File == "" {
			continue
		}
		if err := addPath(vars, secret.FileVariable, "secret", x.Name, x.File); err != nil {
			return nil, err
		}
	}
	for name, v := range job.Task.Env {
		if _, ours := vars[name]; !ours {
			vars[name] = v
		}
	}
	if slices.Contains(job.Compat, "bacalhau") {
		for theirs, ours := range bacalhau {
			if _, there := vars[theirs]; !there {
				vars[theirs] = vars[ours]
			}
		}
	}
	return t, t.setEnv(vars, lookup)
}

// bacalhau are the names under which an image that was made for Bacalhau looks for the same facts.
var bacalhau = map[string]string{
	"BACALHAU_PARTITION_INDEX": "SHEAF_PARTITION_INDEX",
	"BACALHAU_PARTITION_COUNT": "SHEAF_PARTITION_COUNT",
	"BACALHAU_JOB_ID":          "SHEAF_JOB_ID",
	"BACALHAU_JOB_NAME":        "SHEAF_JOB_NAME",
	"BACALHAU_JOB_NAMESPACE":   "SHEAF_NAMESPACE",
	"BACALHAU_JOB_TYPE":        "SHEAF_JOB_TYPE",
	"BACALHAU_EXECUTION_ID":    "SHEAF_EXECUTION_ID",
	"BACALHAU_NODE_ID":         "SHEAF_NODE_ID",
}

func addPath(vars map[string]string, prefix, what, name, p string) error {
	v := prefix + VariableName(name)
	if _, there := vars[v]; there {
		return &sheaf.Error{Class: sheaf.Invalid, Field: what, Msg: fmt.Sprintf("two %ss share the variable %s", what, v), Hint: "rename one of them"}
	}
	vars[v] = sheaf.EscapeTemplate(p)
	return nil
}

// VariableName is the form of a name in a variable: upper case, and '_' for all
// but letters and digits.
func VariableName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

func (t *Task) setEnv(vars map[string]string, lookup func(string) (string, bool)) error {
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "env", Msg: fmt.Sprintf("%q is no name of a variable", name)}
		}
		c, err := compile(name+"="+vars[name], lookup)
		if err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
		t.env = append(t.env, c)
		fixed := ""
		if c.constant() {
			fixed = string(c.appendTo(nil, nil))
		}
		t.fixed = append(t.fixed, fixed)
	}
	return nil
}

// HostPaths changes the variables that name places to where they lie on the
// host, for tasks that see the host's files.
func HostPaths(env []string, mounts []*driverpb.Mount) {
	for i, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if name != "SHEAF_SHARD_FILE" && !strings.HasPrefix(name, "SHEAF_INPUT_") && !strings.HasPrefix(name, "SHEAF_OUTPUT_") && !strings.HasPrefix(name, secret.FileVariable) {
			continue
		}
		for _, m := range mounts {
			if value == m.GetTarget() {
				env[i] = name + "=" + m.GetSource()
			} else if rest, ok := strings.CutPrefix(value, m.GetTarget()+"/"); ok {
				env[i] = name + "=" + path.Join(m.GetSource(), rest)
			}
		}
	}
}

// Raw is the config as JSON with its references still in it.
func (t *Task) Raw() []byte { return t.raw }

// Expand gives the config and the environment of one execution. The config may be shared
// with other executions: it is not to be changed.
func (t *Task) Expand(partition, attempt uint32, id string) (config []byte, env []string) {
	v := values{index: strconv.FormatUint(uint64(partition), 10), execution: id, attempt: strconv.FormatUint(uint64(attempt), 10)}
	if config = t.same; config == nil {
		config = t.config.appendTo(make([]byte, 0, t.config.size+64), &v)
	}
	env = make([]string, len(t.env))
	var buf [256]byte
	for i, f := range t.fixed {
		if f == "" {
			f = string(t.env[i].appendTo(buf[:0], &v))
		}
		env[i] = f
	}
	return config, env
}

func marshalConfig(config map[string]any) ([]byte, error) {
	if len(config) == 0 {
		return []byte("{}"), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(config); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
