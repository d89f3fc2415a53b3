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
		return listWhole(ctx, job, sources, sink)
	}
	tree, err := source.OpenTree(job.Inputs, sources)
	if err != nil {
		return shard.Stats{}, err
	}
	defer func() { _ = tree.Close() }()
	return list(ctx, job, tree, sink)
}

// list applies the split of a job to its inputs.
func list(ctx context.Context, job *sheaf.Job, tree *source.Tree, sink func(*shard.View) error) (shard.Stats, error) {
	rule, err := shard.Compile(job)
	if err != nil {
		return shard.Stats{}, err
	}
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

// listWhole hands out the shards of a job without a split: all inputs each. They are listed only where it is to
// be known whether they are what an earlier run has read.
func listWhole(ctx context.Context, job *sheaf.Job, sources source.Config, sink func(*shard.View) error) (stats shard.Stats, err error) {
	v := shard.View{}
	switch {
	case job.Reuse && len(job.Inputs) == 0:
		v.Atoms = []shard.Atom{{Path: "/", Dir: true, Tag: shard.Nothing}} // a shard has an atom
	case job.Reuse:
		stats, v.Atoms, err = whole(ctx, job, sources)
		if err != nil {
			return shard.Stats{}, err
		}
	default:
		for _, d := range shard.Whole(job.Inputs).Data {
			for _, a := range d.Atoms {
				v.Atoms = append(v.Atoms, shard.Atom{Path: a.Path, Input: a.Input, Dir: a.Dir})
			}
		}
	}
	for _, a := range v.Atoms {
		v.Bytes += a.Size
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
	stats.Partitions, stats.Atoms = job.Count, int64(len(v.Atoms))*int64(job.Count)
	stats.Smallest, stats.Largest = v.Bytes, v.Bytes
	return stats, nil
}

// whole lists the inputs of a job, and gives each as one atom with its identity.
func whole(ctx context.Context, job *sheaf.Job, sources source.Config) (stats shard.Stats, atoms []shard.Atom, err error) {
	tree, err := source.OpenTree(job.Inputs, sources)
	if err != nil {
		return stats, nil, err
	}
	defer func() { _ = tree.Close() }()
	for _, in := range job.Inputs {
		one := *job
		one.Split = &sheaf.Split{BasePath: in.Mount, Glob: "/", BatchSize: 1}
		s, err := list(ctx, &one, tree, func(v *shard.View) error {
			atoms = append(atoms, v.Atoms...)
			return nil
		})
		if err != nil {
			return stats, nil, err
		}
		stats.Listed += s.Listed
		stats.Bytes += s.Bytes
		stats.Warnings = append(stats.Warnings, s.Warnings...)
	}
	return stats, atoms, nil
}
