package jobspec

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// split reads the split block.
func (b *block) split(s *sheaf.Split) {
	b.treePath("base_path", &s.BasePath)
	b.text("glob", &s.Glob)
	b.text("match", &s.Match)
	b.whole("batch_size", &s.BatchSize)
	b.size("max_bytes", 1, &s.MaxBytes)
	b.whole("partitions", &s.Partitions)
	b.flag("stable", &s.Stable)
	b.text("group_by", &s.GroupBy)
	b.text("group_rest", &s.GroupRest)
	b.flag("allow_empty", &s.AllowEmpty)
	combined := b.combinations(b.field("combine"))
	if len(combined) > 0 {
		s.Combine = &combined[0]
	}
	if len(combined) > 1 {
		b.report(b.header, &sheaf.Error{Class: sheaf.Invalid, Field: b.field("combine"), Msg: "split holds more than one of cross, union, join and group", Limit: "1", Hint: "put one into the other"})
	}
	b.end()
}

func (c *checker) split(j *sheaf.Job) {
	s := j.Split
	if len(j.Inputs) == 0 {
		c.bad("split", "split has nothing to split: the job has no input", "", `add an input "NAME" { source = "…", mount = "…" } with each argument on a line of its own, or write count instead of split`)
	}
	if s.Combine != nil {
		for _, x := range []struct{ name, value string }{{"glob", s.Glob}, {"base_path", s.BasePath}, {"match", s.Match}} {
			if x.value != "" {
				c.bad("split."+x.name, fmt.Sprintf("%s and %s exclude each other", x.name, s.Combine.Kind), "", "give each over block its own glob and match")
			}
		}
		c.combine("split.combine", s.Combine, j.Inputs, "", false)
		if s.GroupBy != "" {
			c.bad("split.group_by", fmt.Sprintf("group_by sees one path, and %s makes tuples of several", s.Combine.Kind), "", "write key in a join or group")
		}
	} else {
		c.glob("split.glob", s.Glob)
	}
	if s.BasePath != "" {
		c.basePath(s.BasePath, j.Inputs)
	}
	if s.Match != "" {
		c.oneOf("split.match", "match", s.Match, sheaf.MatchAny, sheaf.MatchFiles, sheaf.MatchDirs)
	}
	if s.BatchSize != 0 {
		c.whole("split.batch_size", "batch_size", s.BatchSize)
	}
	if s.MaxBytes != 0 {
		c.size("split.max_bytes", "max_bytes", s.MaxBytes)
	}
	if s.Partitions != 0 {
		c.whole("split.partitions", "partitions", s.Partitions)
		if s.BatchSize != 0 {
			c.bad("split.partitions", "partitions and batch_size exclude each other", "", "leave one of them out")
		}
		if s.MaxBytes != 0 {
			c.bad("split.partitions", "partitions and max_bytes exclude each other", "", "leave one of them out")
		}
	}
	if s.Stable && s.Partitions != 0 {
		c.bad("split.stable", "stable and partitions exclude each other: one file more would move every cut", "", "give batch_size, the average, instead of partitions")
	} else if s.Stable && s.BatchSize == 0 {
		c.bad("split.stable", "stable batches have no average size", "", "set batch_size")
	}
	c.grouping(s)
}

func (c *checker) grouping(s *sheaf.Split) {
	if s.GroupBy != "" {
		if re := c.pattern("split.group_by", "group_by", s.GroupBy); re != nil && re.NumSubexp() == 0 {
			c.bad("split.group_by", fmt.Sprintf("group_by %s captures nothing, so that there is no key", quoted(s.GroupBy)), "", "put ( ) around the part of the path that is the key")
		}
	}
	if s.GroupRest != "" {
		c.oneOf("split.group_rest", "group_rest", s.GroupRest, sheaf.GroupRestError, sheaf.GroupRestKeep, sheaf.GroupRestDrop)
		if s.GroupBy == "" && s.GroupRest != sheaf.GroupRestError {
			c.bad("split.group_rest", "group_rest means nothing without group_by", "", "add group_by, or leave group_rest out")
		}
	}
}

// maxPattern bounds regular expressions; compiled they are many times larger.
const maxPattern = 1024

// pattern compiles an RE2 expression; nil where it is wrong.
func (c *checker) pattern(path, name, s string) *regexp.Regexp {
	if len(s) > maxPattern {
		c.bad(path, fmt.Sprintf("%s is %d bytes long", name, len(s)), fmt.Sprintf("%d bytes", maxPattern), "shorten it")
		return nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		c.bad(path, fmt.Sprintf("%s %s is no regular expression: %s", name, quoted(s), err), "", "write it in RE2's syntax, without look-around and back references")
		return nil
	}
	return re
}

// basePath checks that a base can have files below it.
func (c *checker) basePath(base string, inputs []sheaf.Input) {
	if base != "/" && !c.mountOrRoot(base) {
		return
	}
	for _, in := range inputs {
		if in.Mount == "" || within(base, in.Mount) || within(in.Mount, base) {
			return
		}
	}
	if len(inputs) > 0 {
		var mounts []string
		for _, in := range inputs {
			mounts = append(mounts, in.Mount)
		}
		slices.Sort(mounts)
		c.bad("split.base_path", fmt.Sprintf("base_path %s is outside every input", quoted(base)), "", "mounts are "+enumerate(mounts))
	}
}

// mountOrRoot checks the form of a path that nothing is mounted at.
func (c *checker) mountOrRoot(p string) bool {
	probe := &checker{}
	if probe.mountPath("split.base_path", "base_path", "/x"+p, "/input") && p[0] == '/' {
		return true
	}
	return c.mountPath("split.base_path", "base_path", p, "/input")
}

func (w *writer) split(s *sheaf.Split) {
	w.open("split", "")
	w.text("base_path", s.BasePath, "")
	w.text("glob", s.Glob, "")
	w.text("match", s.Match, "")
	w.whole("batch_size", s.BatchSize, defaultBatch(s))
	w.size("max_bytes", s.MaxBytes, 0)
	w.whole("partitions", s.Partitions, 0)
	w.flag("stable", s.Stable, false)
	w.text("group_by", s.GroupBy, "")
	w.text("group_rest", s.GroupRest, defaultGroupRest(s))
	w.flag("allow_empty", s.AllowEmpty, false)
	if s.Combine != nil {
		w.combine(s.Combine)
	}
	w.close()
}
