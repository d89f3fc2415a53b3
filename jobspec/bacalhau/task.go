package bacalhau

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// megahertz is what one core is taken for: Bacalhau counts cores.
const megahertz = 1000

func (c *converter) task(v *value) {
	t := &c.job.Task
	name := v.get("Name")
	if t.Name = c.named(name); t.Name == "" {
		t.Name = "main"
	}
	c.meta(v.get("Meta"))
	c.inputs(v.get("InputSources"))
	c.env(v.get("Env"))
	c.engine(v.get("Engine"))
	c.outputs(v.get("ResultPaths"))
	c.publisher(v.get("Publisher"))
	c.resources(v.get("Resources"))
	c.network(v.get("Network"))
	c.timeouts(v.get("Timeouts"))
	c.twinless(v)
}

func (c *converter) engine(v *value) {
	t := &c.job.Task
	p := v.get("Params")
	switch kind := v.get("Type"); strings.ToLower(kind.text("")) {
	case "docker":
		t.Driver = "containerd"
		t.Config = map[string]any{"image": sheaf.EscapeTemplate(image(p.get("Image").text("")))}
		if p.get("Image").text("") == "" {
			c.fail(p.get("Image"), sheaf.Invalid, "name the image", "the docker engine has no Image")
		}
		c.arguments("entrypoint", p.get("Entrypoint"))
		c.arguments("args", p.get("Parameters"))
		for _, s := range p.get("EnvironmentVariables").words() {
			key, value, _ := strings.Cut(s, "=")
			c.variable(p.get("EnvironmentVariables"), key, value)
		}
		if dir := p.get("WorkingDirectory"); dir.text("") != "" {
			c.note(dir, "a task begins in the image's own working directory; begin its command with `cd %s`", dir.text(""))
		}
	case "wasm":
		t.Driver = "wasm"
		t.Config = map[string]any{}
		c.module(p.get("EntryModule"))
		c.arguments("args", p.get("Parameters"))
		variables := p.get("EnvironmentVariables")
		c.env(variables)
		if f := p.get("EntryPoint"); !oneOf(f.text("_start"), "_start", "") {
			c.note(f, "a module is entered at _start alone: build it as a command")
		}
		if m := p.get("ImportModules"); len(m.list()) > 0 {
			c.note(m, "a module imports nothing but WASI: link these into it")
		}
	default:
		c.fail(kind, sheaf.Unsupported, "docker and wasm can be converted", "the engine is %q", kind.text(""))
	}
	c.twinless(p)
	c.twinless(v)
}

// image is a reference in full, since Docker's short names are Docker's own.
func image(s string) string {
	first, rest, found := strings.Cut(s, "/")
	switch {
	case s == "":
		return ""
	case !found:
		return "docker.io/library/" + s
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + first + "/" + rest
	}
	return s
}

func (c *converter) arguments(name string, v *value) {
	var list []any
	for _, s := range v.words() {
		list = append(list, sheaf.EscapeTemplate(s))
	}
	if list != nil {
		c.job.Task.Config[name] = list
	}
}

func (c *converter) env(v *value) {
	m := c.texts(v)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		c.variable(v, key, m[key])
	}
}

func (c *converter) variable(at *value, name, s string) {
	if host, ok := strings.CutPrefix(s, "env:"); ok {
		c.note(at, "%s was to come from the node's variable %s: write a `secret` block instead, and store it with `agent secret put`", name, host)
		return
	}
	if strings.HasPrefix(strings.ToUpper(name), "BACALHAU_") {
		c.note(at, "%s is given to every task: left out", name)
		return
	}
	if c.job.Task.Env == nil {
		c.job.Task.Env = map[string]string{}
	}
	c.job.Task.Env[name] = sheaf.EscapeTemplate(s)
}

// resources translates cores into megahertz and sizes into bytes.
func (c *converter) resources(v *value) {
	r := &c.job.Task.Resources
	if cpu := v.get("CPU"); cpu.text("") != "" {
		if cores, ok := cores(cpu.text("")); ok {
			r.CPU = max(1, int(math.Round(cores*megahertz)))
			c.note(cpu, "cpu is in MHz here: a core was taken for %d", megahertz)
		} else {
			c.fail(cpu, sheaf.Invalid, `write "0.5" or "500m"`, "%q is no number of cores", cpu.text(""))
		}
	}
	for key, to := range map[string]*sheaf.Size{"Memory": &r.Memory, "Disk": &r.Disk} {
		s := v.get(key)
		if s.text("") == "" {
			continue
		}
		size, err := parseSize(s.text(""))
		if err != nil {
			c.fail(s, sheaf.Invalid, `write "512MB" or "1Gi"`, "%q is no size", s.text(""))
			continue
		}
		*to = size
	}
	if gpu := v.get("GPU"); !oneOf(gpu.text("0"), "0", "") {
		r.Devices = []sheaf.Device{{Name: "nvidia/gpu", Count: c.whole(gpu, 0)}}
	}
	c.twinless(v)
}

func cores(s string) (float64, bool) {
	milli, isMilli := strings.CutSuffix(s, "m")
	n, err := strconv.ParseFloat(milli, 64)
	if isMilli {
		n /= 1000
	}
	return n, err == nil && n > 0 && n < 1e6
}

// parseSize reads a size as Bacalhau does: "1Gi" and "1g" are written there too.
func parseSize(s string) (sheaf.Size, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	if t != "" && strings.ContainsAny(t[len(t)-1:], "kmgti") {
		t += "b"
	}
	return sheaf.ParseSize(t)
}

func (c *converter) network(v *value) {
	kind := v.get("Type")
	switch name := kind.text(""); {
	case oneOf(name, "", "None", "Default"):
		c.job.Task.Network = sheaf.NetworkNone
	case oneOf(name, "Host", "Full"):
		c.job.Task.Network = sheaf.NetworkHost
	case oneOf(name, "Bridge"):
		c.job.Task.Network = sheaf.NetworkHost
		c.note(kind, "a network of the task's own is not there yet: it became the host's")
	case oneOf(name, "HTTP"):
		c.job.Task.Network = sheaf.NetworkHost
		c.note(kind, "traffic cannot be limited to domains: it became the host's network, without limits")
	default:
		c.fail(kind, sheaf.Unsupported, "write None, Host or HTTP", "the network is %q", name)
	}
	v.get("Domains")
	c.twinless(v)
}

func (c *converter) timeouts(v *value) {
	c.job.Task.Timeout = c.seconds(v.get("ExecutionTimeout"))
	c.job.Timeout = c.seconds(v.get("TotalTimeout"))
	if q := v.get("QueueTimeout"); c.seconds(q) > 0 {
		c.note(q, "a run waits in the queue until its own timeout: left out")
	}
	c.twinless(v)
}

func (c *converter) seconds(v *value) sheaf.Duration {
	n := c.whole(v, 0)
	if n < 0 || n > int(math.MaxInt64/time.Second) {
		c.fail(v, sheaf.Invalid, "write seconds", "%d is no time", n)
		return 0
	}
	return sheaf.Duration(time.Duration(n) * time.Second)
}

// constraints translates selectors of node labels.
func (c *converter) constraints(v *value) {
	for _, s := range v.list() {
		key, values := s.get("Key").text(""), s.get("Values").words()
		x := sheaf.Constraint{Attribute: "${node.attr." + property(key) + "}", Operator: "="}
		operator := s.get("Operator")
		switch op := strings.ToLower(operator.text("=")); {
		case oneOf(op, "=", "==", "in") && len(values) == 1:
			x.Value = values[0]
		case oneOf(op, "!=", "notin") && len(values) == 1:
			x.Operator, x.Value = "!=", values[0]
		case op == "in" && len(values) > 1:
			x.Operator, x.Value = "regexp", anyOf(values)
		case op == "gt" && len(values) == 1, op == "lt" && len(values) == 1:
			x.Operator, x.Value = map[string]string{"gt": ">", "lt": "<"}[op], values[0]
		case op == "exists":
			x.Operator, x.Value = "regexp", ".*"
		default:
			c.note(s, "%q with %d values has no twin here and was left out", op, len(values))
			continue
		}
		x.Value = sheaf.EscapeTemplate(x.Value)
		c.job.Constraints = append(c.job.Constraints, x)
		c.twinless(s)
	}
}

// property is the attribute of a node that tells what a label of Bacalhau's does.
func property(label string) string {
	switch strings.ToLower(label) {
	case "architecture":
		return "cpu.arch"
	case "operating-system":
		return "kernel.name"
	}
	return label
}

func anyOf(values []string) string {
	var list []string
	for _, s := range values {
		list = append(list, regexp.QuoteMeta(s))
	}
	return fmt.Sprintf("^(%s)$", strings.Join(list, "|"))
}
