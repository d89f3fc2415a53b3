package jobspec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// plainJob is a small job that is right, changed by edit.
func plainJob(edit func(*sheaf.Job)) *sheaf.Job {
	j := &sheaf.Job{Name: "j", Task: sheaf.Task{Name: "t", Driver: "exec", Config: map[string]any{"command": "true"}}}
	Defaults(j)
	if edit != nil {
		edit(j)
	}
	return j
}

// TestCheckNamesTheField checks jobs that no jobspec was read for: the first *sheaf.Error
// has the JSON path, for HTTP to show.
func TestCheckNamesTheField(t *testing.T) {
	if err := Check(plainJob(nil), drivers); err != nil {
		t.Fatal(err)
	}
	in := sheaf.Input{Name: "in", Source: "file:///data", Mount: "/in"}
	for field, edit := range map[string]func(*sheaf.Job){
		"name":             func(j *sheaf.Job) { j.Name = "a/b" },
		"count":            func(j *sheaf.Job) { j.Count = sheaf.MaxPartitions + 1 },
		"priority":         func(j *sheaf.Job) { j.Priority = 0 },
		"timeout":          func(j *sheaf.Job) { j.Timeout = -1 },
		"datacenters":      func(j *sheaf.Job) { j.Datacenters = nil },
		"inputs[1].mount":  func(j *sheaf.Job) { j.Inputs = []sheaf.Input{in, {Name: "b", Source: in.Source, Mount: "/in/b"}} },
		"inputs[0].source": func(j *sheaf.Job) { j.Inputs = []sheaf.Input{{Name: "b", Source: "/data", Mount: "/in"}} },
		"inputs[1].name":   func(j *sheaf.Job) { j.Inputs = []sheaf.Input{in, {Name: "IN", Source: in.Source, Mount: "/b"}} },
		"outputs[0].path": func(j *sheaf.Job) {
			j.Outputs = []sheaf.Output{{Name: "o", Path: "/out/", Merge: "union", OnConflict: "error"}}
		},
		"outputs[0].on_conflict": func(j *sheaf.Job) {
			j.Outputs = []sheaf.Output{{Name: "o", Path: "/out", Merge: "none", OnConflict: "last"}}
		},
		"split.glob": func(j *sheaf.Job) {
			j.Inputs, j.Count, j.Split = []sheaf.Input{in}, 0, &sheaf.Split{Glob: "[", BatchSize: 1}
		},
		"split.batch_size": func(j *sheaf.Job) {
			j.Inputs, j.Count, j.Split = []sheaf.Input{in}, 0, &sheaf.Split{Glob: "/", BatchSize: -1}
		},
		"task":                      func(j *sheaf.Job) { j.Task = sheaf.Task{} },
		"task.driver":               func(j *sheaf.Job) { j.Task.Driver = "docker" },
		"task.config":               func(j *sheaf.Job) { j.Task.Config = nil },
		"task.config.args":          func(j *sheaf.Job) { j.Task.Config["args"] = "x" },
		"task.config.args[0]":       func(j *sheaf.Job) { j.Task.Config["args"] = []any{"${nope}"} },
		"task.env.A":                func(j *sheaf.Job) { j.Task.Env = map[string]string{"A": "${partition.index"} },
		"task.resources.memory":     func(j *sheaf.Job) { j.Task.Resources.Memory = 1 << 62 },
		"task.resources.cpu":        func(j *sheaf.Job) { j.Task.Resources.CPU = -1 },
		"task.kill_timeout":         func(j *sheaf.Job) { j.Task.KillTimeout = sheaf.Duration(48 * time.Hour) },
		"retry.attempts":            func(j *sheaf.Job) { j.Retry.Attempts = 1_000_000 },
		"failure.tolerate":          func(j *sheaf.Job) { j.Failure.Tolerate.Count = -1 },
		"failure.on_exit[0].codes":  func(j *sheaf.Job) { j.Failure.OnExit = []sheaf.ExitPolicy{{Action: "retry"}} },
		"failure.on_exit[0].action": func(j *sheaf.Job) { j.Failure.OnExit = []sheaf.ExitPolicy{{Codes: []int{1}}} },
		"split.combine.kind": func(j *sheaf.Job) {
			j.Inputs, j.Count, j.Split = []sheaf.Input{in}, 0, &sheaf.Split{BatchSize: 1, Combine: &sheaf.Combine{Kind: "over"}}
		},
		"": func(j *sheaf.Job) { j.Meta = map[string]string{"a": strings.Repeat("x", MaxJob)} },
	} {
		err := Check(plainJob(edit), drivers)
		var p *sheaf.Error
		if !errors.As(err, &p) || p.Field != field || p.Class != sheaf.Invalid || p.Hint == "" {
			t.Errorf("%s: got field %q: %v", field, p.Field, err)
		}
	}
}

// TestRefusalsComeLast checks that what is wrong decides the class, and what is not supported only where nothing is.
func TestRefusalsComeLast(t *testing.T) {
	later := plainJob(func(j *sheaf.Job) { j.Task.Network = sheaf.NetworkBridge })
	if err := Check(later, drivers); sheaf.ClassOf(err) != sheaf.Unsupported {
		t.Errorf("got %v", err)
	}
	later.Name = ""
	if err := Check(later, drivers); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("got %v", err)
	}
}

// TestWithoutSchemas checks that a job is not judged by drivers nobody named.
func TestWithoutSchemas(t *testing.T) {
	j := plainJob(func(j *sheaf.Job) { j.Task.Driver, j.Task.Config = "other", map[string]any{"x": 1.0} })
	if err := Check(j, nil); err != nil {
		t.Error(err)
	}
}

// TestDefaultsOfRetry checks that zeros that mean something survive.
func TestDefaultsOfRetry(t *testing.T) {
	var j sheaf.Job
	Defaults(&j)
	if want := (sheaf.Retry{Attempts: 3, Delay: sheaf.Duration(time.Second), Backoff: "exponential", MaxDelay: sheaf.Duration(time.Minute), OtherNode: true}); j.Retry != want {
		t.Errorf("got %+v", j.Retry)
	}
	j.Retry = sheaf.Retry{Attempts: 2, Backoff: "constant"}
	want := j.Retry
	if Defaults(&j); j.Retry != want {
		t.Errorf("got %+v", j.Retry)
	}
}

// TestDiagnosticsTravel checks that what a child finds is the same behind JSON.
func TestDiagnosticsTravel(t *testing.T) {
	_, _, err := Eval(source("job \"j\" {\n  count = -1\n}\n"), Options{})
	b, _ := json.Marshal(err)
	var ds Diagnostics
	if json.Unmarshal(b, &ds) != nil || ds.Error() != err.Error() {
		t.Errorf("got %s from %s, want %s", ds, b, err)
	}
}
