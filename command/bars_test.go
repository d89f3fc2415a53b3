package command

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

// TestLiveLinesFit: none empty, none as wide as the terminal, six at most, however narrow and however much there is to say.
func TestLiveLinesFit(t *testing.T) {
	e := &env{err: &strings.Builder{}, noColor: true}
	now := time.Unix(1000, 0)
	begun := now.Add(-time.Minute)
	low, high := sheaf.Duration(time.Minute), sheaf.Duration(time.Hour)
	slow := make([]sheaf.Partition, 5)
	for i := range slow {
		slow[i] = sheaf.Partition{Index: 1_000_000 + i, Started: &begun}
	}
	full := sheaf.RunSummary{
		RunStub: sheaf.RunStub{ID: sheaf.RunID(strings.Repeat("x", 64)), Status: sheaf.RunRunning, Partitions: sheaf.PartitionCounts{
			Total: 10_000_000, Running: 3_000_000, Succeeded: 2_000_000, Failed: 1_000_000, Reused: 1_000_000, Cancelled: 500_000, Pending: 2_500_000,
		}},
		Rate: 12345.6, Bytes: 1 << 50, ETALow: &low, ETAHigh: &high, Slowest: slow, Waiting: []string{strings.Repeat("no node can take it\x1b ", 20)},
	}
	for name, s := range map[string]sheaf.RunSummary{
		"nothing yet": {},
		"pending":     {RunStub: sheaf.RunStub{ID: "a", Status: sheaf.RunPending}},
		"begun":       {RunStub: sheaf.RunStub{ID: "a", Status: sheaf.RunRunning, Partitions: sheaf.PartitionCounts{Total: 1, Running: 1}}},
		"everything":  full,
	} {
		for _, width := range []int{20, 40, 60, 80, 200} {
			lines := e.live(s, width, now)
			if len(lines) == 0 || len(lines) > liveLines {
				t.Errorf("%s at %d columns: %d lines", name, width, len(lines))
			}
			for i, line := range lines {
				if n := utf8.RuneCountInString(line); n >= width || n == 0 && s.ID != "" || strings.ContainsAny(line, "\x1b\n") {
					t.Errorf("%s at %d columns: line %d has %d: %q", name, width, i, n, line)
				}
			}
		}
	}
}

// TestBarShares: a bar shows the shares, and no more columns than it has.
func TestBarShares(t *testing.T) {
	e := &env{err: &strings.Builder{}, noColor: true}
	got := e.bar(sheaf.RunSummary{RunStub: sheaf.RunStub{ID: "a", Status: sheaf.RunMerging, Partitions: sheaf.PartitionCounts{Total: 8, Succeeded: 2, Reused: 1, Failed: 1, Running: 2, Pending: 2}}}, 79)
	want := "a  " + strings.Repeat("█", 10) + strings.Repeat("▓", 5) + strings.Repeat("▒", 5) + strings.Repeat("░", 10) + strings.Repeat("·", 10) + "  4 of 8  merging"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestHelpHasOneDash: help shows flags as they are written.
func TestHelpHasOneDash(t *testing.T) {
	out, _, err := run(t, "job", "run", "-help")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "--") || strings.Contains(line, ", --") {
			t.Errorf("two dashes: %s", line)
		}
	}
	for _, want := range []string{"  -base-path PATH ", "  -h, -help ", "  -o DIR ", "  -json "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
