package merge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// unchanged takes over the merged manifest of an earlier run that the servers say is what this merge would make, and
// gives what is to be sealed. Nil is that there is no such run, or that its manifest cannot be had: then the outputs
// are merged.
func (m *Merge) unchanged(ctx context.Context, first *wire.Outputs) (*wire.SealResultRequest, error) {
	if first.GetUnchanged() == "" || len(first.GetSealedDigest()) != sha256.Size {
		return nil, nil
	}
	if err := m.takeManifest(ctx, first); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		m.Logger.Warn("the merged manifest of an earlier run cannot be taken over: the outputs are merged", "run", m.Run, "earlier", first.Unchanged, "error", err)
		return nil, nil
	}
	return m.sealing(first.SealedDigest, first.GetFiles(), first.GetBytes()), nil
}

// takeManifest has the manifest here, as what this attempt has merged.
func (m *Merge) takeManifest(ctx context.Context, first *wire.Outputs) error {
	digest, node := [32]byte(first.SealedDigest), sheaf.NodeID(first.GetSealedNode())
	if node == m.Node {
		from, err := m.Stores(sheaf.RunID(first.Unchanged))
		if err != nil {
			return err
		}
		return m.Store.TakeMerged(m.Attempt, from, first.GetSealedAttempt(), digest)
	}
	peer, done, err := m.Peer(node)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(datatoken.With(ctx, first.GetToken()))
	defer cancel()
	stream, err := peer.ReadResult(ctx, &wire.ReadResultRequest{Run: first.Unchanged, MergeAttempt: first.GetSealedAttempt()})
	if err != nil {
		return fmt.Errorf("read it from node %s: %w", node, err)
	}
	w, err := m.Store.CreateMerged(m.Attempt)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // after Commit there is nothing left to lose
	sum := sha256.New()
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read it from node %s: %w", node, err)
		}
		sum.Write(piece.GetData())
		if _, err := w.Write(piece.GetData()); err != nil {
			return err
		}
	}
	if got := [32]byte(sum.Sum(nil)); got != digest {
		return fmt.Errorf("that of node %s has the digest %x, not %x", node, got, digest)
	}
	return w.Commit()
}
