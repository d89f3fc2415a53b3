package sheaf

import (
	"slices"
	"testing"
)

func TestTaskFacts(t *testing.T) {
	job := func(change func(*Job)) *Job {
		j := &Job{Name: "j", Priority: 50, Inputs: []Input{{Name: "in", Source: "file:///a", Mount: "/in"}},
			Task: Task{Name: "t", Driver: "exec", Network: NetworkNone, Config: map[string]any{"command": "/bin/cat", "args": []any{"a", "b"}},
				Env: map[string]string{"X": "1"}, Resources: Resources{CPU: 100}},
			Outputs: []Output{{Name: "out", Path: "/out", Merge: MergeUnion}}}
		if change != nil {
			change(j)
		}
		return j
	}
	before := TaskFacts(job(nil), "sha256:1", 10)
	for _, tc := range []struct {
		change func(*Job)
		image  string
		want   string // the name of what changed; "" is nothing
	}{
		{func(j *Job) { j.Task.Driver = "wasm" }, "", "task.driver"},
		{func(j *Job) { j.Task.Config["args"] = []any{"a"} }, "", "task.config.args"},
		{func(j *Job) { delete(j.Task.Config, "args") }, "", "task.config.args"},
		{func(j *Job) { j.Task.Env["X"] = "2" }, "", "task.env.X"},
		{func(j *Job) { j.Task.Env["Y"] = "" }, "", "task.env.Y"},
		{func(j *Job) { j.Task.Network = NetworkHost }, "", "task.network"},
		{func(j *Job) { j.Task.Secrets = []TaskSecret{{Name: "s", Env: "S"}} }, "", "task.secret.s"},
		{func(j *Job) { j.Inputs[0].Mount = "/other" }, "", "input.in.mount"},
		{func(j *Job) { j.Outputs[0].Path = "/other" }, "", "output.out.path"},
		{func(j *Job) { j.Compat = []string{"bacalhau"} }, "", "compat.bacalhau"},
		{func(j *Job) { j.Failure.OnExit = []ExitPolicy{{Codes: []int{3}, Action: ActionIgnore}} }, "", "failure.on_exit of exit code 3"},
		{func(*Job) {}, "sha256:2", "the digest of the image or module"},
		{func(j *Job) { j.Task.Env["X"] = "${partition.count}" }, "", "${partition.count}"},
		// What decides where and how often, and what becomes of the outputs afterwards.
		{func(j *Job) { j.Priority, j.Task.Resources.CPU, j.Task.Timeout = 1, 200, 5 }, "", ""},
		{func(j *Job) { j.Outputs[0].Merge = MergeConcat }, "", ""},
		{func(j *Job) { j.Inputs[0].Source = "file:///b" }, "", ""},
		{func(j *Job) { j.Failure.OnExit = []ExitPolicy{{Codes: []int{3}, Action: ActionRetry}} }, "", ""},
	} {
		image := tc.image
		if image == "" {
			image = "sha256:1"
		}
		after := TaskFacts(job(tc.change), image, 11)
		changed := ChangedFacts(before, after)
		if (tc.want == "") != (TaskKey(before) == TaskKey(after)) {
			t.Errorf("%q: the keys are %x and %x", tc.want, TaskKey(before), TaskKey(after))
		}
		if tc.want == "" && len(changed) > 0 || tc.want != "" && !slices.Contains(changed, tc.want) {
			t.Errorf("changed are %q, not %q", changed, tc.want)
		}
	}
}

func TestRefersTo(t *testing.T) {
	for _, tc := range []struct {
		task Task
		want bool
	}{
		{Task{}, false},
		{Task{Env: map[string]string{"A": "x-${partition.index}"}}, true},
		{Task{Env: map[string]string{"A": "x-$${partition.index}"}}, false},
		{Task{Config: map[string]any{"args": []any{"a", "${partition.index}"}}}, true},
		{Task{Config: map[string]any{"m": map[string]any{"k": "${partition.index}"}}}, true},
		{Task{Config: map[string]any{"n": 1.0, "args": []any{"${partition.count}"}}}, false},
	} {
		if got := RefersTo(&tc.task, "partition.index"); got != tc.want {
			t.Errorf("%+v: %v", tc.task, got)
		}
	}
}
