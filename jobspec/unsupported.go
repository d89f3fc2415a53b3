package jobspec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// refusal is a part of the language that this version reads and checks, and
// cannot run yet.
type refusal struct {
	what string // as a person would write it
	in   func(c *checker, j *sheaf.Job) []string
}

// refusals are all of them. What a version comes to support loses its row, and nothing else changes.
var refusals = []refusal{
	{"reuse = true without a split", func(_ *checker, j *sheaf.Job) []string { return at(j.Reuse && j.Split == nil, "reuse") }},
	{"the module", remoteModules},
	{`network = "bridge"`, func(_ *checker, j *sheaf.Job) []string {
		return append(at(j.Task.Network == sheaf.NetworkBridge, "task.network"), at(j.Reduce != nil && j.Reduce.Task.Network == sheaf.NetworkBridge, "reduce.task.network")...)
	}},
	{"the device block", func(_ *checker, j *sheaf.Job) []string {
		paths := each(len(j.Task.Resources.Devices), "task.resources.devices")
		if j.Reduce != nil {
			paths = append(paths, each(len(j.Reduce.Task.Resources.Devices), "reduce.task.resources.devices")...)
		}
		return paths
	}},
	{"the multiregion block", func(_ *checker, j *sheaf.Job) []string { return at(j.Multiregion != nil, "multiregion") }},
	{"the periodic block", func(_ *checker, j *sheaf.Job) []string { return at(j.Periodic != nil, "periodic") }},
	{"the trigger block", func(_ *checker, j *sheaf.Job) []string { return at(j.Trigger != nil, "trigger") }},
}

// refuse notes what the job asks of a later version.
func (c *checker) refuse(j *sheaf.Job) {
	for _, r := range refusals {
		for _, path := range r.in(c, j) {
			what := r.what
			if s, ok := locationAt(j, path); ok {
				what += " " + quoted(s) + ": " + scheme(s) + "://"
			}
			c.found = append(c.found, &sheaf.Error{Class: sheaf.Unsupported, Field: path, Msg: what + " is not supported in this version", Hint: unsupportedHint(path)})
		}
	}
}

func unsupportedHint(path string) string {
	switch withoutIndexes(path) {
	case "reuse":
		return "add a split: what it lists is compared with what earlier runs have read"
	case "task.config.module":
		return "copy the module to where the clients can read it, and name it with file://"
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

func remoteModules(c *checker, j *sheaf.Job) []string {
	var paths []string
	for _, a := range c.drivers[j.Task.Driver].Attributes {
		s, _ := j.Task.Config[a.Name].(string)
		paths = append(paths, at(a.URL && !isImage(a, s) && !isFile(s), "task.config."+a.Name)...)
	}
	return paths
}

// isFile reports whether a known kind of source is file://.
func isFile(s string) bool {
	return !slices.ContainsFunc(schemes, func(k sourceKind) bool { return k.name != "file" && k.name == scheme(s) })
}

// locationAt is the URL that stands at path, where one does.
func locationAt(j *sheaf.Job, path string) (string, bool) {
	if name, ok := strings.CutPrefix(path, "task.config."); ok {
		s, ok := j.Task.Config[name].(string)
		return s, ok
	}
	return "", false
}
