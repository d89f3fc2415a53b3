package fsm_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

var update = flag.Bool("update", false, "write what the scenarios do into testdata, to be reviewed")

// TestScenarios runs testdata/scenarios. A scenario is lines of [script]; what
// each led to stands below it, indented. Lines that begin with # say why.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScript(t)
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				line = strings.TrimRight(line, "\n")
				if strings.HasPrefix(line, "    ") {
					continue
				}
				got.WriteString(line + "\n")
				if line == "" || line[0] == '#' {
					continue
				}
				for out := range strings.Lines(s.line(line)) {
					got.WriteString("    " + strings.TrimRight(out, "\n") + "\n")
				}
			}
			if got.String() == string(want) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("it goes otherwise now (go test ./server/fsm -run TestScenarios -update, and review the diff):\n%s", got.String())
		})
	}
}

// said is a reply in words; empty when there is nothing to say.
func said(r fsm.Reply) string {
	var b strings.Builder
	if r.Err != nil {
		fmt.Fprintf(&b, "refused, %s: %v\n", sheaf.ClassOf(r.Err), r.Err)
	}
	if r.Session > 0 {
		fmt.Fprintf(&b, "session %d\n", r.Session)
	}
	if r.Existing {
		b.WriteString("exists\n")
	}
	if r.Contiguous > 0 || r.Sealed {
		fmt.Fprintf(&b, "stored below %d, sealed %v\n", r.Contiguous, r.Sealed)
	}
	for _, p := range r.Placed {
		if p.Executions != nil {
			fmt.Fprintf(&b, "placed %s\n", names(p.Executions))
		}
		if p.Refused > 0 {
			fmt.Fprintf(&b, "refused %d: %s\n", p.Refused, p.Reason)
		}
	}
	for _, a := range r.Answers {
		for i, p := range a.Partition {
			fmt.Fprintf(&b, "%d@%d %s\n", p, a.Attempt[i], verdict(wire.Verdict(a.Verdict[i])))
		}
	}
	if r.Verdict != 0 {
		fmt.Fprintf(&b, "%s\n", verdict(r.Verdict))
	}
	for _, e := range r.Ended {
		fmt.Fprintf(&b, "ended %s\n", names(e))
	}
	if len(r.Freed) > 0 {
		fmt.Fprintf(&b, "waits no longer: %v\n", r.Freed)
	}
	if r.Partitions > 0 {
		fmt.Fprintf(&b, "%d run again\n", r.Partitions)
	}
	if r.Adopted > 0 {
		fmt.Fprintf(&b, "%d taken over\n", r.Adopted)
	}
	if r.Moved > 0 {
		fmt.Fprintf(&b, "%d moved\n", r.Moved)
	}
	if r.Lost > 0 {
		fmt.Fprintf(&b, "%d noted as lost\n", r.Lost)
	}
	if r.Digest != "" {
		fmt.Fprintf(&b, "it is %s\n", r.Digest)
	}
	return b.String()
}

func verdict(v wire.Verdict) string {
	return strings.ToLower(strings.TrimPrefix(v.String(), "VERDICT_"))
}

func names(e *wire.Executions) string {
	var parts []string
	for i, first := range e.First {
		r := sheaf.Ranges{{First: int(first), Last: int(first + e.Count[i] - 1)}}
		parts = append(parts, fmt.Sprintf("%s@%d", r, e.Attempt[i]))
	}
	kind := strings.ToLower(strings.TrimPrefix(e.Kind.String(), "KIND_"))
	return kind + " " + strings.Join(parts, " ")
}

// show is where a run stands.
func (s *script) show(id string) string {
	snap := s.snap()
	r := snap.Run(sheaf.RunID(id))
	if r == nil {
		return "no run\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, generation %d", r.Status, r.Generation)
	for st := range sheaf.PartitionState(sheaf.PartitionStates) {
		if x := r.Ranges(st); len(x) > 0 {
			fmt.Fprintf(&b, ", %s: %s", st, x)
		}
	}
	if r.Held() {
		b.WriteString(", held")
	}
	if len(r.Waits) > 0 {
		fmt.Fprintf(&b, ", waits for %v", r.Waits)
	}
	for _, in := range r.Job.Inputs {
		fmt.Fprintf(&b, ", reads %s", in.Source)
	}
	if r.Reuse.Waits {
		b.WriteString(", to be compared")
	}
	b.WriteByte('\n')
	if c := snap.Conflict(r); c != nil {
		fmt.Fprintf(&b, "conflict: %s\n", c.Text())
	}
	for _, x := range r.Reuse.Taken {
		fmt.Fprintf(&b, "%s of %s as %d\n", sheaf.Ranges{{First: int(x.First), Last: int(x.First + x.Count - 1)}}, r.Reuse.Makers[x.Maker], x.MadeAs)
	}
	if r.Partitions != nil {
		for i := range r.Partitions.Len() {
			if row := r.Row(i); row.Failures+row.Losses > 0 || row.Generation > 0 || row.NotBeforeMs() > 0 {
				fmt.Fprintf(&b, "%d: attempt %d, failures %d, losses %d, made again %d", i, row.Fence, row.Failures, row.Losses, row.Generation)
				if row.NotBeforeMs() > 0 {
					fmt.Fprintf(&b, ", waits %v", time.Duration(row.NotBeforeMs()-s.ms)*time.Millisecond)
				}
				b.WriteByte('\n')
			}
		}
	}
	for x := range snap.Backups(r.ID) {
		fmt.Fprintf(&b, "%d: backup %d on %s\n", x.Partition, x.Attempt, snap.NodeByNumber(x.Node).ID)
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "error: %s\n", r.Error)
	}
	if r.Result.Sealed {
		on := sheaf.NodeID("a node that is forgotten")
		if n := snap.NodeByNumber(r.Result.Node); n != nil {
			on = n.ID
		}
		fmt.Fprintf(&b, "result of merge %d on %s", r.Result.Attempt, on)
		if r.Result.Publishing {
			b.WriteString(", being published")
		}
		if r.Result.Published {
			b.WriteString(", published")
		}
		if c := r.Result.Car; c.Root != "" {
			fmt.Fprintf(&b, " as %s by merge %d", c.Root, c.Attempt)
		}
		b.WriteString("\n")
	}
	if to := r.Unpublished(); to != "" {
		fmt.Fprintf(&b, "more than the result may lie in %s\n", to)
	}
	if n := snap.Unreached(r); n > 0 {
		fmt.Fprintf(&b, "unreached: %d\n", n)
	}
	if e := r.Reduce; e.Fence > 0 {
		fmt.Fprintf(&b, "    reduce: attempt %d of %d, valid %v, done %v, failures %d, losses %d %s\n", e.Attempt, e.Fence, e.Active, e.Done, e.Failures, e.Losses, e.Error)
	}
	return b.String()
}

// jobJSON is a job as text, not by way of sheaf.Job: the golden log must not change with it.
func jobJSON(t *testing.T, options []string) []byte {
	t.Helper()
	retry := map[string]any{"attempts": 3, "delay": "0s", "backoff": sheaf.BackoffExponential, "max_delay": "1m", "other_node": true}
	failure := map[string]any{"tolerate": 0}
	job := map[string]any{"name": "job", "type": sheaf.JobBatch, "namespace": "default", "priority": 50, "count": 3, "retry": retry, "failure": failure,
		"task": map[string]any{"name": "t", "driver": "mock", "kill_timeout": "5s"}}
	var exits, outputs []any
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "count":
			job[k] = number(v)
		case "attempts":
			retry[k] = number(v)
		case "tolerate", "stop_after":
			failure[k] = v
		case "timeout", "namespace", "name":
			job[k] = v
		case "secret":
			job["task"].(map[string]any)["secrets"] = []any{map[string]any{"name": v, "env": "V"}}
		case "registry":
			job["task"].(map[string]any)["config"] = map[string]any{"registry_secret": v}
		case "delay":
			retry[k] = v
		case "ops":
			delete(job, "count")
			job["type"] = sheaf.JobOps
		case "only":
			job["constraints"] = []any{map[string]any{"attribute": "${node.name}", "operator": "regexp", "value": v}}
		case "after":
			job[k] = strings.Split(v, ",")
		case "reads":
			var inputs []any
			for i, of := range strings.Split(v, ",") {
				inputs = append(inputs, map[string]any{"name": fmt.Sprint("in", i), "source": "job://" + of, "mount": fmt.Sprint("/in", i)})
			}
			job["inputs"] = inputs
		case "parallelism":
			job[k] = map[string]any{"constant": number(v)}
		case "coefficient":
			job["parallelism"] = map[string]any{k: json.Number(v)}
		case "env":
			job["task"].(map[string]any)["env"] = map[string]any{"E": v}
		case "reuse":
			job[k] = true
		case "reduce":
			job[k] = map[string]any{"name": "sum", "task": map[string]any{"name": "s", "driver": "mock"}, "outputs": []any{map[string]any{"name": "p", "path": "/p"}}}
		case "held", "rerun": // of the command, not of the job
		case "exit":
			code, action, _ := strings.Cut(v, ":")
			exits = append(exits, map[string]any{"codes": []uint32{number(code)}, "action": action})
		case "split":
			delete(job, "count")
			job[k] = map[string]any{"glob": "/*", "batch_size": 1}
		case "allow_empty":
			job["split"].(map[string]any)[k] = true
		case "publish":
			job["publish"] = map[string]any{"to": "s3://b/p"}
		case "outputs":
			outputs = append(outputs, map[string]any{"name": "out", "path": "/out", "merge": sheaf.MergeUnion, "on_conflict": sheaf.ConflictError})
		default:
			t.Fatalf("no option %q", k)
		}
	}
	failure["on_exit"], job["outputs"] = exits, outputs
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// adoption reads "adopt R 1 A:0-2=4 B:3=0".
// conflict reads "conflict R OUTPUT PATH 0 1 [other]".
func (s *script) conflict(f []string) *fsm.NoteConflict {
	c := &fsm.NoteConflict{Run: f[1], Output: f[2], Path: []byte(f[3]), First: number(f[4]), Second: number(f[5])}
	digest := func(p uint32) []byte {
		d := make([]byte, 32)
		if r := s.snap().Run(sheaf.RunID(f[1])); r != nil && r.Partitions != nil && int(p) < r.Partitions.Len() {
			if m, ok := s.snap().Origin(r, int(p)); ok && len(f) == 6 {
				copy(d, m.Row.Output[:])
			}
		}
		return d
	}
	c.FirstDigest, c.SecondDigest = digest(c.First), digest(c.Second)
	return c
}

func adoption(t *testing.T, f []string) *fsm.AdoptOutputs {
	c := &fsm.AdoptOutputs{Run: f[1], SplitAttempt: number(f[2]), Done: true}
	for _, x := range f[3:] {
		if x == "more" {
			c.Done = false
			continue
		}
		source, what, _ := strings.Cut(x, ":")
		at, as, _ := strings.Cut(what, "=")
		first, count := ranges(t, at)
		c.Sources = append(c.Sources, &fsm.AdoptOutputs_Source{Run: source, First: first, Count: count, MadeAs: []uint32{number(as)}})
	}
	return c
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		panic(fmt.Sprintf("%q is no number", s))
	}
	return uint32(n)
}

func text(s, otherwise string) []byte {
	if s == "" {
		s = "chunk " + otherwise
	}
	return []byte(s)
}

func ranges(t *testing.T, s string) (first, count []uint32) {
	t.Helper()
	r, err := sheaf.ParseRanges(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r {
		first = append(first, uint32(x.First))
		count = append(count, uint32(x.Last-x.First+1))
	}
	return first, count
}

// executions reads "0@1"; "split@1" and "merge@1" name those.
func executions(run string, items []string) []*wire.Executions {
	var out []*wire.Executions
	for _, item := range items {
		p, a, _ := strings.Cut(item, "@")
		kind, at := wire.Kind_KIND_PARTITION, 0
		switch p {
		case "split":
			kind = wire.Kind_KIND_SPLIT
		case "merge":
			kind = wire.Kind_KIND_MERGE
		case "reduce":
			kind = wire.Kind_KIND_REDUCE
		default:
			at = int(number(p))
		}
		if len(out) == 0 || out[len(out)-1].Kind != kind {
			out = append(out, &wire.Executions{Run: run, Kind: kind})
		}
		state.AppendExecution(out[len(out)-1], at, number(a))
	}
	return out
}
