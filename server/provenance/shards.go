package provenance

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Chunks reads the chunks of manifests.
type Chunks interface {
	Chunk(r *state.Run, seq int) ([]byte, error)
}

// Read is what a partition reads: its first atoms, and how many there are.
type Read struct {
	Partition int
	Key       string
	Atoms     []sheaf.Atom
	Total     int
}

// Shards calls yield for each of the run's partitions first to first+count-1, in order, with at most
// `most` of its atoms. It holds the chunks of these partitions.
func Shards(ctx context.Context, chunks Chunks, r *state.Run, first, count, most int, yield func(Read) error) error {
	if !r.Job.Splits() || len(r.Job.Inputs) == 0 {
		atoms := atomsOf(shard.Whole(r.Job.Inputs))
		for i := range count {
			if err := yield(Read{Partition: first + i, Atoms: atoms[:min(len(atoms), most)], Total: len(atoms)}); err != nil {
				return err
			}
		}
		return nil
	}
	if end := first + count; !r.Manifest.Sealed || first < 0 || count < 1 || end > int(r.Manifest.Partitions) {
		return &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("run %s has %d partitions in its manifest, and %d+%d were asked for", r.ID, r.Manifest.Partitions, first, count)}
	}
	index := r.Manifest.Chunks
	from, to := shard.SelectFunc(len(index), func(i int) shard.Extent {
		return shard.Extent{First: int(index[i].First), Count: int(index[i].Count)}
	}, first, count)
	data := make([][]byte, 0, to-from)
	for seq := from; seq < to; seq++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := chunks.Chunk(r, seq)
		if err != nil {
			return err
		}
		data = append(data, b)
	}
	return shard.Scan(data, first, count, func(v *shard.View) error {
		read := Read{Partition: v.Index, Key: v.Key, Total: len(v.Atoms)}
		for i := range v.Atoms[:min(len(v.Atoms), most)] {
			a := &v.Atoms[i]
			read.Atoms = append(read.Atoms, sheaf.Atom{Path: a.Path, Input: a.Input, Size: a.Size, Dir: a.Dir, Identity: a.Identity()})
		}
		return yield(read)
	})
}

func atomsOf(s sheaf.Shard) []sheaf.Atom {
	var all []sheaf.Atom
	for _, a := range s.Atoms() {
		all = append(all, *a)
	}
	return all
}
