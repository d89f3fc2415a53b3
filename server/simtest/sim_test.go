package simtest

import (
	"flag"
	"testing"
)

var (
	seeds = flag.Int("seeds", 200, "how many seeds TestSeeds runs")
	seed  = flag.Int64("seed", -1, "the one seed that TestSeeds runs")
)

// TestSeeds runs many simulations; each checks itself after every command.
func TestSeeds(t *testing.T) {
	first, n := uint64(0), *seeds
	if *seed >= 0 {
		first, n = uint64(*seed), 1
	}
	var all Outcome
	for s := first; s < first+uint64(n); s++ {
		out, err := Run(s)
		if err != nil {
			t.Fatal(err)
		}
		if out.Commands < minCommands || out.Crashes < 1 || out.Duplicates < 1 {
			t.Fatalf("seed %d proves too little: %+v", s, out)
		}
		if p, ok := out.History.Linearizable(); !ok {
			t.Fatalf("seed %d: the history of partition %s is not linearizable", s, p)
		}
		all.Commands += out.Commands
		all.Commits += out.Commits
		all.Merges += out.Merges
		all.Reduces += out.Reduces
		all.Crashes += out.Crashes
		all.Duplicates += out.Duplicates
		all.Losses += out.Losses
		all.Backups += out.Backups
		all.TakenBack += out.TakenBack
		all.Retries += out.Retries
		all.Invalid += out.Invalid
		all.Restores += out.Restores
		all.Changes += out.Changes
		all.Bounded += out.Bounded
		all.Ops += out.Ops
		all.Let += out.Let
		all.Adopted += out.Adopted
		all.Unchanged += out.Unchanged
		all.Published += out.Published
		all.Inherited += out.Inherited
	}
	t.Logf("%d seeds: %d commands, %d commits, %d merges, %d crashes, %d duplicates, %d losses, %d backups, %d taken back, %d retries, %d outputs made again, %d restores, %d changes, %d bounded placements, %d on given nodes, %d let go, %d taken over, %d results unchanged, %d published, %d of them begun by an earlier attempt",
		n, all.Commands, all.Commits, all.Merges, all.Crashes, all.Duplicates, all.Losses, all.Backups, all.TakenBack, all.Retries, all.Invalid, all.Restores, all.Changes, all.Bounded, all.Ops, all.Let, all.Adopted, all.Unchanged, all.Published, all.Inherited)
	if *seed < 0 {
		for what, n := range map[string]int{"commits": all.Commits, "merges": all.Merges, "reduces": all.Reduces, "losses": all.Losses, "backups": all.Backups, "taken back": all.TakenBack, "retries": all.Retries, "outputs made again": all.Invalid, "restores": all.Restores,
			"changes": all.Changes, "bounded placements": all.Bounded, "placements on given nodes": all.Ops, "runs let go": all.Let, "outputs taken over": all.Adopted, "unchanged results": all.Unchanged, "results published": all.Published, "publications inherited": all.Inherited} {
			if n == 0 {
				t.Errorf("no seed had any %s", what)
			}
		}
	}
}
