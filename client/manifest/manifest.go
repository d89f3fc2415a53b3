// Package manifest reads shards of a run's shard manifest from the servers. It
// reads ahead and keeps what it read encoded, so that a million partitions in
// order cost a few hundred calls and a bounded piece of memory.
package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// aheadBytes is how much is read in one call beyond what was asked for:
	// ten chunks are tens of thousands of small shards.
	aheadBytes = 640 << 10
	// aheadPartitions is how many partitions a call asks for; the reading stops
	// at aheadBytes.
	aheadPartitions = 1 << 16
	// maxKept bounds the runs of which pieces are kept.
	maxKept = 8
)

// Leader gives the servers' leader, waiting for one.
type Leader func(ctx context.Context) (wire.ServersClient, error)

// Reader reads manifests. Its methods may be called concurrently.
type Reader struct {
	leader Leader

	mu   sync.Mutex
	kept map[name]*piece
	age  uint64
}

type name struct {
	run     sheaf.RunID
	attempt uint32
}

// piece is a stretch of consecutive chunks.
type piece struct {
	chunks []chunk
	last   bool // the manifest ends with the last chunk
	age    uint64
}

type chunk struct {
	first, count uint32 // of the partitions that begin in it
	data         []byte
}

// New makes a reader.
func New(leader Leader) *Reader { return &Reader{leader: leader, kept: map[name]*piece{}} }

// Shards reads the shards first to first+count-1 of the manifest that a run's
// split attempt sealed with total partitions.
func (r *Reader) Shards(ctx context.Context, run sheaf.RunID, attempt, total, first, count uint32) ([]*sheaf.Shard, error) {
	if count == 0 || uint64(first)+uint64(count) > uint64(total) {
		return nil, &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("run %s has %d partitions, and %d+%d were assigned", run, total, first, count)}
	}
	key := name{run, attempt}
	r.mu.Lock()
	p := r.kept[key]
	if p != nil {
		r.age++
		p.age = r.age
	}
	r.mu.Unlock()
	if p == nil || !p.holds(first, count) {
		var err error
		if p, err = r.fetch(ctx, key, total, first, count); err != nil {
			return nil, fmt.Errorf("read the shards of partitions %d-%d: %w", first, first+count-1, err)
		}
		r.keep(key, p)
	}
	return p.decode(first, count)
}

// Forget drops what is kept of a run.
func (r *Reader) Forget(run sheaf.RunID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.kept {
		if k.run == run {
			delete(r.kept, k)
		}
	}
}

func (r *Reader) keep(key name, p *piece) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age++
	p.age = r.age
	r.kept[key] = p
	for len(r.kept) > maxKept {
		var oldest name
		for k, q := range r.kept {
			if o := r.kept[oldest]; o == nil || q.age < o.age {
				oldest = k
			}
		}
		delete(r.kept, oldest)
	}
}

func (r *Reader) fetch(ctx context.Context, key name, total, first, count uint32) (*piece, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where reading stops early
	leader, err := r.leader(ctx)
	if err != nil {
		return nil, err
	}
	// One more than is needed: what begins behind a partition shows that it is whole.
	asked := min(max(count+1, aheadPartitions), total-first)
	stream, err := leader.ReadManifest(ctx, &wire.ReadManifestRequest{
		Run: string(key.run), SplitAttempt: key.attempt, First: first, Count: asked,
	})
	if err != nil {
		return nil, err
	}
	p := &piece{}
	bytes := 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			p.last = first+asked == total
			break
		}
		if err != nil {
			return nil, err
		}
		p.chunks = append(p.chunks, chunk{first: m.GetFirst(), count: m.GetCount(), data: m.GetData()})
		if bytes += len(m.GetData()); bytes >= aheadBytes && p.holds(first, count) {
			break
		}
	}
	if !p.holds(first, count) {
		return nil, &sheaf.Error{Class: sheaf.Internal, Msg: "the manifest does not hold them"}
	}
	return p, nil
}

// holds reports whether all of the partitions are in p, whole: the last one is
// when another begins behind it, or nothing does.
func (p *piece) holds(first, count uint32) bool {
	if len(p.chunks) == 0 || first < p.chunks[0].first {
		return false
	}
	last := first + count - 1
	for i := len(p.chunks) - 1; i >= 0; i-- {
		c := p.chunks[i]
		if c.count == 0 {
			continue
		}
		end := c.first + c.count - 1 // the last partition that begins in p
		return last < end || last == end && p.last
	}
	return false
}

func (p *piece) decode(first, count uint32) ([]*sheaf.Shard, error) {
	index := make([]shard.Extent, len(p.chunks))
	for i, c := range p.chunks {
		index[i] = shard.Extent{First: int(c.first), Count: int(c.count)}
	}
	from, to := shard.Select(index, int(first), int(count))
	chunks := make([][]byte, 0, to-from)
	for _, c := range p.chunks[from:to] {
		chunks = append(chunks, c.data)
	}
	list, err := shard.Decode(chunks, int(first), int(count))
	if err != nil {
		return nil, fmt.Errorf("decode the shards of partitions %d-%d: %w", first, first+count-1, err)
	}
	out := make([]*sheaf.Shard, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out, nil
}
