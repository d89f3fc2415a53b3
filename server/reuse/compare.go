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
//
// Chunks that are byte for byte those of a source are not read at all, so that where nothing has changed no
// manifest is; the fingerprints of the others are.
func Compare(ctx context.Context, chunks Chunks, snap *state.Snapshot, r *state.Run, yield func([]Match) error) error {
	sources := Sources(Earlier(snap, r.Job.Namespace, r.Job.Name, r), Key(r))
	if len(sources) == 0 {
		return nil
	}
	printed := false
	if err := prints(ctx, chunks, r, 0, 1, func(int, shard.Fingerprint) bool { printed = true; return false }); err != nil || !printed {
		return err
	}
	n := int(r.Manifest.Partitions)
	for first := 0; first < n; first += blockLen {
		b := newBlock(snap.Origins(), first, min(blockLen, n-first))
		for _, source := range sources {
			if b.left == 0 {
				break
			}
			b.begin(source)
			if b.same(r, source); b.left == 0 {
				break
			}
			if b.wanted == nil {
				b.wanted = make(map[shard.Fingerprint]uint32, b.left)
				if err := prints(ctx, chunks, r, first, b.len(), b.want); err != nil {
					return err
				}
			}
			err := prints(ctx, chunks, source, 0, int(source.Manifest.Partitions), func(q int, f shard.Fingerprint) bool {
				b.offer(q, f)
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
	origins *state.Origins
	first   int
	left    int                          // not found yet
	wanted  map[shard.Fingerprint]uint32 // of those, the first partition of the block that has it, plus 1; nil is not read yet
	again   map[uint32]uint32            // of partitions with the same fingerprint the next, plus 1
	sources []*state.Run
	found   []found // by place in the block
}

// found is where a partition was made: the place in sources plus 1, and the partition there.
type found struct{ source, as uint32 }

func newBlock(origins *state.Origins, first, n int) *block {
	return &block{origins: origins, first: first, left: n, again: map[uint32]uint32{}, found: make([]found, n)}
}

func (b *block) len() int { return len(b.found) }

func (b *block) want(p int, f shard.Fingerprint) bool {
	at := uint32(p - b.first)
	if b.found[at].source > 0 {
		return true
	}
	if same, ok := b.wanted[f]; ok {
		b.again[at] = same
	}
	b.wanted[f] = at + 1
	return true
}

func (b *block) begin(source *state.Run) { b.sources = append(b.sources, source) }

func (b *block) find(at, q uint32) {
	b.found[at] = found{uint32(len(b.sources)), q}
	b.left--
}

// same finds the partitions that begin in chunks which the newest source has too, at the same place. A chunk
// holds the fingerprints of all that begins in it, and which partition is the first.
func (b *block) same(r, source *state.Run) {
	theirs := source.Manifest.Chunks
	for seq := r.ChunkOf(b.first); seq < min(len(r.Manifest.Chunks), len(theirs)); seq++ {
		c := &r.Manifest.Chunks[seq]
		if int(c.First) >= b.first+b.len() {
			return
		}
		if c.Digest != theirs[seq].Digest || c.First != theirs[seq].First || c.Count != theirs[seq].Count {
			continue
		}
		for p := max(int(c.First), b.first); p < min(int(c.First+c.Count), b.first+b.len()); p++ {
			if at := p - b.first; b.found[at].source == 0 && b.origins.Available(source, p) {
				b.find(uint32(at), uint32(p))
			}
		}
	}
}

// offer says that partition q of the newest source has the fingerprint.
func (b *block) offer(q int, f shard.Fingerprint) {
	at := b.wanted[f]
	for at > 0 && b.found[at-1].source > 0 {
		at = b.again[at-1]
	}
	if at == 0 || !b.origins.Available(b.sources[len(b.sources)-1], q) {
		return
	}
	for ; at > 0; at = b.again[at-1] {
		if b.found[at-1].source == 0 {
			b.find(at-1, uint32(q))
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
