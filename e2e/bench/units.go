package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// unit is a promise about a part alone, which that part's own benchmark measures. Each wants the
// sources, as does this program.
type unit struct {
	part, key, what string
	measured        metric
	unit            string
	factor          float64 // of the metric's unit to that of the figure
	target          float64 // as a share of the limit where there is one
	atMost          bool
	limit           metric
	limitWhat       string
	once            bool // of a benchmark that takes long
}

// metric is one of a benchmark's values.
type metric struct{ pkg, bench, name string }

const (
	scheduling = "./server/scheduler"
	machine    = "./server/fsm"
	staging    = "./data/stage"
	merging    = "./data/output/merge"
	results    = "./data/output/result"
	containers = "./drivers/containerd"
	tails      = "./e2e/tails"
)

// units are in the order in which they are measured. Each target is that of a whole machine's.
var units = []unit{
	{part: "placement", key: "P6", what: "1,000,000 partitions planned over 1,000 nodes", measured: metric{scheduling, "BenchmarkThousandNodes", "ns/op"}, unit: "ms", factor: 1e-6, target: 50, atMost: true},
	{part: "table", key: "P7.committed", what: "10,000,000 partitions committed in random order, heap", measured: metric{machine, "BenchmarkTenMillionInRandomOrder", "heap-MB"}, unit: "MB", factor: 1, target: 1000, atMost: true, once: true},
	{part: "files", key: "P10", what: "a shard of 1,000 files staged by links", measured: metric{staging, "BenchmarkStage1000/link", "stage-ms"}, unit: "ms", factor: 1, target: 20, atMost: true,
		limit: metric{staging, "BenchmarkStage1000/linkat", "ns/op"}, limitWhat: "the links alone"},
	{part: "files", what: "a shard of 1,000 files staged by links, beside a peer", measured: metric{staging, "BenchmarkStage1000/link", "stage-ms"}, unit: "ms", factor: 1, atMost: true,
		limit: metric{staging, "BenchmarkStage1000/cp_-rl", "ns/op"}, limitWhat: "cp -rl"},
	{part: "files", key: "P10.merge", what: "100,000 outputs merged", measured: metric{merging, "BenchmarkMerge/memory", "files/s"}, unit: "/s", factor: 1, target: 0.8,
		limit: metric{results, "BenchmarkWrite/cp_-r", "files/s"}, limitWhat: "cp -r"},
	{part: "files", key: "P10.result", what: "the folder of a result of 10,000 files", measured: metric{results, "BenchmarkWrite/write", "files/s"}, unit: "/s", factor: 1, target: 0.8,
		limit: metric{results, "BenchmarkWrite/cp_-r", "files/s"}, limitWhat: "cp -r"},
	{part: "containers", key: "P4", what: "containers that do nothing", measured: metric{containers, "BenchmarkCold", "containers/s"}, unit: "/s", factor: 1, target: 0.9,
		limit: metric{containers, "BenchmarkCold", "raw/s"}, limitWhat: "containerd alone, as many at once as is best"},
	{part: "containers", key: "P4.warm", what: "programs that do nothing in kept containers", measured: metric{containers, "BenchmarkKept", "programs/s"}, unit: "/s", factor: 1, target: 0.4,
		limit: metric{containers, "BenchmarkKept", "forks/s"}, limitWhat: "fork and exec by a shell in one of them"},
	{part: "tails", key: "P12", what: "10,000 partitions of very unequal length on 100 nodes, times the ideal schedule, median of 40", measured: metric{tails, "BenchmarkTarget", "with"}, unit: "x", factor: 1, target: 1.15, atMost: true, once: true,
		limit: metric{tails, "BenchmarkTarget", "without"}, limitWhat: "nothing done about tails"},
	{part: "tails", what: "the same, the worst of 40", measured: metric{tails, "BenchmarkTarget", "with-at-most"}, unit: "x", factor: 1, atMost: true, once: true,
		limit: metric{tails, "BenchmarkTarget", "without-at-most"}, limitWhat: "nothing done about tails"},
	{part: "tails", key: "P12.extra", what: "the same, work of attempts that do not count, median of 40", measured: metric{tails, "BenchmarkTarget", "in-vain-%"}, unit: "%", factor: 1, target: 5, atMost: true, once: true},
}

// unitsOf measures the units of a part.
func unitsOf(part string) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		known := map[string]map[metric]float64{}
		for _, u := range units {
			if u.part != part {
				continue
			}
			v, err := value(ctx, known, u.measured, u.once)
			if err != nil {
				return err
			}
			f := Figure{Key: u.key, What: u.what, Value: v * u.factor, Unit: u.unit, Target: u.target, AtMost: u.atMost, LimitWhat: u.limitWhat}
			if u.limit != (metric{}) {
				if f.Limit, err = value(ctx, known, u.limit, u.once); err != nil {
					return err
				}
				if u.limit.name == "ns/op" {
					f.Limit /= 1e6 // ms
				}
				if !u.atMost {
					f.Target *= f.Limit
				}
			}
			b.add(f)
		}
		return nil
	}
}

// value runs a package's benchmark, unless it is known, and gives one of its metrics.
func value(ctx context.Context, known map[string]map[metric]float64, m metric, once bool) (float64, error) {
	top, _, _ := strings.Cut(m.bench, "/")
	if known[m.pkg+" "+top] == nil {
		rounds := "5x"
		if once {
			rounds = "1x"
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-tags", "hashicorpmetrics", "-run", "^$", "-bench", "^"+top+"$", "-benchtime", rounds, m.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("benchmark of %s: %w:\n%s", m.pkg, err, out)
		}
		known[m.pkg+" "+top] = metrics(m.pkg, out)
	}
	v, ok := known[m.pkg+" "+top][m]
	if !ok {
		return 0, fmt.Errorf("%s of %s does not tell %s", m.bench, m.pkg, m.name)
	}
	return v, nil
}

// metrics reads what go test prints: name, number of rounds, then values with their units.
func metrics(pkg string, out []byte) map[metric]float64 {
	found := map[metric]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 && strings.Trim(name[i+1:], "0123456789") == "" {
			name = name[:i] // without the number of processors
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				found[metric{pkg, name, f[i+1]}] = v
			}
		}
	}
	return found
}
