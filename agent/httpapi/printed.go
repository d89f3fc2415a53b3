package httpapi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// printed is a file of a result's folder that tasks did not write as output: stdout and stderr of all partitions, and what
// there is of each under partitions/<index>. An output of that name comes first.
type printed struct {
	path string
	of   int // a partition, or -1 for all
}

func printedAt(job *sheaf.Job, path string) (printed, bool) {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if slices.ContainsFunc(job.Results(), func(o sheaf.Output) bool { return o.Name == parts[0] }) {
		return printed{}, false
	}
	clean := strings.Join(parts, "/")
	logs := []string{"stdout", "stderr"}
	if len(parts) == 1 {
		return printed{clean, -1}, slices.Contains(logs, parts[0])
	}
	i, err := strconv.Atoi(parts[1])
	if parts[0] != "partitions" || err != nil || i < 0 || strconv.Itoa(i) != parts[1] || len(parts) > 3 {
		return printed{}, false
	}
	return printed{clean, i}, len(parts) == 2 || slices.Contains(append(logs, "exit_code"), parts[2])
}

// printed takes the partitions that a file which tasks printed is of: those that ended, in their order.
func (o *origins) printed(x printed) error {
	t, image := &o.run.Job.Task, o.run.Image
	if o.run.IsReduce(x.of) {
		t, image = &o.run.Job.Reduce.Task, o.run.Reduce.Image
	}
	o.file = api.ProvenanceFile{Run: o.run.ID, Job: o.run.Job.Name, Merge: sheaf.MergeConcat, Path: x.path, Task: t.Name, Driver: t.Driver, Config: t.Config, Image: image}
	add := func(i int) {
		o.made[i/64] |= 1 << (i % 64)
		if o.file.Parts++; len(o.parts) < o.most {
			p := o.snap.Partition(o.run, i)
			o.parts = append(o.parts, api.ProvenancePart{Partition: i, Attempt: p.Attempt, Node: p.Node})
		}
	}
	if x.of < 0 {
		for i := range o.run.Counts().Total {
			if s := o.run.Row(i).State; s.Terminal() && s != sheaf.PartitionCancelled {
				add(i)
			}
		}
		return nil
	}
	if x.of < o.run.Counts().Total || o.run.IsReduce(x.of) {
		if p := o.snap.Partition(o.run, x.of); p.Node != "" && p.State.Terminal() && p.State != sheaf.PartitionCancelled {
			add(x.of)
			return nil
		}
	}
	return &sheaf.Error{Class: sheaf.NotFound, Field: "path", Msg: fmt.Sprintf("run %s has nothing of a partition %d that has ended", o.run.ID, x.of), Hint: fmt.Sprintf("`agent partition list %s` shows them", o.run.ID)}
}
