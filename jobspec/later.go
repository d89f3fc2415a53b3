package jobspec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// What is around a single run: where its result goes, what follows it, and
// what starts it.

// reduce reads a reduce block: a task, and outputs of its own.
func (b *block) reduce(r *sheaf.Reduce) {
	r.Name = b.label
	b.one("task", 1, func(in *block) { in.task(&r.Task) })
	b.each("output", "outputs", 1, func(in *block) { r.Outputs = append(r.Outputs, in.output()) })
	b.end()
}

// multiregion reads the multiregion block.
func (b *block) multiregion(m *sheaf.Multiregion) {
	b.each("region", "regions", 1, func(in *block) {
		r := sheaf.RegionCount{Name: in.label}
		in.whole("count", &r.Count)
		in.end()
		m.Regions = append(m.Regions, r)
	})
	b.text("unreachable", &m.Unreachable)
	b.end()
}

// periodic reads the periodic block.
func (b *block) periodic(p *sheaf.Periodic) {
	b.text("cron", &p.Cron)
	b.text("time_zone", &p.TimeZone)
	b.flag("prohibit_overlap", &p.ProhibitOverlap)
	b.end()
}

// trigger reads the trigger block.
func (b *block) trigger(t *sheaf.Trigger) {
	b.texts("on_change", &t.OnChange)
	b.duration("poll", &t.Poll)
	b.end()
}

// reduce checks what a reduce and its job have in common: it reads the job's outputs where they were
// written, and its own stand beside them in the result.
func (c *checker) reduce(j *sheaf.Job) {
	if len(j.Outputs) == 0 {
		c.bad("reduce", "there is nothing to reduce: the job has no outputs", "", "add an output to the job")
	}
	for i, o := range j.Reduce.Outputs {
		at := fmt.Sprintf("reduce.outputs[%d]", i)
		for _, x := range j.Outputs {
			if x.Name == o.Name && o.Name != "" {
				c.bad(at+".name", "the job has an output "+quoted(o.Name)+" too, and both stand in the result", "", "give it another name")
			}
			if within(x.Path, o.Path) || within(o.Path, x.Path) {
				c.bad(at+".path", quoted(o.Path)+" meets "+quoted(x.Path)+", where the reduce reads the job's output "+quoted(x.Name), "", "choose another path")
			}
		}
	}
}

func (c *checker) later(j *sheaf.Job) {
	if j.Publish != nil {
		c.publish(j)
	}
	if r := j.Reduce; r != nil {
		c.name("reduce.name", "reduce", r.Name)
		c.task("reduce.task", &r.Task)
		c.outputs("reduce.outputs", r.Outputs)
		c.reduce(j)
	}
	if m := j.Multiregion; m != nil {
		c.multiregion(m)
	}
	if p := j.Periodic; p != nil {
		c.periodic(p)
	}
	if t := j.Trigger; t != nil {
		c.trigger(t, j.Inputs)
	}
}

// publish checks where the result goes. A job without outputs has none.
func (c *checker) publish(j *sheaf.Job) {
	to := j.Publish.To
	c.locationURL("publish.to", "to", to)
	switch kind := scheme(to); {
	case kind != "" && kind != "s3" && kind != "file" && kind != "car":
		c.bad("publish.to", fmt.Sprintf("results cannot be published to %s://", kind), "s3://, file:// or car://", `write to = "s3://BUCKET/PREFIX"`)
	case kind == "car" && strings.Contains(to, "#"):
		c.bad("publish.to", fmt.Sprintf("to %s holds a #", quoted(to)), "a directory", "write # as %23")
	case kind == "car" && strings.HasSuffix(strings.TrimSuffix(to, "/"), ".car"):
		c.bad("publish.to", fmt.Sprintf("to is %s, and each run has a CAR file of its own", quoted(to)), "a directory", "write the directory in which they shall be")
	case len(j.Outputs) == 0:
		c.bad("publish", "there is no output to publish", "", "add an output block, or leave publish out")
	}
}

func (c *checker) multiregion(m *sheaf.Multiregion) {
	if len(m.Regions) == 0 {
		c.bad("multiregion.regions", "multiregion names no region", "1 or more", `write region "NAME" { }`)
	}
	var names []string
	for i, r := range m.Regions {
		at := fmt.Sprintf("multiregion.regions[%d]", i)
		c.name(at+".name", "region", r.Name)
		if r.Count != 0 {
			c.whole(at+".count", "count", r.Count)
		}
		names = append(names, r.Name)
	}
	c.unique("multiregion.regions", "region", names)
	c.oneOf("multiregion.unreachable", "unreachable", m.Unreachable, "fail", "wait", "skip")
}

var (
	cronShape = regexp.MustCompile(`(?i)^(@(yearly|annually|monthly|weekly|daily|hourly)|[0-9*/,?#a-z-]+( +[0-9*/,?#a-z-]+){4,6})$`)
	zoneShape = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)
)

func (c *checker) periodic(p *sheaf.Periodic) {
	if !cronShape.MatchString(p.Cron) {
		c.bad("periodic.cron", fmt.Sprintf("cron is %s", quoted(p.Cron)), "", `write minute, hour, day, month and weekday, as in "0 4 * * *", or "@daily"`)
	}
	if p.TimeZone != "" && !zoneShape.MatchString(p.TimeZone) {
		c.bad("periodic.time_zone", fmt.Sprintf("time_zone is %s", quoted(p.TimeZone)), "", `write a zone's name, as in "Europe/Berlin" or "UTC"`)
	}
}

func (c *checker) trigger(t *sheaf.Trigger, inputs []sheaf.Input) {
	var names []string
	for _, in := range inputs {
		names = append(names, in.Name)
	}
	if len(t.OnChange) == 0 {
		c.bad("trigger.on_change", "on_change names no input", "1 or more", `write on_change = ["INPUT"]`)
	}
	for i, n := range t.OnChange {
		if !slices.Contains(names, n) {
			c.bad(fmt.Sprintf("trigger.on_change[%d]", i), fmt.Sprintf("there is no input %s", quoted(n)), "", didYouMean(n, names))
		}
	}
	c.duration("trigger.poll", "poll", t.Poll, time.Second, MaxDelay)
}

func (w *writer) later(j *sheaf.Job) {
	if j.Publish != nil {
		w.open("publish", "")
		w.text("to", j.Publish.To, "")
		w.close()
	}
	if r := j.Reduce; r != nil {
		w.open("reduce", r.Name)
		w.task(&r.Task)
		for _, out := range r.Outputs {
			w.output(out)
		}
		w.close()
	}
	if m := j.Multiregion; m != nil {
		w.open("multiregion", "")
		for _, r := range m.Regions {
			w.open("region", r.Name)
			w.whole("count", r.Count, 0)
			w.close()
		}
		w.text("unreachable", m.Unreachable, defaultUnreachable)
		w.close()
	}
	if p := j.Periodic; p != nil {
		w.open("periodic", "")
		w.text("cron", p.Cron, "")
		w.text("time_zone", p.TimeZone, "")
		w.flag("prohibit_overlap", p.ProhibitOverlap, false)
		w.close()
	}
	if t := j.Trigger; t != nil {
		w.open("trigger", "")
		w.texts("on_change", t.OnChange)
		w.duration("poll", t.Poll, defaultPoll)
		w.close()
	}
}
