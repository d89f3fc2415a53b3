package jobspec

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// input reads an input block.
func (b *block) input() sheaf.Input {
	in := sheaf.Input{Name: b.label}
	b.text("source", &in.Source)
	b.treePath("mount", &in.Mount)
	b.end()
	return in
}

func (c *checker) inputs(inputs []sheaf.Input) {
	if len(inputs) > maxBlocks {
		c.bad("inputs", fmt.Sprintf("there are %d inputs", len(inputs)), fmt.Sprint(maxBlocks), "put files that belong together below one source")
	}
	var names []string
	for i, in := range inputs {
		path := fmt.Sprintf("inputs[%d]", i)
		c.name(path+".name", "input", in.Name)
		c.locationURL(path+".source", "source", in.Source)
		c.mountPath(path+".mount", "mount", in.Mount, "/input")
		names = append(names, in.Name)
	}
	c.unique("inputs", "input", names)
	c.variables("inputs", "input", names)
}

// variableName is how a task finds a path by its name: in upper case, others than letters and digits as _.
func variableName(prefix, name string) string {
	b := []byte(prefix + strings.ToUpper(name))
	for i, x := range b {
		if (x < 'A' || x > 'Z') && (x < '0' || x > '9') {
			b[i] = '_'
		}
	}
	return string(b)
}

// variables checks that no two names meet in one variable of the task.
func (c *checker) variables(path, what string, names []string) {
	seen := map[string]string{}
	for i, n := range names {
		v := variableName("SHEAF_"+strings.ToUpper(what)+"_", n)
		if other, ok := seen[v]; ok && other != n {
			c.bad(fmt.Sprintf("%s[%d].name", path, i), fmt.Sprintf("%ss %s and %s meet in the variable %s", what, quoted(other), quoted(n), v), "", "give one of them another name")
		}
		seen[v] = n
	}
}

func (w *writer) input(in sheaf.Input) {
	w.open("input", in.Name)
	w.text("source", in.Source, "")
	w.text("mount", in.Mount, "")
	w.close()
}
