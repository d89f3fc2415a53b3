package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/merge"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// noFiles is the digest of an empty manifest, which need not be read.
var noFiles = output.Digest(nil)

// partitions reads the manifests of what the servers froze for this merge, in
// order. A stream that breaks is taken up again behind the last partition.
func (m *Merge) partitions(ctx context.Context) iter.Seq2[merge.Partition, error] {
	return func(yield func(merge.Partition, error) bool) {
		from, last := uint32(0), uint32(0)
		var since time.Time // of the first failure to read the output that is next
		for {
			done, err := m.readFrom(ctx, &from, yield)
			if done {
				return
			}
			if from > last {
				last, since = from, time.Time{}
			}
			var u *unread
			switch {
			case ctx.Err() != nil:
				err = ctx.Err()
			case errors.As(err, &u) && u.patient(&since):
				if err = pause(ctx); err == nil {
					continue
				}
			case errors.As(err, &u):
				err = u.error
			case status.Code(err) == codes.Aborted:
				err = ErrSuperseded
			case !final(err) && status.Code(err) != codes.Unknown:
				if err = pause(ctx); err == nil {
					continue
				}
			}
			yield(merge.Partition{}, err)
			return
		}
	}
}

// readFrom reads one stream of outputs, from *from on. Done means that the end
// was reached or the reader has had enough.
func (m *Merge) readFrom(ctx context.Context, from *uint32, yield func(merge.Partition, error) bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leader, _, err := m.Leader(ctx)
	if err != nil {
		return false, err
	}
	stream, err := leader.ReadOutputs(ctx, m.request(*from))
	if err != nil {
		return false, err
	}
	for {
		outs, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if len(outs.Attempt) != len(outs.Partition) || len(outs.Node) != len(outs.Partition) || len(outs.Digest) != 32*len(outs.Partition) {
			return false, status.Error(codes.InvalidArgument, "the servers' list of outputs has columns of different lengths")
		}
		if done, err := m.readBatch(ctx, outs, from, yield); done || err != nil {
			return done, err
		}
	}
}

// origin is where outputs lie: a node, and the run there that made them.
type origin struct{ node, run uint32 } // places in the message; run 0 is the one that is merged

// readBatch reads the manifests of one message, those of each origin in one pass. Done
// means that the reader has had enough.
func (m *Merge) readBatch(ctx context.Context, outs *wire.Outputs, from *uint32, yield func(merge.Partition, error) bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spans := map[origin][]store.Span{}
	var order []origin
	for i, p := range outs.Partition {
		o, as := madeAs(outs, i)
		if int(o.node) >= len(outs.Nodes) || int(o.run) > len(outs.Runs) {
			return false, status.Errorf(codes.InvalidArgument, "partition %d is said to lie on a node, or to be of a run, that is not named", p)
		}
		if [32]byte(outs.Digest[32*i:]) == noFiles {
			continue
		}
		list := spans[o]
		if k := len(list) - 1; k >= 0 && list[k].Attempt == outs.Attempt[i] && list[k].First+list[k].Count == as {
			list[k].Count++
			continue
		}
		if list == nil {
			order = append(order, o)
		}
		spans[o] = append(list, store.Span{First: as, Count: 1, Attempt: outs.Attempt[i]})
	}
	next := map[origin]func() (store.Record, error, bool){}
	for _, o := range order {
		records, err := m.records(ctx, outs, o, spans[o])
		if err != nil {
			return false, err
		}
		pull, stop := iter.Pull2(records)
		defer stop()
		next[o] = pull
	}
	for i, p := range outs.Partition {
		part := merge.Partition{Index: int(p), Attempt: outs.Attempt[i], Node: sheaf.NodeID(outs.Nodes[outs.Node[i]])}
		if digest := [32]byte(outs.Digest[32*i:]); digest != noFiles {
			o, as := madeAs(outs, i)
			files, err := m.manifestOf(next[o], part, m.runOf(outs, o), as, digest)
			if err != nil {
				return false, err
			}
			part.Files = files
		}
		if o, as := madeAs(outs, i); o.run > 0 {
			m.made.add(int(p), as, m.runOf(outs, o))
		}
		if !yield(part, nil) {
			return true, nil
		}
		*from = p + 1
	}
	return false, nil
}

// madeAs is where item i of a message comes from, and as which partition.
func madeAs(outs *wire.Outputs, i int) (origin, int) {
	if len(outs.MadeBy) != len(outs.Partition) || len(outs.MadeAs) != len(outs.Partition) {
		return origin{node: outs.Node[i]}, int(outs.Partition[i])
	}
	return origin{outs.Node[i], outs.MadeBy[i]}, int(outs.MadeAs[i])
}

func (m *Merge) runOf(outs *wire.Outputs, o origin) sheaf.RunID {
	if o.run == 0 {
		return m.Run
	}
	return sheaf.RunID(outs.Runs[o.run-1])
}

// records reads the records of one origin.
func (m *Merge) records(ctx context.Context, outs *wire.Outputs, o origin, spans []store.Span) (iter.Seq2[store.Record, error], error) {
	run, node := m.runOf(outs, o), sheaf.NodeID(outs.Nodes[o.node])
	if node != m.Node {
		if o.run > 0 && len(outs.Tokens) == len(outs.Runs) {
			ctx = datatoken.With(ctx, outs.Tokens[o.run-1])
		} else {
			ctx = datatoken.With(ctx, outs.GetToken())
		}
		return m.remote(ctx, node, run, spans), nil
	}
	if o.run == 0 {
		return m.Store.Records(spans), nil
	}
	st, err := m.Stores(run)
	if err != nil {
		return nil, fmt.Errorf("open the outputs of run %s: %w", run, err)
	}
	return st.Records(spans), nil
}

// patience is how long an output is tried that its node does not give although the
// servers hold it to be there: longer than they wait before they have it made again.
const patience = 10 * time.Minute

// patient reports whether to try again.
func (u *unread) patient(since *time.Time) bool {
	if since.IsZero() {
		*since = time.Now()
	}
	return time.Since(*since) < patience
}

// unread is why an output could not be read. Its node may come back, or say that
// it lacks it: then the servers have it made again, and this attempt is superseded.
type unread struct{ error }

func (u *unread) Unwrap() error { return u.error }

// manifestOf gives the files of an output, whose manifest must be the one that was committed. What
// another node gives has been checked there: if it differs, that node has committed what it does not have, and trying again is no use.
func (m *Merge) manifestOf(next func() (store.Record, error, bool), want merge.Partition, run sheaf.RunID, as int, digest [32]byte) ([]sheaf.File, error) {
	of := func(err error) error {
		return fmt.Errorf("output of partition %d (attempt %d, node %s): %w", want.Index, want.Attempt, want.Node, err)
	}
	here := want.Node == m.Node
	rec, err, ok := next()
	if err == nil && (!ok || rec.Partition != as || rec.Attempt != want.Attempt) {
		err = errors.New("its node does not have it any more")
	}
	lacks := store.Lacks(err)
	if err == nil && output.Digest(rec.Manifest) != digest {
		err = errors.New("its manifest is not the one that was committed")
		if !here {
			return nil, of(err)
		}
		lacks = err.Error()
	}
	if lacks != "" && here {
		m.Lacks(run, as, want.Attempt, lacks)
	}
	if err != nil {
		return nil, &unread{of(err)}
	}
	decoded, err := output.Decode(rec.Manifest)
	if err != nil {
		return nil, &unread{of(err)}
	}
	return decoded.Files, nil
}

// remote reads records from another node.
func (m *Merge) remote(ctx context.Context, id sheaf.NodeID, run sheaf.RunID, spans []store.Span) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		peer, done, err := m.Peer(id)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		defer done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		req := &wire.ReadRecordsRequest{Run: string(run)}
		for _, s := range spans {
			req.First, req.Count, req.Attempt = append(req.First, uint32(s.First)), append(req.Count, uint32(s.Count)), append(req.Attempt, s.Attempt)
		}
		stream, err := peer.ReadRecords(ctx, req)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(store.Record{}, err)
				return
			}
			rec := store.Record{Partition: int(r.GetPartition()), Attempt: r.GetAttempt(), ExitCode: r.GetExitCode(), Manifest: r.GetManifestJson()}
			if !yield(rec, nil) {
				return
			}
		}
	}
}
