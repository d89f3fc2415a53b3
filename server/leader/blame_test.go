package leader

import (
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// TestFailuresOutlastTheirRun: what results say of nodes is remembered when their run is over, whether the
// failures were the nodes' doing or turned out to be; what was answered otherwise counts for nothing.
func TestFailuresOutlastTheirRun(t *testing.T) {
	const committed, recorded, superseded = wire.Verdict_VERDICT_COMMITTED, wire.Verdict_VERDICT_RECORDED, wire.Verdict_VERDICT_SUPERSEDED
	now := time.Unix(1_000_000, 0)
	tr := newTracker()
	end := func(run, node string, first, n uint32, kind sheaf.FailureKind, v wire.Verdict) (counted bool) {
		res, a := &wire.Results{Run: run, Node: node}, &wire.Answers{}
		for p := first; p < first+n; p++ {
			res.Partition, res.Attempt = append(res.Partition, p), append(res.Attempt, 1)
			res.Failure, a.Verdict = append(res.Failure, byte(kind)), append(a.Verdict, byte(v))
		}
		return tr.ended(res, a, now)
	}
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		end("r", n, 100, 20, sheaf.FailNone, committed)
	}
	for _, c := range []struct {
		node    string
		kind    sheaf.FailureKind
		verdict wire.Verdict
		counted bool
	}{
		{"a", sheaf.FailStage, recorded, true},
		{"b", sheaf.FailExit, recorded, false}, // not yet
		{"c", sheaf.FailDriver, superseded, false},
		{"d", sheaf.FailPrepare, recorded, true}, // one, for all that waited for it
	} {
		if got := end("r", c.node, 0, 15, c.kind, c.verdict); got != c.counted {
			t.Errorf("failures (%v, %v) on node %s were counted: %t", c.kind, c.verdict, c.node, got)
		}
	}
	if !end("r", "e", 0, 15, sheaf.FailNone, committed) {
		t.Error("failures of partitions that succeeded elsewhere were not counted")
	}
	tr.forget("r")
	got := tr.avoided(now)
	if len(got) != 2 || !strings.Contains(got["a"].Why, "15 failed") || !strings.Contains(got["b"].Why, "15 failed") {
		t.Errorf("%+v", got)
	}
	tr.lost("a")
	tr.gone("a", now)
	for range 9 {
		tr.unprepared("s", "d", now)
		tr.forget("s")
	}
	if got := tr.avoided(now.Add(time.Second)); len(got) != 3 || !strings.Contains(got["a"].Why, "was lost") || !strings.Contains(got["d"].Why, "made ready") {
		t.Errorf("%+v", got)
	}
}
