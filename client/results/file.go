package results

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// pageOutputs is how many outputs the servers are asked for at once: files of one shard lie
	// in partitions near each other.
	pageOutputs = 1024
	// maxPages is how many such lists are kept of one result.
	maxPages = 16
	// pageLife is how long one is good for: its tokens last three times as long, and outputs move.
	pageLife = datatoken.Lifetime / 3
)

// place is where the output of a partition lies: on a node, as a partition of the run that made it.
type place struct {
	node      sheaf.NodeID
	run       sheaf.RunID
	partition int
	attempt   uint32
	token     []byte
}

// page is a list of the servers.
type page struct {
	first, last int // partitions
	at          time.Time
	outs        *wire.Outputs
}

// pages are those that were read last.
type pages struct {
	mu   sync.Mutex
	list []page // the newest last
}

// locate says where the output of a partition lies; with again the servers are asked in any case.
func (x *result) locate(ctx context.Context, partition int, again bool) (place, error) {
	x.pages.mu.Lock()
	defer x.pages.mu.Unlock()
	x.pages.list = slices.DeleteFunc(x.pages.list, func(p page) bool {
		return time.Since(p.at) > pageLife || again && p.first <= partition && partition <= p.last
	})
	for _, p := range x.pages.list {
		if p.first <= partition && partition <= p.last {
			return x.in(p, partition)
		}
	}
	outs, err := x.ask(ctx, &wire.ReadOutputsRequest{From: uint32(partition), Most: pageOutputs})
	if err != nil {
		return place{}, err
	}
	n := len(outs.Partition)
	if len(outs.Attempt) != n || len(outs.Node) != n || len(outs.MadeBy) != len(outs.MadeAs) || len(outs.MadeBy) != 0 && len(outs.MadeBy) != n || len(outs.Tokens) != len(outs.Runs) {
		return place{}, fmt.Errorf("the servers' list of outputs of run %s has columns of different lengths", x.run)
	}
	if n == 0 {
		return place{}, x.gone(partition)
	}
	p := page{partition, int(outs.Partition[n-1]), time.Now(), outs}
	if len(x.pages.list) == maxPages {
		x.pages.list = x.pages.list[1:]
	}
	x.pages.list = append(x.pages.list, p)
	return x.in(p, partition)
}

func (x *result) gone(partition int) error {
	return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("run %s has the output of partition %d no more", x.run, partition), Hint: fmt.Sprintf("`agent job retry -lost %s` makes it again", x.run)}
}

// in is the place of a partition in a list that may hold it.
func (x *result) in(p page, partition int) (place, error) {
	outs := p.outs
	i, found := slices.BinarySearch(outs.Partition, uint32(partition))
	if !found || int(outs.Node[i]) >= len(outs.Nodes) {
		return place{}, x.gone(partition)
	}
	at := place{sheaf.NodeID(outs.Nodes[outs.Node[i]]), x.run, partition, outs.Attempt[i], outs.GetToken()}
	if len(outs.MadeBy) > 0 && outs.MadeBy[i] > 0 {
		by := int(outs.MadeBy[i]) - 1
		if by >= len(outs.Runs) {
			return place{}, x.gone(partition)
		}
		at.run, at.partition, at.token = sheaf.RunID(outs.Runs[by]), int(outs.MadeAs[i]), outs.Tokens[by]
	}
	return at, nil
}

// open reads a part of a file from an offset on, here or on the node that has it. One that has moved meanwhile is
// looked for again.
func (x *result) open(ctx context.Context, f *sheaf.File, p sheaf.Part, offset, length int64) (io.ReadCloser, error) {
	at, err := x.locate(ctx, p.Partition, false)
	if err != nil {
		return nil, err
	}
	r, err := x.read(ctx, at, f, p, offset, length)
	if err == nil || ctx.Err() != nil {
		return r, err
	}
	if at, err = x.locate(ctx, p.Partition, true); err != nil {
		return nil, err
	}
	return x.read(ctx, at, f, p, offset, length)
}

func (x *result) read(ctx context.Context, at place, f *sheaf.File, p sheaf.Part, offset, length int64) (io.ReadCloser, error) {
	if at.attempt != p.Attempt {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("partition %d of run %s was made again: its result is another now", p.Partition, x.run), Hint: "submit the job again: it reads the newest result"}
	}
	name := cmp.Or(p.Path, f.Path)
	if at.node == x.reader.Node {
		st, err := x.reader.Stores(at.run)
		if err != nil {
			return nil, err
		}
		return st.OpenFile(store.Key{Partition: at.partition, Attempt: at.attempt}, f.Output, name, offset, length)
	}
	peer, done, err := x.reader.Peer(at.node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(datatoken.With(ctx, at.token))
	r := &far{node: at.node, end: func() { cancel(); done() }}
	stream, err := peer.ReadFile(ctx, &wire.ReadFileRequest{Run: string(at.run), Partition: uint32(at.partition), Attempt: at.attempt, Output: f.Output, Path: []byte(name), Offset: uint64(offset), Length: uint64(length)})
	if err != nil {
		r.end()
		return nil, failed("read from node "+string(at.node), err)
	}
	r.recv = stream.Recv
	// The first piece tells whether it is there.
	if r.err = r.more(); r.err != nil && !errors.Is(r.err, io.EOF) {
		r.end()
		return nil, r.err
	}
	return r, nil
}

// far is a file that comes from another node.
type far struct {
	node sheaf.NodeID
	recv func() (*wire.FilePiece, error)
	end  func()
	rest []byte
	err  error
}

func (r *far) more() error {
	p, err := r.recv()
	if err != nil && !errors.Is(err, io.EOF) {
		if status.Code(err) == codes.Canceled {
			return err
		}
		return failed("read from node "+string(r.node), err)
	}
	r.rest = p.GetData()
	return err
}

func (r *far) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.more()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *far) Close() error {
	r.end()
	return nil
}
