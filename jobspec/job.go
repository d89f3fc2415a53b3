package jobspec

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sheaf-run/agent/sheaf"
)

// document reads a whole jobspec: variables, locals and the one job.
func (d *decoder) document(body *hclsyntax.Body, opts Options) *sheaf.Job {
	file := &block{decoder: d, kind: "a jobspec", body: body, args: map[string]bool{}, blocks: map[string]bool{"variable": true, "locals": true, "job": true}}
	d.ctx = d.scope(body, opts)
	job := &sheaf.Job{}
	var first *hclsyntax.Block
	for _, x := range body.Blocks {
		switch {
		case x.Type != "job":
		case first != nil:
			d.report(x.DefRange(), &sheaf.Error{Class: sheaf.Invalid, Field: "job", Msg: "there is a second job block", Limit: "1", Hint: "write each job into a file of its own"})
		default:
			first = x
			b := d.block(x, "")
			if b.labelled(x, 1) {
				b.job(job)
			}
		}
	}
	file.end()
	if first == nil && len(d.broken) == 0 {
		d.diags = append(d.diags, Diagnostic{File: d.file, Problem: &sheaf.Error{Class: sheaf.Invalid, Field: "job", Msg: "there is no job block", Hint: `write job "NAME" { … }; "agent job init" writes an example`}})
	}
	if first == nil {
		d.spoiled["name"], d.spoiled["task"] = true, true
	}
	return job
}

// job reads the job block.
func (b *block) job(j *sheaf.Job) {
	j.Name = b.label
	b.text("type", &j.Type)
	b.text("region", &j.Region)
	b.text("namespace", &j.Namespace)
	b.texts("datacenters", &j.Datacenters)
	b.whole("priority", &j.Priority)
	b.whole("count", &j.Count)
	b.duration("timeout", &j.Timeout)
	b.flag("reuse", &j.Reuse)
	b.text("isolation", &j.Isolation)
	b.flag("backups", &j.Backups)
	b.textMap("meta", &j.Meta)
	b.texts("compat", &j.Compat)
	b.texts("after", &j.After)
	b.each("input", "inputs", 1, func(in *block) {
		j.Inputs = append(j.Inputs, in.input())
	})
	b.one("split", 0, func(in *block) {
		j.Split = &sheaf.Split{}
		in.split(j.Split)
	})
	b.one("parallelism", 0, func(in *block) {
		j.Parallelism = &sheaf.Parallelism{}
		in.parallelism(j.Parallelism)
	})
	b.one("task", 1, func(in *block) { in.task(&j.Task) })
	b.each("output", "outputs", 1, func(in *block) {
		j.Outputs = append(j.Outputs, in.output())
	})
	b.one("retry", 0, func(in *block) { in.retry(&j.Retry) })
	b.one("failure", 0, func(in *block) { in.failure(&j.Failure) })
	b.each("constraint", "constraints", 0, func(in *block) {
		j.Constraints = append(j.Constraints, in.constraint())
	})
	b.each("affinity", "affinities", 0, func(in *block) {
		j.Affinities = append(j.Affinities, in.affinity())
	})
	b.one("publish", 0, func(in *block) {
		j.Publish = &sheaf.Publish{}
		in.text("to", &j.Publish.To)
		in.end()
	})
	b.one("reduce", 1, func(in *block) {
		j.Reduce = &sheaf.Reduce{}
		in.reduce(j.Reduce)
	})
	b.one("multiregion", 0, func(in *block) {
		j.Multiregion = &sheaf.Multiregion{}
		in.multiregion(j.Multiregion)
	})
	b.one("periodic", 0, func(in *block) {
		j.Periodic = &sheaf.Periodic{}
		in.periodic(j.Periodic)
	})
	b.one("trigger", 0, func(in *block) {
		j.Trigger = &sheaf.Trigger{}
		in.trigger(j.Trigger)
	})
	b.end()
}

// job checks a whole job.
func (c *checker) job(j *sheaf.Job) {
	c.name("name", "job", j.Name)
	if j.Type == "service" {
		c.bad("type", `type "service" is not a kind of job here: a job ends`, "", `write type = "batch"; for a task without an end another scheduler is the right place`)
	} else {
		c.oneOf("type", "type", j.Type, sheaf.JobBatch, sheaf.JobOps)
	}
	if j.Region != "" {
		c.name("region", "region", j.Region)
	}
	c.name("namespace", "namespace", j.Namespace)
	c.datacenters(j.Datacenters)
	if j.Type == sheaf.JobOps {
		c.ops(j)
	}
	c.whole("priority", "priority", j.Priority)
	switch {
	case j.Split != nil && j.Count != 0:
		c.bad("count", "count and split exclude each other", "", "leave one of them out: split makes the partitions from the files")
	case j.Split == nil && j.Type != sheaf.JobOps:
		c.whole("count", "count", j.Count)
	}
	c.timeout("timeout", j.Timeout)
	c.oneOf("isolation", "isolation", j.Isolation, sheaf.IsolationPartition, sheaf.IsolationRun)
	c.meta(j.Meta)
	for i, s := range j.Compat {
		c.oneOf(fmt.Sprintf("compat[%d]", i), "compat", s, "bacalhau")
	}
	for i, s := range j.After {
		c.name(fmt.Sprintf("after[%d]", i), "job or run", s)
	}
	c.inputs(j.Inputs)
	if j.Split != nil {
		c.split(j)
	}
	if j.Parallelism != nil {
		c.parallelism(j.Parallelism)
	}
	c.task("task", &j.Task)
	c.outputs("outputs", j.Outputs)
	c.overlap(j)
	c.retry(&j.Retry)
	c.failure(&j.Failure)
	c.placement(j)
	c.later(j)
}

func (c *checker) datacenters(names []string) {
	if len(names) == 0 {
		c.bad("datacenters", "datacenters is empty, so that no node would do", "", `write ["*"] for all, or leave it out`)
	}
	for i, n := range names {
		if at := fmt.Sprintf("datacenters[%d]", i); strings.ContainsAny(n, `*?[\`) {
			c.datacenterGlob(at, n)
		} else {
			c.name(at, "datacenter", n)
		}
	}
}

func (c *checker) datacenterGlob(at, pattern string) {
	_, err := path.Match(pattern, "")
	if err != nil || len(pattern) > maxGlobName || strings.ContainsAny(pattern, "/\x00") {
		c.bad(at, fmt.Sprintf("datacenter %s is no glob", quoted(pattern)), "", `write a name in which * stands for any characters, as in "eu-*"`)
	}
}

// maxGlobName is longer than any datacenter's name.
const maxGlobName = 128

func (c *checker) meta(meta map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if key == "" {
			c.bad("meta", "a key of meta is empty", "", "give it a name")
		}
		c.text("meta."+key, "a key of meta", key)
		c.text("meta."+key, "meta."+key, meta[key])
	}
}

// writeJob writes the job block.
func (w *writer) job(j *sheaf.Job) {
	w.open("job", j.Name)
	w.text("type", j.Type, sheaf.JobBatch)
	w.text("region", j.Region, "")
	w.text("namespace", j.Namespace, defaultNamespace)
	if !slices.Equal(j.Datacenters, allDatacenters) {
		w.texts("datacenters", j.Datacenters)
	}
	w.whole("priority", j.Priority, defaultPriority)
	if j.Split == nil && j.Type != sheaf.JobOps {
		w.whole("count", j.Count, 1)
	}
	w.duration("timeout", j.Timeout, 0)
	w.flag("reuse", j.Reuse, false)
	w.text("isolation", j.Isolation, sheaf.IsolationPartition)
	w.flag("backups", j.Backups, defaultBackups(j))
	w.textMap("meta", j.Meta, quote)
	w.texts("compat", j.Compat)
	w.texts("after", j.After)
	for _, in := range j.Inputs {
		w.input(in)
	}
	if j.Split != nil {
		w.split(j.Split)
	}
	if j.Parallelism != nil {
		w.parallelism(j.Parallelism)
	}
	w.task(&j.Task)
	for _, out := range j.Outputs {
		w.output(out)
	}
	w.retry(j.Retry)
	w.failure(j.Failure)
	w.placement(j)
	w.later(j)
	w.close()
}
