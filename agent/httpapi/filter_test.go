package httpapi

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

func TestFilters(t *testing.T) {
	run := sheaf.RunStub{ID: "a-1", Name: "a", Status: sheaf.RunFailed, Priority: 60, Partitions: sheaf.PartitionCounts{Total: 10, Failed: 2}, Submitted: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for src, want := range map[string]bool{
		``:                      true,
		`status == "failed"`:    true,
		`status != "failed"`:    false,
		`priority > 50`:         true,
		`partitions.failed > 5`: false,
		`status == "failed" && (priority < 10 || partitions.total == 10)`: true,
		`error == ""`:                         true, // which its JSON form leaves out
		`started == null`:                     true,
		`submitted == "2026-01-02T03:04:05Z"`: true,
	} {
		f, err := ParseFilter(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := f.Match(run); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", src, got, err, want)
		}
	}
	for _, bad := range []string{`status ==`, strings.Repeat("(", 5000), `[for x in y : x]`, strings.Repeat("a", 2000)} {
		if _, err := ParseFilter(bad); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%.30q passed: %v", bad, err)
		}
	}
	for _, bad := range []string{`status`, `nope == 1`, `priority + 1`, `file("/etc/shadow") == ""`} {
		f, err := ParseFilter(bad)
		if err == nil {
			_, err = f.Match(run)
		}
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%q passed: %v", bad, err)
		}
	}
}

func TestPagesCoverAListOnce(t *testing.T) {
	type item struct {
		ID string `json:"id"`
	}
	var all []item
	for i := range 25 {
		all = append(all, item{"k" + strconv.Itoa(100+i)})
	}
	for _, reverse := range []bool{false, true} {
		p := PageParams{PerPage: 4, Reverse: reverse}
		var got []item
		for {
			page, next, err := Page(t.Context(), p, slices.Values(all), func(i item) string { return i.ID })
			if err != nil || len(page) > 4 {
				t.Fatalf("page of %d: %v", len(page), err)
			}
			got = append(got, page...)
			if next == "" {
				break
			}
			p.NextToken = next
		}
		if reverse {
			slices.Reverse(got)
		}
		if !slices.Equal(got, all) {
			t.Errorf("reverse %v: got %v", reverse, got)
		}
	}
	if _, _, err := Page(t.Context(), PageParams{NextToken: "forged!"}, slices.Values(all), func(i item) string { return i.ID }); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("a forged token passed: %v", err)
	}
}

// TestAListEndsWithItsReader: a filter over all that there is goes on for nobody.
func TestAListEndsWithItsReader(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	looked := 0
	endless := func(yield func(int) bool) {
		for yield(looked) {
			if looked++; looked == 3 {
				leave()
			}
		}
	}
	if _, _, err := Page(ctx, PageParams{}, endless, strconv.Itoa); sheaf.ClassOf(err) != sheaf.TimedOut || looked > 4 {
		t.Errorf("after %d items: %v", looked, err)
	}
}

func BenchmarkFilter(b *testing.B) {
	run := sheaf.RunStub{ID: "a-1", Name: "a", Status: sheaf.RunFailed, Partitions: sheaf.PartitionCounts{Total: 10}}
	f, err := ParseFilter(`status != "failed" && partitions.total > 5`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, err := f.Match(run); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
