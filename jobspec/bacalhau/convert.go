// Package bacalhau reads job files of Bacalhau 1.4 to 1.7 and says the same as a
// job of ours. What has no twin is left out, and a note names it.
package bacalhau

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/sheaf"
)

// MaxSize is the longest job file in bytes, as for a jobspec.
const MaxSize = 256 << 10

// Note is something that the converted job says otherwise than the file, or not at all.
type Note struct {
	Line int    `json:"line"` // in the file, from 1
	Path string `json:"path"` // "Tasks[0].Publisher.Params.Encoding"
	Text string `json:"text"` // one line
}

func (n Note) String() string { return fmt.Sprintf("line %d, %s: %s", n.Line, n.Path, n.Text) }

// Convert reads a job file, YAML or JSON, and gives a job with its defaults. fallback names the
// job where the file does not. What cannot be converted at all is an Invalid
// or Unsupported error that names the line.
func Convert(src []byte, fallback string) (*sheaf.Job, []Note, error) {
	if len(src) > MaxSize {
		return nil, nil, &sheaf.Error{Class: sheaf.TooLarge, Msg: "the job file is too long", Limit: fmt.Sprintf("%d bytes", MaxSize)}
	}
	root, err := parse(src)
	if err != nil {
		return nil, nil, err
	}
	c := &converter{job: &sheaf.Job{}}
	c.file(root, fallback)
	if c.err != nil {
		return nil, nil, c.err
	}
	jobspec.Defaults(c.job)
	slices.SortStableFunc(c.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return c.job, c.notes, nil
}

// converter fills a job. The first error stays.
type converter struct {
	job   *sheaf.Job
	notes []Note
	err   error

	spread *value // the partitioning of an input
	filter string // a glob that a wildcard in an input's key became
}

func (c *converter) note(at *value, format string, args ...any) {
	c.notes = append(c.notes, Note{Line: at.line, Path: line(at.path), Text: line(fmt.Sprintf(format, args...))})
}

// line is s on one line: what a file says may hold any character.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (c *converter) fail(at *value, class sheaf.Class, hint, format string, args ...any) {
	if c.err == nil {
		c.err = &sheaf.Error{Class: class, Field: at.path, Msg: fmt.Sprintf("line %d: ", at.line) + fmt.Sprintf(format, args...), Hint: hint}
	}
}

// twinless notes every key of a mapping that nothing has asked for.
func (c *converter) twinless(v *value) {
	for _, key := range v.unused() {
		c.note(key, "has no twin here and was left out")
	}
}

func (c *converter) file(root *value, fallback string) {
	if wrapped := root.get("Job"); wrapped.there() { // as the API has it
		c.twinless(root)
		root = wrapped
	}
	if !root.mapping() {
		c.fail(root, sheaf.Invalid, "write Name, Type, Count and Tasks at the top", "a job is a mapping")
		return
	}
	if root.get("APIVersion").there() || root.get("Spec").there() {
		c.fail(root, sheaf.Unsupported, "let `bacalhau` 1.4 or later write it anew", "this is a job file of the old format, with APIVersion and Spec")
		return
	}
	c.name(root.get("Name"), root, fallback)
	c.kind(root.get("Type"))
	c.job.Namespace = c.named(root.get("Namespace"))
	c.priority(root.get("Priority"))
	c.meta(root.get("Meta"))
	c.meta(root.get("Labels"))
	c.constraints(root.get("Constraints"))
	count := c.whole(root.get("Count"), 1)
	for _, unasked := range []string{"ID", "State", "Version", "Revision", "CreateTime", "ModifyTime"} {
		root.get(unasked) // what the orchestrator wrote
	}
	tasks := root.get("Tasks").list()
	if len(tasks) != 1 {
		c.fail(root.get("Tasks"), sheaf.Invalid, "make a job of each", "there are %d tasks, and a job has one", len(tasks))
		return
	}
	c.twinless(root)
	c.task(tasks[0])
	c.split(root.get("Count"), count)
	c.job.Compat = []string{"bacalhau"}
}

// meta adds what people say about a job.
func (c *converter) meta(v *value) {
	for key, s := range c.texts(v) {
		if c.job.Meta == nil {
			c.job.Meta = map[string]string{}
		}
		c.job.Meta[key] = s
	}
}

// kind translates the type of a job.
func (c *converter) kind(v *value) {
	switch kind := strings.ToLower(v.text("batch")); kind {
	case sheaf.JobBatch, sheaf.JobOps:
		c.job.Type = kind
	default:
		c.fail(v, sheaf.Unsupported, "batch and ops jobs can be converted", "a job of type %q runs without end, and jobs here end", kind)
	}
}

var improper = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// proper is the nearest name of ours.
func proper(s string) string {
	s = strings.TrimLeft(improper.ReplaceAllString(s, "-"), "._-")
	return s[:min(len(s), 64)]
}

func (c *converter) name(v, root *value, fallback string) {
	name := v.text("")
	if c.job.Name = proper(name); c.job.Name == "" {
		c.job.Name = proper(fallback)
	}
	switch {
	case name == "":
		c.note(root, "has no Name: it was called %q", c.job.Name)
	case c.job.Name != name:
		c.note(v, "%q is no name here: it became %q", name, c.job.Name)
	}
}

// named is the text of v as a name.
func (c *converter) named(v *value) string {
	name := v.text("")
	p := proper(name)
	if p != name {
		c.note(v, "%q is no name here: it became %q", name, p)
	}
	return p
}

func (c *converter) priority(v *value) {
	if !v.there() {
		return
	}
	p := c.whole(v, 0)
	if c.job.Priority = min(max(p+50, 1), 100); p != 0 {
		c.note(v, "priorities are 1 to 100 here, 50 the usual one: %d became %d", p, c.job.Priority)
	}
}

// split says how the partitions come about.
func (c *converter) split(at *value, count int) {
	j := c.job
	if j.Type == sheaf.JobOps {
		if count > 1 {
			c.note(at, "an ops job runs once on every node that matches: left out")
		}
		return
	}
	for i := range j.Outputs {
		if count > 1 || c.spread != nil {
			j.Outputs[i].Merge = sheaf.MergeNone // a folder for each, as its results are there
		}
	}
	if c.spread == nil && c.filter == "" {
		j.Count = count
		return
	}
	if len(j.Inputs) > 1 {
		c.fail(at, sheaf.Unsupported, "leave the Partition or the wildcard out, and write the split by hand afterwards", "with several inputs only by hand: a partition is of one tree")
		return
	}
	j.Split = &sheaf.Split{Glob: "/**", Partitions: count}
	if c.filter != "" {
		j.Split.Glob = c.filter
	}
	if c.spread == nil {
		if count > 1 {
			c.note(at, "every execution got all objects there; here each gets its share of them")
		}
		return
	}
	c.group(c.spread)
}
