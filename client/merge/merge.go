// Package merge runs the merge of a run on a client: it reads the output
// manifests of the committed partitions in order, from the local store or from the nodes
// that hold them, merges them, keeps the merged manifest durably and has the servers seal its
// digest. It holds a bounded piece of the manifests, and moves no output bytes unless the
// result is to be published.
package merge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output/merge"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// retryPause is the wait before a call that failed for lack of a leader is made again.
const retryPause = 200 * time.Millisecond

// ErrSuperseded is returned when the servers hold this merge attempt no longer
// valid: nobody waits for it.
var ErrSuperseded = errors.New("the merge attempt is no longer valid")

// Merge is one merge execution.
type Merge struct {
	Run        sheaf.RunID
	Generation uint32
	Attempt    uint32
	Reduce     bool // it is an attempt at the reduce, which reads what a merge does: only Gather may be called
	Node       sheaf.NodeID
	Job        *sheaf.Job
	Dir        string // for what does not fit into memory
	Store      *store.Run
	// Stores gives the outputs here of another run, whose outputs this one has taken over.
	Stores func(run sheaf.RunID) (*store.Run, error)
	// Leader waits for the servers' leader and the session's number there.
	Leader func(ctx context.Context) (wire.ServersClient, uint64, error)
	// Peer is the service of another node.
	Peer func(id sheaf.NodeID) (client wire.NodesClient, done func(), err error)
	// Lacks tells the servers that an output that lies here is gone or damaged.
	Lacks func(run sheaf.RunID, partition int, attempt uint32, reason string)
	// Places is where results may be published.
	Places publish.Config
	Logger *slog.Logger

	tokens tokens
	made   made
}

// Do merges, or takes over what an earlier run has merged of the same, has the result sealed, and publishes it where the job says so. A conflict between partitions
// is an error of class sheaf.Conflict. Of a result that is sealed already only the publication is left.
func (m *Merge) Do(ctx context.Context) error {
	first, err := m.first(ctx)
	if err != nil {
		return err
	}
	if first.GetPublish() != "" {
		return m.publish(ctx, first)
	}
	req, err := m.unchanged(ctx, first)
	if err == nil && req == nil {
		req, err = m.merge(ctx)
	}
	if err != nil {
		return err
	}
	return m.seal(ctx, req)
}

// merge keeps the merged manifest, and gives what is to be sealed.
func (m *Merge) merge(ctx context.Context) (*wire.SealResultRequest, error) {
	w, err := m.Store.CreateMerged(m.Attempt)
	if err != nil {
		return nil, fmt.Errorf("keep the merged manifest: %w", err)
	}
	defer func() { _ = w.Close() }() // after Commit there is nothing left to lose
	sum, err := merge.Merge(ctx, m.Job.Results(), m.partitions(ctx), w, merge.Options{Dir: m.Dir})
	if err != nil {
		return nil, err
	}
	if err := w.Commit(); err != nil {
		return nil, fmt.Errorf("keep the merged manifest: %w", err)
	}
	return m.sealing(sum.SHA256[:], uint64(sum.Files), uint64(sum.Bytes)), nil
}

// sealing asks for the seal of a merged manifest that is durable here.
func (m *Merge) sealing(digest []byte, files, bytes uint64) *wire.SealResultRequest {
	return &wire.SealResultRequest{
		Run: string(m.Run), Generation: m.Generation, MergeAttempt: m.Attempt, Node: string(m.Node),
		Digest: digest, Files: files, Bytes: bytes,
	}
}

// seal asks until it is answered: the servers take the same again for the same.
func (m *Merge) seal(ctx context.Context, req *wire.SealResultRequest) error {
	for {
		leader, session, err := m.Leader(ctx)
		if err != nil {
			return err
		}
		req.Session = session
		resp, err := leader.SealResult(ctx, req)
		if err == nil {
			switch resp.GetVerdict() {
			case wire.Verdict_VERDICT_COMMITTED, wire.Verdict_VERDICT_ALREADY:
				return nil
			case wire.Verdict_VERDICT_SUPERSEDED, wire.Verdict_VERDICT_CANCELLED:
				return ErrSuperseded
			}
		} else if final(err) {
			return fmt.Errorf("seal the result: %w", err)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// final reports whether asking again cannot help.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.AlreadyExists:
		return true
	}
	return false
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retryPause):
		return nil
	}
}
