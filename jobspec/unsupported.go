package jobspec

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// refusal is a part of the language that this version reads and checks, and
// cannot run yet.
type refusal struct {
	what string // as a person would write it
	in   func(j *sheaf.Job) []string
}

// refusals are all of them. What a version comes to support loses its row, and nothing else changes.
var refusals = []refusal{
	{`network = "bridge"`, func(j *sheaf.Job) []string {
		return append(at(j.Task.Network == sheaf.NetworkBridge, "task.network"), at(j.Reduce != nil && j.Reduce.Task.Network == sheaf.NetworkBridge, "reduce.task.network")...)
	}},
	{"the device block", func(j *sheaf.Job) []string {
		paths := each(len(j.Task.Resources.Devices), "task.resources.devices")
		if j.Reduce != nil {
			paths = append(paths, each(len(j.Reduce.Task.Resources.Devices), "reduce.task.resources.devices")...)
		}
		return paths
	}},
	{"the multiregion block", func(j *sheaf.Job) []string { return at(j.Multiregion != nil, "multiregion") }},
	{"the periodic block", func(j *sheaf.Job) []string { return at(j.Periodic != nil, "periodic") }},
	{"the trigger block", func(j *sheaf.Job) []string { return at(j.Trigger != nil, "trigger") }},
}

// refuse notes what the job asks of a later version.
func (c *checker) refuse(j *sheaf.Job) {
	for _, r := range refusals {
		for _, path := range r.in(j) {
			c.found = append(c.found, &sheaf.Error{Class: sheaf.Unsupported, Field: path, Msg: r.what + " is not supported in this version", Hint: unsupportedHint(path)})
		}
	}
}

func unsupportedHint(path string) string {
	switch withoutIndexes(path) {
	case "task.network", "reduce.task.network":
		return `write network = "host" or "none"`
	}
	return "leave it out"
}

func at(there bool, path string) []string {
	if there {
		return []string{path}
	}
	return nil
}

func each(n int, path string) []string {
	var paths []string
	for i := range n {
		paths = append(paths, fmt.Sprintf("%s[%d]", path, i))
	}
	return paths
}
