package jobspec

import (
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// TestWriteProperty draws jobs of every block that this version runs: as HCL and as
// JSON each comes back the same.
func TestWriteProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		job := drawJob(r)
		Defaults(job)
		if err := Check(job, drivers); err != nil {
			r.Fatalf("drawn job is wrong: %v", err)
		}
		want, _ := json.Marshal(job)
		text := Write(job)
		formatted, err := Format("job.hcl", text)
		if err != nil || string(formatted) != string(text) {
			r.Fatalf("not in canonical layout: %v\n%s", err, text)
		}
		got, _, err := Eval(Source{Name: "job.hcl", Data: text}, Options{Drivers: drivers})
		if err != nil {
			r.Fatalf("%v\n%s", err, text)
		}
		if got, _ := json.Marshal(got); string(got) != string(want) {
			r.Fatalf("got\n%s\nwant\n%s\nfrom\n%s", got, want, text)
		}
	})
}

var (
	drawName = rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}`)
	// Text has what HCL and templates take for their own.
	drawText = rapid.Map(rapid.SliceOf(rapid.OneOf(
		rapid.SampledFrom([]string{"$", "%", "{", "}", "${", "%{", "$${", `\`, `"`, "\n", "\t", "é", "~", "EOT", "\x7f", "\u200b", "𝄞"}),
		rapid.StringN(0, 3, 12))), func(parts []string) string {
		s := ""
		for _, p := range parts {
			s += p
		}
		out := []rune{}
		for _, c := range norm.NFC.String(s) {
			if c != 0 {
				out = append(out, c)
			}
		}
		return norm.NFC.String(string(out))
	})
)

// drawTemplate is text and references in the form of [sheaf.Expand]. A
// reference right behind a $ cannot be written, so none is drawn.
func drawTemplate(r *rapid.T, label string) string {
	s := sheaf.EscapeTemplate(drawText.Draw(r, label))
	for range rapid.IntRange(0, 2).Draw(r, label+" references") {
		s += " ${" + rapid.SampledFrom(append([]string{"node.attr.a.b"}, sheaf.References...)).Draw(r, label) + "}"
		s += sheaf.EscapeTemplate(drawText.Draw(r, label))
	}
	return s
}

func drawJob(r *rapid.T) *sheaf.Job {
	whole := func(label string, min, max int) int { return rapid.IntRange(min, max).Draw(r, label) }
	duration := func(label string, min, max time.Duration) sheaf.Duration {
		return sheaf.Duration(rapid.Int64Range(int64(min), int64(max)).Draw(r, label))
	}
	flag := func(label string) bool { return rapid.Bool().Draw(r, label) }
	j := &sheaf.Job{
		Name: drawName.Draw(r, "name"), Priority: whole("priority", 1, 100),
		Task: sheaf.Task{
			Name: drawName.Draw(r, "task"), Driver: "mock",
			Config: map[string]any{
				"run_for": drawTemplate(r, "run_for"), "exit": rapid.Float64Range(-1e300, 1e300).Draw(r, "exit"), "fail": flag("fail"),
				"labels": map[string]any{drawText.Draw(r, "label"): drawTemplate(r, "label value")},
			},
			Network:   rapid.SampledFrom([]string{"", "none", "host"}).Draw(r, "network"),
			Resources: sheaf.Resources{CPU: whole("cpu", 0, 1000), Memory: sheaf.Size(rapid.Int64Range(4<<20, 1<<40).Draw(r, "memory")), Pids: whole("pids", 0, 9)},
		},
	}
	if flag("env") {
		j.Task.Env = map[string]string{rapid.StringMatching(`[A-Z_.-]{1,5}`).Draw(r, "env key"): drawTemplate(r, "env")}
	}
	if flag("meta") {
		j.Meta = map[string]string{norm.NFC.String("k" + drawText.Draw(r, "meta key")): drawText.Draw(r, "meta")}
	}
	if flag("timeouts") {
		j.Timeout, j.Task.Timeout = duration("timeout", time.Millisecond, MaxTimeout), duration("task timeout", time.Millisecond, MaxTimeout)
		j.Task.KillTimeout, j.Task.KillSignal = duration("kill", time.Millisecond, MaxDelay), "SIGINT"
	}
	if flag("split") {
		j.Inputs = []sheaf.Input{{Name: "in", Source: fileURL("/" + drawName.Draw(r, "source")), Mount: "/in"}}
		j.Split = &sheaf.Split{Glob: "/**/*.jpg", AllowEmpty: flag("empty")}
		switch whole("kind", 0, 3) {
		case 0:
			j.Split.BatchSize = whole("batch", 0, 100)
		case 1:
			j.Split.MaxBytes = sheaf.Size(rapid.Int64Range(1, 1<<50).Draw(r, "bytes"))
		case 2:
			j.Split.Partitions = whole("partitions", 1, sheaf.MaxPartitions)
		case 3:
			j.Split.GroupBy, j.Split.GroupRest = `^/(\d+)\\`, rapid.SampledFrom([]string{"", "error", "keep", "drop"}).Draw(r, "rest")
		}
	} else {
		j.Count = whole("count", 0, sheaf.MaxPartitions)
	}
	for i := range whole("outputs", 0, 2) {
		out := sheaf.Output{Name: "o" + string(rune('a'+i)), Path: "/out/" + string(rune('a'+i)), Merge: rapid.SampledFrom([]string{"", "union", "concat", "none"}).Draw(r, "merge")}
		if out.Merge == "union" {
			out.OnConflict = rapid.SampledFrom([]string{"", "error", "rename", "last"}).Draw(r, "conflict")
		}
		j.Outputs = append(j.Outputs, out)
	}
	if flag("retry") {
		delay := duration("delay", 0, MaxDelay/2)
		j.Retry = sheaf.Retry{Attempts: whole("attempts", 1, 100), Delay: delay, MaxDelay: delay + duration("more", 0, MaxDelay/2), OtherNode: flag("other")}
	}
	j.Failure.Tolerate = drawThreshold(r, "tolerate")
	if flag("stop") {
		stop := drawThreshold(r, "stop")
		j.Failure.StopAfter = &stop
	}
	if flag("exit") {
		j.Failure.OnExit = []sheaf.ExitPolicy{{Codes: []int{whole("code", 0, 255)}, Action: "fail_job"}}
	}
	return j
}

func drawThreshold(r *rapid.T, label string) sheaf.Threshold {
	if rapid.Bool().Draw(r, label+" is a share") {
		return sheaf.Threshold{Percent: float64(rapid.IntRange(1, 1000).Draw(r, label)) / 10}
	}
	return sheaf.Threshold{Count: rapid.IntRange(0, sheaf.MaxPartitions).Draw(r, label)}
}
