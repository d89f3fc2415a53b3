package reuse

import (
	"context"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Why says of a partition of a run with reuse that was not taken over what spoke against it, as far as earlier runs
// that are still there tell; nothing where it is not known yet.
func Why(ctx context.Context, store Chunks, snap *state.Snapshot, r *state.Run, p int) ([]string, error) {
	switch {
	case !r.Job.Reuse || !r.Manifest.Sealed || r.Reuse.Waits || r.Partitions == nil || r.Row(p).State == sheaf.PartitionReused:
		return nil, nil
	case r.Rerun:
		return []string{"the run was to take nothing over (-rerun)"}, nil
	}
	earlier := Earlier(snap, r.Job.Namespace, r.Job.Name, r)
	if len(earlier) == 0 {
		return []string{"no earlier run of the job had reuse, or it was deleted"}, nil
	}
	d := &differ{last: earlier[0], lines: []Line{{First: p, Last: p}}, unknown: []int{0}}
	if _, again := r.TakenAt(p); again {
		return []string{"its output had been taken over, and was lost: it was made again"}, nil
	}
	tried, err := triedBefore(ctx, store, snap, r, p, earlier)
	if err != nil || tried != "" {
		return []string{tried}, err
	}
	if changed := sheaf.ChangedFacts(Facts(d.last), Facts(r)); len(changed) > 0 {
		return []string{"changed task since run " + string(d.last.ID) + ": " + strings.Join(changed, ", ")}, nil
	}
	if was := d.last.Job.Count; r.Job.Split == nil && was != r.Job.Count {
		return []string{fmt.Sprintf("changed count: it was %d in run %s", was, d.last.ID)}, nil
	}
	var chunks [][]byte
	index := r.Manifest.Chunks
	from, to := shard.SelectFunc(len(index), func(i int) shard.Extent {
		return shard.Extent{First: int(index[i].First), Count: int(index[i].Count)}
	}, p, 1)
	for seq := from; seq < to; seq++ {
		chunk, err := store.Chunk(r, seq)
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, chunk)
	}
	if err := d.atoms(ctx, store, chunks); err != nil {
		return nil, err
	}
	return d.lines[0].Reasons, nil
}

// triedBefore says what became of the same partition in earlier runs of the same task; "" is that there was none.
func triedBefore(ctx context.Context, store Chunks, snap *state.Snapshot, r *state.Run, p int, earlier []*state.Run) (why string, err error) {
	var wanted shard.Fingerprint
	known := false
	if err := prints(ctx, store, r, p, 1, func(_ int, f shard.Fingerprint) bool {
		wanted, known = f, true
		return false
	}); err != nil || !known {
		return "", err
	}
	key := Key(r)
	for n, x := range earlier {
		if n == maxSources || why != "" {
			break
		}
		if Key(x) != key {
			continue
		}
		if err := prints(ctx, store, x, 0, int(x.Manifest.Partitions), func(q int, f shard.Fingerprint) bool {
			if f != wanted {
				return true
			}
			if why = unmade(x, q); snap.Origins().Available(x, q) {
				why = fmt.Sprintf("partition %d of run %s has made the same since, or could not be reached then", q, x.ID)
			}
			return false
		}); err != nil {
			return "", err
		}
	}
	return why, nil
}

// unmade is why there is no output of a partition that read the same.
func unmade(r *state.Run, p int) string {
	switch row := r.Row(p); row.State {
	case sheaf.PartitionFailed:
		return fmt.Sprintf("failed before: partition %d of run %s", p, r.ID)
	case sheaf.PartitionSucceeded, sheaf.PartitionReused:
		return fmt.Sprintf("its output of run %s is lost", r.ID)
	default:
		return fmt.Sprintf("not done before: partition %d of run %s was %s", p, r.ID, row.State)
	}
}
