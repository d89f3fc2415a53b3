package split

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxUnacked bounds the chunks on their way: 2 MiB, so that neither side
	// buffers a whole manifest.
	maxUnacked = 32
	// retryPause is the wait before a broken upload goes on.
	retryPause = 200 * time.Millisecond
)

// ErrSuperseded is returned when the servers hold this split attempt no longer
// valid: nobody waits for it.
var ErrSuperseded = errors.New("the split attempt is no longer valid")

// Upload is one split execution.
type Upload struct {
	Run     sheaf.RunID
	Attempt uint32
	Node    sheaf.NodeID
	Job     *sheaf.Job
	Sources source.Config
	Dir     string // for the spool
	// Image is the digest of the job's image or module as this node resolved it, if it did.
	Image string
	// Leader waits for the servers' leader and the session's number there.
	Leader func(ctx context.Context) (wire.ServersClient, uint64, error)
}

// Do splits and uploads. It returns nil when the manifest is sealed.
func (u *Upload) Do(ctx context.Context) error {
	sp, err := newSpool(u.Dir)
	if err != nil {
		return err
	}
	defer sp.close()
	seal := &wire.ManifestSeal{Run: string(u.Run), SplitAttempt: u.Attempt, Node: string(u.Node)}
	var userErr error // why the split failed; the upload ends by it
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		userErr = u.produce(ctx, sp, seal)
		return userErr
	})
	g.Go(func() error { return u.send(ctx, sp, seal) })
	err = g.Wait()
	if userErr != nil && !errors.Is(userErr, context.Canceled) {
		return userErr
	}
	return err
}

func (u *Upload) produce(ctx context.Context, sp *spool, seal *wire.ManifestSeal) error {
	w := shard.NewWriter(sp.add)
	if u.Job.Reuse {
		w.Prints = shard.NewFingerprinter(u.Job)
	}
	var large shard.Largest
	stats, err := List(ctx, u.Job, u.Sources, func(v *shard.View) error {
		large.Add(v.Index, v.Bytes)
		return w.Add(v)
	})
	if err != nil {
		return err
	}
	chunks, root, err := w.Close()
	if err != nil {
		return err
	}
	seal.Chunks, seal.Partitions, seal.Root = uint32(chunks), uint32(stats.Partitions), root[:]
	seal.Bytes, seal.Warnings, seal.ImageDigest, seal.Largest = uint64(stats.Bytes), stats.Warnings, u.Image, large.Partitions()
	sp.end()
	return nil
}

// send uploads from the spool until the manifest is sealed, over as many
// streams as it takes.
func (u *Upload) send(ctx context.Context, sp *spool, seal *wire.ManifestSeal) error {
	acked := 0
	for {
		err := u.sendOnce(ctx, sp, seal, &acked)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		switch status.Code(err) {
		case codes.Aborted:
			return ErrSuperseded
		case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.AlreadyExists, codes.OutOfRange:
			return fmt.Errorf("hand over the shard manifest: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

func (u *Upload) sendOnce(ctx context.Context, sp *spool, seal *wire.ManifestSeal, acked *int) error {
	leader, session, err := u.Leader(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	stream, err := leader.PutManifest(ctx)
	if err != nil {
		return err
	}
	var stored atomic.Int64
	stored.Store(int64(*acked))
	progress := make(chan struct{}, 1)
	g.Go(func() error {
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			if m.GetSealed() {
				return errSealed
			}
			stored.Store(int64(m.GetContiguous()))
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	})
	g.Go(func() error {
		for i := *acked; ; i++ {
			for i-int(stored.Load()) >= maxUnacked {
				select {
				case <-progress:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			e, data, ok, err := sp.get(ctx, i)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			m := &wire.ManifestChunk{Run: string(u.Run), SplitAttempt: u.Attempt, Sequence: uint32(i), First: e.first, Count: e.count, Data: data, Session: session, Node: string(u.Node)}
			if err := stream.Send(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Chunk{Chunk: m}}); err != nil {
				return nil // the receiving side sees why
			}
		}
		seal.Session = session
		if err := stream.Send(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Seal{Seal: seal}}); err != nil {
			return nil
		}
		return nil
	})
	err = g.Wait()
	*acked = int(stored.Load())
	if errors.Is(err, errSealed) {
		return nil
	}
	return err
}

// errSealed ends the stream's goroutines when all is done.
var errSealed = errors.New("sealed")
