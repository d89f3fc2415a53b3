package shard

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// contents are the partitions of a tree as texts.
func contents(t interface{ Fatal(...any) }, paths []string, rule sheaf.Split) []string {
	shards, _, err := split(oneInput, rule, tree(0, append(paths, "/in/")...), 1000)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range shards {
		all = append(all, text([]sheaf.Shard{s}))
	}
	return all
}

// TestStableBatchesStay guards the promise behind reuse: a file that comes or goes
// changes its own batch, and at most one beside it.
func TestStableBatchesStay(t *testing.T) {
	var paths []string
	for i := range 10_000 {
		paths = append(paths, fmt.Sprintf("/in/%05d.jpg", i*7))
	}
	rule := sheaf.Split{Glob: "/*", BatchSize: 100, Stable: true}
	before := contents(t, paths, rule)
	if n := len(before); n < 80 || n > 120 {
		t.Errorf("%d batches of 100 in average", n)
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(paths)-1).Draw(t, "at")
		changed := slices.Clone(paths)
		if rapid.Bool().Draw(t, "remove") {
			changed = slices.Delete(changed, at, at+1)
		} else {
			changed = append(changed, fmt.Sprintf("/in/%05d.jpg", at*7+rapid.IntRange(1, 6).Draw(t, "new")))
		}
		after := contents(t, changed, rule)
		fresh := slices.DeleteFunc(slices.Clone(after), func(s string) bool { return slices.Contains(before, s) })
		if len(fresh) > 2 {
			t.Fatalf("%d batches are new", len(fresh))
		}
	})
}

// TestStableCutsNeverMove: batches of runs to come must meet those of runs before.
func TestStableCutsNeverMove(t *testing.T) {
	if got := pathHash(pathHash(0, "/in/a.jpg"), "/in/b"); got != 0xf8b3fae2d7c35ed2 {
		t.Errorf("the hash of a pair of paths is %#x", got)
	}
}
