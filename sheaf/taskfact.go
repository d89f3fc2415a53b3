package sheaf

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// TaskFact is one thing of which the output of a job's partitions depends beside their
// shards. Its name is said to people, its value only compared.
type TaskFact struct{ Name, Value string }

// TaskFacts are all of a job, ordered by name. Image is the digest of the image or
// module as resolved, and partitions the number of partitions, which counts only where
// the task is told it.
func TaskFacts(job *Job, image string, partitions int) []TaskFact {
	t := &job.Task
	facts := []TaskFact{{"task.driver", t.Driver}, {"task.network", t.Network}, {"the digest of the image or module", image}}
	add := func(name string, value any) {
		b, err := json.Marshal(value)
		if err != nil {
			panic("sheaf: a part of a job has no JSON form: " + err.Error())
		}
		facts = append(facts, TaskFact{name, string(b)})
	}
	for name, value := range t.Config {
		add("task.config."+name, value)
	}
	for name, value := range t.Env {
		add("task.env."+name, value)
	}
	for _, s := range t.Secrets {
		add("task.secret."+s.Name, s)
	}
	for _, in := range job.Inputs {
		add("input."+in.Name+".mount", in.Mount)
	}
	for _, out := range job.Outputs {
		add("output."+out.Name+".path", out.Path)
	}
	for _, c := range job.Compat {
		add("compat."+c, true)
	}
	for _, p := range job.Failure.OnExit {
		if p.Action == ActionIgnore {
			for _, c := range p.Codes {
				add(fmt.Sprintf("failure.on_exit of exit code %d", c), p.Action)
			}
		}
	}
	if RefersTo(t, "partition.count") {
		facts = append(facts, TaskFact{"${partition.count}", strconv.Itoa(partitions)})
	}
	slices.SortFunc(facts, func(a, b TaskFact) int {
		return slices.Compare([]byte(a.Name+"\x00"+a.Value), []byte(b.Name+"\x00"+b.Value))
	})
	return facts
}

// TaskKey is a digest of facts: jobs with equal keys make equal outputs of equal shards,
// as far as the job says.
func TaskKey(facts []TaskFact) [32]byte {
	h := sha256.New()
	var b []byte
	for _, f := range facts {
		b = binary.AppendUvarint(b[:0], uint64(len(f.Name)))
		b = append(b, f.Name...)
		b = binary.AppendUvarint(b, uint64(len(f.Value)))
		b = append(b, f.Value...)
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// ChangedFacts are the names of the facts that differ, each once, in order.
func ChangedFacts(before, after []TaskFact) []string {
	var names []string
	differ := func(a, b []TaskFact) {
		for _, f := range a {
			if !slices.Contains(b, f) {
				names = append(names, f.Name)
			}
		}
	}
	differ(before, after)
	differ(after, before)
	slices.Sort(names)
	return slices.Compact(names)
}

// RefersTo reports whether a task's config or variables hold the reference ${name}.
func RefersTo(t *Task, name string) bool {
	for _, v := range t.Env {
		if refersTo(v, name) {
			return true
		}
	}
	for _, v := range t.Config {
		if refersTo(v, name) {
			return true
		}
	}
	return false
}

func refersTo(v any, name string) bool {
	switch v := v.(type) {
	case string:
		names, err := TemplateReferences(v)
		return err == nil && slices.Contains(names, name)
	case []any:
		return slices.ContainsFunc(v, func(x any) bool { return refersTo(x, name) })
	case []string:
		return slices.ContainsFunc(v, func(x string) bool { return refersTo(x, name) })
	case map[string]any:
		for k, x := range v {
			if refersTo(k, name) || refersTo(x, name) {
				return true
			}
		}
	case map[string]string:
		for k, x := range v {
			if refersTo(k, name) || refersTo(x, name) {
				return true
			}
		}
	}
	return false
}
