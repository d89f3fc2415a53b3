package jobspec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a source.
const (
	// MaxSource is the largest HCL source, in bytes: a person's file is a hundredth of it.
	MaxSource = 256 << 10
	// MaxJob is the largest JSON form of a job, in bytes. It leaves room in
	// the 1 MiB that a job may take in the servers' log.
	MaxJob = 768 << 10
	// maxNesting is how deep brackets may nest; the HCL parser recurses on each.
	maxNesting = 64
	// maxFor is how deep `for` may nest; each level multiplies the work.
	maxFor = 2
	// maxOperators is how many operators and steps one expression may have: each
	// is a level of recursion where the expression is evaluated.
	maxOperators = 500
	// maxExponent is the largest decimal exponent of a number literal; what is
	// beyond has as many digits when it is made text.
	maxExponent = 1000
	// maxVariables is the size of all values of variables from outside, in bytes.
	maxVariables = 256 << 10
)

// Bounds of a job's values. Each is far above what is of use, and far below
// what would make a server or a client stumble.
const (
	// MaxTimeout bounds every timeout: longer is a mistake of unit.
	MaxTimeout = 365 * 24 * time.Hour
	// MaxDelay bounds delays between tries and before a kill: a partition that
	// waits longer than a day looks like one that is lost.
	MaxDelay = 24 * time.Hour

	maxBlocks = 64 // inputs, and outputs: each is a mount of every execution
)

// span is the whole numbers that an argument takes.
type span struct{ min, max int64 }

func (s span) String() string { return grouped(s.min) + " to " + grouped(s.max) }

// spans holds the span of every whole-number argument, by its JSON path
// without indexes. Decoders and rules read the same row.
var spans = map[string]span{
	"count":                        {1, sheaf.MaxPartitions},
	"priority":                     {1, 100},
	"split.batch_size":             {1, sheaf.MaxPartitions},
	"split.partitions":             {1, sheaf.MaxPartitions},
	"parallelism.constant":         {1, sheaf.MaxPartitions},
	"task.resources.cpu":           {1, 10_000_000}, // MHz, 3,000 cores
	"task.resources.pids":          {1, 4_194_304},  // the kernel's own limit
	"task.resources.devices.count": {1, 1024},
	"retry.attempts":               {1, 100},
	"failure.on_exit.codes":        {0, 255},
	"affinities.weight":            {-100, 100},
	"multiregion.regions.count":    {1, sheaf.MaxPartitions},
}

// sizeSpan is the sizes that an argument takes.
type sizeSpan struct{ min, max sheaf.Size }

func (s sizeSpan) String() string {
	if s.max == maxSize {
		return s.min.String() + " or more"
	}
	return s.min.String() + " to " + s.max.String()
}

// thresholds is what an argument of type [sheaf.Threshold] takes.
const thresholds = "a whole number from 0, or 0% to 100%"

// maxSize is what a size can say.
const maxSize sheaf.Size = math.MaxInt64

// sizeSpans is to sizes what spans is to whole numbers.
var sizeSpans = map[string]sizeSpan{
	"split.max_bytes":       {1, maxSize},
	"task.resources.memory": {4 << 20, 64 << 40}, // a container's own process takes as much; the largest machine
	"task.resources.disk":   {1 << 20, 1 << 50},
}

func sizeSpanOf(path string) sizeSpan {
	s, ok := sizeSpans[strings.TrimPrefix(withoutIndexes(path), "reduce.")]
	if !ok {
		panic(fmt.Sprintf("jobspec: no span for size %q", path))
	}
	return s
}

// spanOf is the span of the argument at path. A task is the same task wherever it stands.
func spanOf(path string) span {
	s, ok := spans[strings.TrimPrefix(withoutIndexes(path), "reduce.")]
	if !ok {
		panic(fmt.Sprintf("jobspec: no span for %q", path))
	}
	return s
}

// withoutIndexes is path with each [n] dropped.
func withoutIndexes(path string) string {
	for {
		i := strings.IndexByte(path, '[')
		j := strings.IndexByte(path, ']')
		if i < 0 || j < i {
			return path
		}
		path = path[:i] + path[j+1:]
	}
}

// grouped writes n with commas, as people read large numbers.
func grouped(n int64) string {
	if n < 0 {
		return "-" + grouped(-n)
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
