// Package reuse compares a run with earlier runs of its job: which of its partitions read the
// same as one that was committed, and why each of the others runs. It reads manifests by
// their fingerprints and holds a bounded piece of them; what becomes of what it finds is
// decided by the state machine.
package reuse

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// blockLen is how many partitions of a run are compared at a time, with a pass over the
	// earlier manifests each: some 60 MB.
	blockLen = 1 << 20
	// maxSources is how many earlier runs are looked at, the newest first. One that took over most of what
	// it has stands for those before it; only what is in none of so many runs is made again.
	maxSources = 32
)

// Match is partitions of the run that read what partitions of an earlier run have read, in the same order.
type Match struct {
	Source *state.Run
	First  uint32
	Count  uint32
	MadeAs uint32 // the source's partition that read what First reads
}

// Chunks reads the chunks of manifests.
type Chunks interface {
	Chunk(r *state.Run, seq int) ([]byte, error)
}

// Key is the digest of what, beside its shards, a run's outputs depend on.
func Key(r *state.Run) [32]byte { return sheaf.TaskKey(Facts(r)) }

// Facts are what Key is made of.
func Facts(r *state.Run) []sheaf.TaskFact {
	return sheaf.TaskFacts(r.Job, r.Image, int(r.Manifest.Partitions))
}

// Earlier are the runs of a job whose manifests can be compared with, made before the given run, or all
// where that is nil: the newest first.
func Earlier(snap *state.Snapshot, namespace, name string, before *state.Run) []*state.Run {
	var all []*state.Run
	for r := range snap.RunsOfJob(namespace, name) {
		if before != nil && r.Created >= before.Created {
			break
		}
		if r.Job.Reuse && r.Manifest.Sealed && r.Partitions != nil {
			all = append([]*state.Run{r}, all...)
		}
	}
	return all
}

// Sources are those of the earlier runs that have outputs of the same task.
func Sources(earlier []*state.Run, key [32]byte) []*state.Run {
	var all []*state.Run
	for _, r := range earlier {
		if c := r.Counts(); c.Succeeded+c.Reused > 0 && Key(r) == key && len(all) < maxSources {
			all = append(all, r)
		}
	}
	return all
}

// Compare finds what can be taken over for a run that was just split and hands it to yield, ascending, a
// block of partitions at a time. A partition that several sources have made is the newest's.
func Compare(ctx context.Context, chunks Chunks, snap *state.Snapshot, r *state.Run, yield func([]Match) error) error {
	sources := Sources(Earlier(snap, r.Job.Namespace, r.Job.Name, r), Key(r))
	if len(sources) == 0 {
		return nil
	}
	n := int(r.Manifest.Partitions)
	for first := 0; first < n; first += blockLen {
		b := newBlock(first, min(blockLen, n-first))
		if err := prints(ctx, chunks, r, first, b.len(), b.want); err != nil {
			return err
		}
		for _, source := range sources {
			if b.left == 0 {
				break
			}
			b.begin(source)
			err := prints(ctx, chunks, source, 0, int(source.Manifest.Partitions), func(q int, f shard.Fingerprint) bool {
				b.offer(snap, q, f)
				return b.left > 0
			})
			if err != nil {
				return err
			}
		}
		if err := yield(b.matches()); err != nil {
			return err
		}
	}
	return nil
}

// prints calls f for the fingerprints of a run's partitions, in order, until f says no. A manifest
// without fingerprints has none.
func prints(ctx context.Context, chunks Chunks, r *state.Run, first, count int, f func(int, shard.Fingerprint) bool) error {
	if count == 0 {
		return nil
	}
	for seq := r.ChunkOf(first); seq < len(r.Manifest.Chunks) && int(r.Manifest.Chunks[seq].First) < first+count; seq++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := chunks.Chunk(r, seq)
		if err != nil {
			return err
		}
		at, some, err := shard.Fingerprints(data)
		if err != nil {
			return fmt.Errorf("chunk %d of the manifest of run %s: %w", seq, r.ID, err)
		}
		for i, p := range some {
			if at+i >= first && at+i < first+count && !f(at+i, p) {
				return nil
			}
		}
	}
	return nil
}

// block is some partitions of a run in a row, and who has made what they read.
type block struct {
	first   int
	left    int                          // wanted, and not found yet
	wanted  map[shard.Fingerprint]uint32 // the first partition of the block that has it, plus 1
	again   map[uint32]uint32            // of partitions with the same fingerprint the next, plus 1
	sources []*state.Run
	found   []found // by place in the block
}

// found is where a partition was made: the place in sources plus 1, and the partition there.
type found struct{ source, as uint32 }

func newBlock(first, n int) *block {
	return &block{first: first, wanted: make(map[shard.Fingerprint]uint32, n), again: map[uint32]uint32{}, found: make([]found, n)}
}

func (b *block) len() int { return len(b.found) }

func (b *block) want(p int, f shard.Fingerprint) bool {
	at := uint32(p - b.first)
	if same, ok := b.wanted[f]; ok {
		b.again[at] = same
	}
	b.wanted[f] = at + 1
	b.left++
	return true
}

func (b *block) begin(source *state.Run) { b.sources = append(b.sources, source) }

// offer says that partition q of the newest source has the fingerprint.
func (b *block) offer(snap *state.Snapshot, q int, f shard.Fingerprint) {
	at := b.wanted[f]
	for at > 0 && b.found[at-1].source > 0 {
		at = b.again[at-1]
	}
	if at == 0 || !snap.Available(b.sources[len(b.sources)-1], q) {
		return
	}
	for ; at > 0; at = b.again[at-1] {
		if b.found[at-1].source == 0 {
			b.found[at-1] = found{uint32(len(b.sources)), uint32(q)}
			b.left--
		}
	}
}

// matches joins what was found into ranges.
func (b *block) matches() []Match {
	var all []Match
	for i, f := range b.found {
		if f.source == 0 {
			continue
		}
		p, source := uint32(b.first+i), b.sources[f.source-1]
		if n := len(all) - 1; n >= 0 && all[n].Source == source && all[n].First+all[n].Count == p && all[n].MadeAs+all[n].Count == f.as {
			all[n].Count++
			continue
		}
		all = append(all, Match{source, p, 1, f.as})
	}
	return all
}
