package jobspec

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// The defaults of the language.
const (
	defaultNamespace   = "default"
	defaultPriority    = 50
	defaultCPU         = 100 // MHz
	defaultMemory      = 128 << 20
	defaultDisk        = 256 << 20
	defaultPids        = 256
	defaultAttempts    = 3
	defaultDelay       = sheaf.Duration(time.Second)
	defaultKillSignal  = "SIGTERM"
	defaultKillTimeout = sheaf.Duration(5 * time.Second)
	defaultWeight      = 50
	defaultPoll        = sheaf.Duration(time.Minute)
	defaultUnreachable = "fail"

	// minKillTimeout is above 0, which a job cannot tell from nothing written.
	minKillTimeout = time.Millisecond
)

var allDatacenters = []string{"*"}

// Defaults fills in what a job leaves out: every zero value that has another
// default, in place. Retry is filled in whole only where all of it is zero, since
// zero delays and other_node = false are values of their own.
func Defaults(job *sheaf.Job) {
	whole := job.Retry == sheaf.Retry{}
	defaults(job, func(path string) bool {
		switch path {
		case "retry.delay", "retry.max_delay", "retry.other_node":
			return !whole
		}
		return false
	})
}

// fill sets *to where it is zero and nothing was written at path.
func fill[T comparable](written func(string) bool, path string, to *T, value T) {
	var zero T
	if *to == zero && !written(path) {
		*to = value
	}
}

func defaults(j *sheaf.Job, written func(path string) bool) {
	fill(written, "type", &j.Type, sheaf.JobBatch)
	fill(written, "namespace", &j.Namespace, defaultNamespace)
	if j.Datacenters == nil && !written("datacenters") {
		j.Datacenters = append([]string(nil), allDatacenters...)
	}
	fill(written, "priority", &j.Priority, defaultPriority)
	fill(written, "isolation", &j.Isolation, sheaf.IsolationPartition)
	if s := j.Split; s == nil {
		if j.Type != sheaf.JobOps { // which runs once on every node
			fill(written, "count", &j.Count, 1)
		}
	} else {
		fill(written, "split.batch_size", &s.BatchSize, defaultBatch(s))
		fill(written, "split.group_rest", &s.GroupRest, defaultGroupRest(s))
	}
	taskDefaults("task", &j.Task, written)
	fill(written, "backups", &j.Backups, defaultBackups(j))
	outputDefaults("outputs", j.Outputs, written)
	fill(written, "retry.attempts", &j.Retry.Attempts, defaultAttempts)
	fill(written, "retry.delay", &j.Retry.Delay, defaultDelay)
	fill(written, "retry.backoff", &j.Retry.Backoff, sheaf.BackoffExponential)
	fill(written, "retry.max_delay", &j.Retry.MaxDelay, defaultMaxDelay(j.Retry.Delay))
	fill(written, "retry.other_node", &j.Retry.OtherNode, true)
	for i := range j.Constraints {
		fill(written, fmt.Sprintf("constraints[%d].operator", i), &j.Constraints[i].Operator, "=")
	}
	for i := range j.Affinities {
		fill(written, fmt.Sprintf("affinities[%d].operator", i), &j.Affinities[i].Operator, "=")
	}
	if r := j.Reduce; r != nil {
		taskDefaults("reduce.task", &r.Task, written)
		outputDefaults("reduce.outputs", r.Outputs, written)
	}
	if m := j.Multiregion; m != nil {
		fill(written, "multiregion.unreachable", &m.Unreachable, defaultUnreachable)
	}
	if t := j.Trigger; t != nil {
		fill(written, "trigger.poll", &t.Poll, defaultPoll)
	}
}

func taskDefaults(path string, t *sheaf.Task, written func(string) bool) {
	if t.Name == "" && t.Driver == "" {
		return // there is none
	}
	fill(written, path+".kill_signal", &t.KillSignal, defaultKillSignal)
	fill(written, path+".kill_timeout", &t.KillTimeout, defaultKillTimeout)
	fill(written, path+".network", &t.Network, sheaf.NetworkNone)
	secretDefaults(path+".secrets", t.Secrets, written)
	path += ".resources"
	fill(written, path+".cpu", &t.Resources.CPU, defaultCPU)
	fill(written, path+".memory", &t.Resources.Memory, defaultMemory)
	fill(written, path+".disk", &t.Resources.Disk, defaultDisk)
	fill(written, path+".pids", &t.Resources.Pids, defaultPids)
}

func outputDefaults(path string, outputs []sheaf.Output, written func(string) bool) {
	for i := range outputs {
		at := fmt.Sprintf("%s[%d]", path, i)
		fill(written, at+".merge", &outputs[i].Merge, sheaf.MergeUnion)
		fill(written, at+".on_conflict", &outputs[i].OnConflict, sheaf.ConflictError)
	}
}

// defaultBackups is true where a second attempt at a partition can do no harm: the task reaches nothing but
// its inputs and outputs.
func defaultBackups(j *sheaf.Job) bool {
	return j.Task.Network == sheaf.NetworkNone && j.Type == sheaf.JobBatch
}

// defaultBatch is 1, or unlimited (0) where something else ends a batch.
func defaultBatch(s *sheaf.Split) int {
	if s.MaxBytes != 0 || s.GroupBy != "" || s.Partitions != 0 {
		return 0
	}
	return 1
}

func defaultGroupRest(s *sheaf.Split) string {
	if s.GroupBy == "" {
		return ""
	}
	return sheaf.GroupRestError
}

// defaultMaxDelay is a minute, or the delay where that is longer.
func defaultMaxDelay(delay sheaf.Duration) sheaf.Duration {
	return max(sheaf.Duration(time.Minute), delay)
}

// zeros are the zeros that were written where a job's zero means that nothing
// was, so that the rules cannot see them.
func zeros(j *sheaf.Job, written func(path string) bool) []*sheaf.Error {
	var found []*sheaf.Error
	check := func(path, name string, zero bool, limit string) {
		if zero && written(path) {
			found = append(found, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: name + " is 0", Limit: limit, Hint: "write a value within the limit, or leave it out"})
		}
	}
	timeouts := "1ms to " + hours(MaxTimeout)
	check("timeout", "timeout", j.Timeout == 0, timeouts)
	check("task.timeout", "timeout", j.Task.Timeout == 0, timeouts)
	check("count", "count", j.Count == 0, spanOf("count").String())
	if s := j.Split; s != nil {
		check("split.batch_size", "batch_size", s.BatchSize == 0, spanOf("split.batch_size").String())
		check("split.partitions", "partitions", s.Partitions == 0, spanOf("split.partitions").String())
		check("split.max_bytes", "max_bytes", s.MaxBytes == 0, sizeSpanOf("split.max_bytes").String())
	}
	return found
}
