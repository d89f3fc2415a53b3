package jobspec

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// output reads an output block.
func (b *block) output() sheaf.Output {
	out := sheaf.Output{Name: b.label}
	b.treePath("path", &out.Path)
	b.text("merge", &out.Merge)
	b.text("on_conflict", &out.OnConflict)
	b.end()
	return out
}

func (c *checker) outputs(path string, outputs []sheaf.Output) {
	if len(outputs) > maxBlocks {
		c.bad(path, fmt.Sprintf("there are %d outputs", len(outputs)), fmt.Sprint(maxBlocks), "put files that belong together below one output")
	}
	var names []string
	for i, out := range outputs {
		at := fmt.Sprintf("%s[%d]", path, i)
		c.name(at+".name", "output", out.Name)
		c.mountPath(at+".path", "path", out.Path, "/output")
		c.oneOf(at+".merge", "merge", out.Merge, sheaf.MergeUnion, sheaf.MergeConcat, sheaf.MergeNone)
		c.oneOf(at+".on_conflict", "on_conflict", out.OnConflict, sheaf.ConflictError, sheaf.ConflictRename, sheaf.ConflictLast)
		if out.OnConflict != sheaf.ConflictError && out.Merge != sheaf.MergeUnion && out.Merge != "" {
			c.bad(at+".on_conflict", fmt.Sprintf("on_conflict means nothing with merge %s, which has no conflicts", quoted(out.Merge)), "", `leave it out, or write merge = "union"`)
		}
		names = append(names, out.Name)
	}
	c.unique(path, "output", names)
	c.variables(path, "output", names)
}

func (w *writer) output(out sheaf.Output) {
	w.open("output", out.Name)
	w.text("path", out.Path, "")
	w.text("merge", out.Merge, sheaf.MergeUnion)
	w.text("on_conflict", out.OnConflict, sheaf.ConflictError)
	w.close()
}
