// Package split runs the split of a job on a client that reaches its inputs: it
// lists them, applies the rule, and streams the shard manifest to the servers,
// where its seal makes the partitions. A preview is the same without the
// servers. Nothing of the listing is held in memory; the manifest is spooled to a
// temporary file, from which an interrupted upload goes on.
package split

import (
	"context"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// List lists the inputs of a job and hands its shards to sink, in order. A
// job without a split gives the shards of its count. Errors are the user's, with
// the class that says so, or the source's.
func List(ctx context.Context, job *sheaf.Job, sources source.Config, sink func(*shard.View) error) (shard.Stats, error) {
	if job.Split == nil {
		return listWhole(ctx, job, sink)
	}
	rule, err := shard.Compile(job)
	if err != nil {
		return shard.Stats{}, err
	}
	tree, err := source.OpenTree(job.Inputs, sources)
	if err != nil {
		return shard.Stats{}, err
	}
	defer func() { _ = tree.Close() }()
	s := shard.NewSplitter(rule, func(v *shard.View) error {
		if v.Index >= sheaf.MaxPartitions {
			return &sheaf.Error{Class: sheaf.TooLarge, Field: "split", Msg: "the split makes more partitions than a run may have", Limit: "10000000 partitions", Hint: "raise batch_size"}
		}
		return sink(v)
	})
	if err := tree.Walk(ctx, rule.Descend, s.Add); err != nil {
		return shard.Stats{}, err
	}
	return s.Finish()
}

// listWhole hands out the shards of a job without a split: all inputs each, of
// which nothing is listed.
func listWhole(ctx context.Context, job *sheaf.Job, sink func(*shard.View) error) (shard.Stats, error) {
	v := shard.View{}
	for _, d := range shard.Whole(job.Inputs).Data {
		for _, a := range d.Atoms {
			v.Atoms = append(v.Atoms, shard.Atom{Path: a.Path, Input: a.Input, Dir: a.Dir})
		}
	}
	for i := range job.Count {
		if err := ctx.Err(); err != nil {
			return shard.Stats{}, err
		}
		v.Index = i
		if err := sink(&v); err != nil {
			return shard.Stats{}, err
		}
	}
	return shard.Stats{Partitions: job.Count, Atoms: int64(len(v.Atoms)) * int64(job.Count)}, nil
}
