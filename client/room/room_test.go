package room

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// TestLook: what is done about a disk of 1,000 bytes and 100 inodes that may be full to 80 of a hundred.
func TestLook(t *testing.T) {
	kept := func(sizes ...int64) (list []Kept) {
		for i, s := range sizes {
			list = append(list, Kept{sheaf.RunID(fmt.Sprint("r", i)), s, s / 10})
		}
		return list
	}
	for name, c := range map[string]struct {
		used, files int64
		cached      int64
		runs        []Kept
		want        string
	}{
		"room":                        {used: 800, files: 80, cached: 500, runs: kept(100), want: ""},
		"fetched files are enough":    {used: 850, cached: 60, runs: kept(700), want: "shrink 50"},
		"runs too":                    {used: 900, cached: 60, runs: kept(300, 500), want: "shrink 100 ask 40 0 r1 r0"},
		"exactly all":                 {used: 900, runs: kept(50, 50), want: "shrink 100 ask 100 0 r0 r1"},
		"all of it would not help":    {used: 900, runs: kept(50, 49), want: "shrink 100"},
		"nothing is here":             {used: 1000, want: "shrink 200"},
		"inodes":                      {used: 100, files: 85, runs: kept(100), want: "ask 0 5 r0"},
		"bytes help and inodes don't": {used: 900, files: 99, runs: kept(100), want: "shrink 100 ask 100 0 r0"},
	} {
		var did []string
		k := &Keeper{
			Limits:  Limits{Disk: 80, Inodes: 80},
			Measure: func() (Usage, error) { return Usage{c.used, 1000 - c.used, c.files, 100 - c.files}, nil },
			Shrink: func(n int64) (int64, error) {
				did = append(did, "shrink", fmt.Sprint(n))
				return min(n, c.cached), nil
			},
			Sizes: func(context.Context) ([]Kept, error) { return c.runs, nil },
			Ask: func(bytes, files int64, runs []Kept) {
				did = append(did, "ask", fmt.Sprint(bytes), fmt.Sprint(files))
				for _, r := range runs {
					did = append(did, string(r.Run))
				}
			},
			Logger: slog.New(slog.DiscardHandler),
		}
		if err := k.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(did, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestNoLimit(t *testing.T) {
	if bytes, files := (Limits{100, 100}).over(Usage{Bytes: 1000, Files: 10}); bytes != 0 || files != 0 {
		t.Errorf("of a full disk %d bytes and %d files must go, with no limit", bytes, files)
	}
	if bytes, files := (Limits{80, 80}).over(Usage{Bytes: 10, FreeBytes: 90}); bytes != 0 || files != 0 {
		t.Errorf("without inodes: %d, %d", bytes, files)
	}
}

func TestMeasure(t *testing.T) {
	u, err := Measure(t.TempDir())
	if err != nil || u.Bytes < 0 || u.FreeBytes <= 0 || u.Files < 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
