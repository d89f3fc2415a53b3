package sandbox

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

var place = Place{NodeID: "n1", NodeName: "box", Region: "global", Datacenter: "dc1", Attributes: map[string]string{"quoted": `a "b"`}}

func job(change ...func(*sheaf.Job)) *sheaf.Job {
	j := &sheaf.Job{Name: "thumbs", Type: sheaf.JobBatch, Namespace: "default", Task: sheaf.Task{Name: "t"}}
	for _, f := range change {
		f(j)
	}
	return j
}

// TestEveryVariable holds the environment against the table of the jobspec.
func TestEveryVariable(t *testing.T) {
	j := job(func(j *sheaf.Job) {
		j.Split = &sheaf.Split{}
		j.Inputs = []sheaf.Input{{Name: "vol-1.a", Mount: "/in/a"}}
		j.Outputs = []sheaf.Output{{Name: "res", Path: "/out"}}
		j.Task.Env = map[string]string{"MINE": "${partition.index}/${partition.count} $${x}", "SHEAF_ATTEMPT": "9"}
	})
	task, err := Compile("run.1", j, 12, place)
	if err != nil {
		t.Fatal(err)
	}
	_, env := task.Expand(7, 2, "run.1.7.2")
	want := []string{
		"MINE=7/12 ${x}",
		"SHEAF_ATTEMPT=2",
		"SHEAF_DATACENTER=dc1",
		"SHEAF_EXECUTION_ID=run.1.7.2",
		"SHEAF_INPUT_VOL_1_A=/in/a",
		"SHEAF_JOB_ID=run.1",
		"SHEAF_JOB_NAME=thumbs",
		"SHEAF_JOB_TYPE=batch",
		"SHEAF_NAMESPACE=default",
		"SHEAF_NODE_ID=n1",
		"SHEAF_NODE_NAME=box",
		"SHEAF_OUTPUT_RES=/out",
		"SHEAF_PARTITION_COUNT=12",
		"SHEAF_PARTITION_INDEX=7",
		"SHEAF_REGION=global",
		"SHEAF_SHARD_FILE=/run/sheaf/shard.jsonl",
	}
	if !slices.Equal(env, want) {
		t.Errorf("environment is\n%s\nwant\n%s", strings.Join(env, "\n"), strings.Join(want, "\n"))
	}
	HostPaths(env, []*driverpb.Mount{{Source: "/h/a", Target: "/in/a"}, {Source: "/h/s", Target: "/run/sheaf"}, {Source: "/h/o", Target: "/out"}})
	for _, want := range []string{"SHEAF_INPUT_VOL_1_A=/h/a", "SHEAF_SHARD_FILE=/h/s/shard.jsonl", "SHEAF_OUTPUT_RES=/h/o", "SHEAF_JOB_NAME=thumbs"} {
		if !slices.Contains(env, want) {
			t.Errorf("with the host's paths %q is missing in %q", want, env)
		}
	}
}

// What was made for Bacalhau finds the same facts; a job's own variables go before.
func TestCompatibleVariables(t *testing.T) {
	j := job(func(j *sheaf.Job) {
		j.Compat = []string{"bacalhau"}
		j.Task.Env = map[string]string{"BACALHAU_NODE_ID": "mine"}
	})
	task, err := Compile("run.1", j, 12, place)
	if err != nil {
		t.Fatal(err)
	}
	_, env := task.Expand(7, 2, "run.1.7.2")
	var got []string
	for _, v := range env {
		if strings.HasPrefix(v, "BACALHAU_") {
			got = append(got, v)
		}
	}
	want := []string{
		"BACALHAU_EXECUTION_ID=run.1.7.2",
		"BACALHAU_JOB_ID=run.1",
		"BACALHAU_JOB_NAME=thumbs",
		"BACALHAU_JOB_NAMESPACE=default",
		"BACALHAU_JOB_TYPE=batch",
		"BACALHAU_NODE_ID=mine",
		"BACALHAU_PARTITION_COUNT=12",
		"BACALHAU_PARTITION_INDEX=7",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigIsExpanded(t *testing.T) {
	j := job(func(j *sheaf.Job) {
		j.Task.Config = map[string]any{
			"args":  []any{"${partition.index}", "<${node.attr.quoted}>", "$${HOME}", "plain"},
			"other": map[string]any{"k": "${execution.id}.${attempt}.${job.id}"},
		}
	})
	task, err := Compile("r", j, 1, place)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := task.Expand(0, 1, "r.0.1")
	var got struct {
		Args  []string          `json:"args"`
		Other map[string]string `json:"other"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if !slices.Equal(got.Args, []string{"0", `<a "b">`, "${HOME}", "plain"}) || got.Other["k"] != "r.0.1.1.r" {
		t.Errorf("config is %s", raw)
	}
	if !strings.Contains(string(task.Raw()), "${partition.index}") {
		t.Errorf("the raw config is %s", task.Raw())
	}
}

// TestSameConfigIsShared guards that a config without references costs an
// execution nothing.
func TestSameConfigIsShared(t *testing.T) {
	task, err := Compile("r", job(func(j *sheaf.Job) { j.Task.Config = map[string]any{"args": []any{"$${x} ${job.name}"}} }), 1, place)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := task.Expand(0, 1, "r.0.1")
	b, _ := task.Expand(1, 1, "r.1.1")
	if &a[0] != &b[0] || string(a) != `{"args":["${x} thumbs"]}` {
		t.Errorf("configs are %s and %s", a, b)
	}
}

func TestMistakes(t *testing.T) {
	for name, j := range map[string]*sheaf.Job{
		"two names, one variable": job(func(j *sheaf.Job) { j.Inputs = []sheaf.Input{{Name: "a-b"}, {Name: "a.b"}} }),
		"unknown reference":       job(func(j *sheaf.Job) { j.Task.Env = map[string]string{"A": "${nosuch}"} }),
		"name of a variable":      job(func(j *sheaf.Job) { j.Task.Env = map[string]string{"A=B": "x"} }),
		"NUL":                     job(func(j *sheaf.Job) { j.Task.Env = map[string]string{"A": "x\x00y"} }),
	} {
		if _, err := Compile("r", j, 1, place); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCleanRemovesStrangers: only what goes on keeps its directories, even
// where a task took its own rights away.
func TestCleanRemovesStrangers(t *testing.T) {
	dir := t.TempDir()
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"r/0.1/scratch/locked/in", "r/1.1/tree", "s/0.1"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "r/0.1/scratch/locked"), 0); err != nil {
		t.Fatal(err)
	}
	if err := root.Clean(func(run sheaf.RunID, attempt string) bool { return run == "r" && attempt == AttemptName(1, 1) }); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if len(left) != 1 || left[0] != filepath.Join(dir, "r/1.1") {
		t.Errorf("left are %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Error("the directory of a run of which nothing is left stays")
	}
}

func BenchmarkExpand(b *testing.B) {
	task, err := Compile("r", job(), 1000, place)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := range b.N {
		task.Expand(uint32(i), 1, "r.0.1")
	}
}
