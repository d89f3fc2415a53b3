package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/e2e/build"
	"github.com/sheaf-run/agent/sheaf"
)

// smokeScale makes 200 WASM partitions of the hundred thousand, and 2,000 of the million.
const smokeScale = 0.002

// TestMain is this program's share of the fleet where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) >= 2 && os.Args[1] == fleetArgument {
		if err := fleetMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSmoke runs every part at a small scale. It asks whether the work was done
// and measured, never how fast: parts fail by themselves when a partition is missing.
func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent")
	if err := build.Program(agent, build.Agent); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	b := &bench{agent: agent, scale: smokeScale, out: &out, keep: filepath.Join(dir, "profiles"), plot: filepath.Join(dir, "plot.svg")}
	results := filepath.Join(dir, "results.json")
	if _, err := b.all(t.Context(), strings.Join(smokeParts(t), ","), state, results); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	text, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	var r Results
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for key, p := range r.Promises {
		// What is the difference of two measurements may come out as nothing, or less, where there is so little to do.
		some := p.Value > 0 || slices.Contains([]string{"P7.memory", "P11.waiting", "P14", "P14.server"}, key)
		if !some || math.IsNaN(p.Value) || math.IsInf(p.Value, 0) || p.Target <= 0 {
			t.Errorf("%s: %+v, want a value and a target", key, p)
		}
	}
	checkPromises(t, r)
	if drawn, err := os.ReadFile(b.plot); err != nil || !bytes.Contains(drawn, []byte(seriesMock)) || !bytes.Contains(drawn, []byte(seriesServer)) {
		t.Errorf("the plot: %v, %s", err, drawn)
	}
	seen := map[string]Figure{}
	for _, f := range r.Figures {
		seen[f.What] = f
	}
	for what, detail := range map[string]string{
		"agent dev until ready":                                     "",
		"one no-op from submission to seen commit, median":          "2 runs",
		"no-op WASM partitions of one run, one agent":               "200 partitions",
		"mock partitions of one run, server and client apart":       "2,000 partitions",
		"submit count = 20000 until acknowledged":                   "",
		"ten partitions behind a million, until the last has begun": "on 16 slots",
		"mock partitions on 20 simulated clients, 3 servers":        "2,000 partitions",
		"work goes on after the leader's SIGKILL":                   "",
		"20 waiting runs when a node comes":                         "",
		"2000 files on disk split, median":                          "",
	} {
		f, ok := seen[what]
		if !ok || f.Value <= 0 || !strings.Contains(f.Detail, detail) {
			t.Errorf("%q: %+v, want a value and %q in its detail", what, f, detail)
		}
		if !strings.Contains(out.String(), what) {
			t.Errorf("%q is not in the table", what)
		}
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("%s holds %v afterwards (%v)", state, left, err)
	}
	for _, p := range []string{"wasm", "server", "client"} {
		if info, err := os.Stat(filepath.Join(b.keep, p+".prof")); err != nil || info.Size() == 0 {
			t.Errorf("the profile of %s: %v, %v", p, info, err)
		}
	}
}

// named are the parts that a target of the GNUmakefile runs.
func named(t *testing.T, target string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "GNUmakefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+target+":")
	rule, _, _ := strings.Cut(rest, "\n\n")
	_, rest, found := strings.Cut(rule, " -only ")
	if !found {
		t.Fatalf("make %s runs no parts:\n%s", target, rule)
	}
	return strings.Split(strings.Fields(rest)[0], ",")
}

// smokeParts are all that the targets run but what takes its own time at any scale: the benchmarks of other
// packages, and the peers.
func smokeParts(t *testing.T) []string {
	return slices.DeleteFunc(append(named(t, "bench"), named(t, "bench-scale")...), func(name string) bool {
		return name == "peers" || slices.ContainsFunc(units, func(u unit) bool { return u.part == name })
	})
}

// checkPromises: the two targets give a figure to each of the fourteen promises, by what the smaller run measured and
// what other packages' benchmarks do.
func checkPromises(t *testing.T, r Results) {
	t.Helper()
	kept := map[string]bool{}
	for key := range r.Promises {
		kept[key] = true
	}
	for _, part := range append(named(t, "bench"), named(t, "bench-scale")...) {
		for _, u := range units {
			if u.part == part {
				kept[u.key] = true
			}
		}
	}
	for i := range 14 {
		key := fmt.Sprintf("P%d", i+1)
		if key == "P14" { // a run this small ends too soon for the client's share of it
			key = "P14.server"
		}
		if !kept[key] {
			t.Errorf("nothing that make bench and make bench-scale run has a figure for %s", key)
		}
	}
}

// TestMetrics reads the output of benchmarks, and finds in the sources every benchmark that is asked for.
func TestMetrics(t *testing.T) {
	got := metrics("./x", []byte("goos: linux\nBenchmarkA/cp_-rl-2 \t 5\t 1500000 ns/op\nBenchmarkB-16 7 2.5 stage-ms 30 ns/op\nPASS\n"))
	want := map[metric]float64{{"./x", "BenchmarkA/cp_-rl", "ns/op"}: 1500000, {"./x", "BenchmarkB", "stage-ms"}: 2.5, {"./x", "BenchmarkB", "ns/op"}: 30}
	if !maps.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
	for _, u := range units {
		for _, m := range []metric{u.measured, u.limit} {
			if m == (metric{}) {
				continue
			}
			top, _, _ := strings.Cut(m.bench, "/")
			files, err := filepath.Glob(filepath.Join("..", "..", m.pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(f string) bool {
				text, err := os.ReadFile(f)
				return err == nil && bytes.Contains(text, []byte("func "+top+"(b *testing.B)"))
			}) {
				t.Errorf("%s: there is no %s in %s", u.key, top, m.pkg)
			}
		}
	}
}

// TestPromises: of several figures with one key the one that is not met counts.
func TestPromises(t *testing.T) {
	good, bad := Figure{Key: "P1", Value: 1, Target: 2, AtMost: true}, Figure{Key: "P1", Value: 3, Target: 2, AtMost: true, Limit: 1.5}
	for _, list := range [][]Figure{{good, bad}, {bad, good}, {bad, {Value: 9}}} {
		if got := promises(list); len(got) != 1 || got["P1"] != (Promise{Value: 3, Target: 2, Limit: 1.5, Ratio: 0.5}) {
			t.Errorf("of %v: %+v", list, got)
		}
	}
}

// TestGrowth sees through the ups and downs of a collected heap.
func TestGrowth(t *testing.T) {
	sawtooth := func(perRun float64) []sample {
		var s []sample
		for i := range 201 {
			done := float64(i) / 200
			s = append(s, sample{done: done, memory: 100 + perRun*done + float64((i*7)%5)*10})
		}
		return s
	}
	for _, perRun := range []float64{0, 50, -30} {
		begin, end, ok := growth(sawtooth(perRun), 0.5)
		if got, want := end-begin, perRun/2; !ok || math.Abs(got-want) > 1 {
			t.Errorf("with %v over the run, the last half grows by %v (%v), want %v", perRun, got, ok, want)
		}
	}
	if _, _, ok := growth(sawtooth(0)[:150], 0.5); ok {
		t.Error("a run without samples at its end has a growth")
	}
}

func TestMet(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want bool
	}{
		{Figure{Value: 3}, true},
		{Figure{Value: 3, Target: 3}, true},
		{Figure{Value: 2.9, Target: 3}, false},
		{Figure{Value: 3, Target: 3, AtMost: true}, true},
		{Figure{Value: 3.1, Target: 3, AtMost: true}, false},
	} {
		if c.f.Met() != c.want {
			t.Errorf("%+v is met: %v", c.f, !c.want)
		}
	}
}

// TestWhole refuses a figure for a run that left work undone.
func TestWhole(t *testing.T) {
	good := sheaf.RunSummary{RunStub: sheaf.RunStub{Status: sheaf.RunSucceeded, Partitions: sheaf.PartitionCounts{Total: 5, Succeeded: 5}}}
	if err := whole(good, 5); err != nil {
		t.Error(err)
	}
	fewer, failed := good, good
	fewer.Partitions.Succeeded = 4
	failed.Status = sheaf.RunFailed
	for _, s := range []sheaf.RunSummary{fewer, failed} {
		if whole(s, 5) == nil {
			t.Errorf("%+v counts as whole", s)
		}
	}
	if whole(good, 6) == nil {
		t.Error("a run of 5 counts as one of 6")
	}
}

func TestAmount(t *testing.T) {
	for v, want := range map[float64]string{1234567: "1,234,567 /s", 123: "123 /s", 12.34: "12.3 /s", -1234: "-1,234 /s", -123: "-123 /s"} {
		if got := amount(v, "/s"); got != want {
			t.Errorf("amount(%v) = %q, want %q", v, got, want)
		}
	}
}
