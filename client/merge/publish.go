package merge

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// cleanTimeout bounds how long what an attempt wrote is being deleted once nobody wants it: its client may be
// shutting down. What is left then is the next attempt's to delete.
const cleanTimeout = 10 * time.Second

// first is the first message of the servers' list of outputs, which says what is to be published, and whether
// an earlier run has merged the same.
func (m *Merge) first(ctx context.Context) (*wire.Outputs, error) {
	if m.Job.Publish == nil && !m.Job.Reuse {
		return nil, nil
	}
	for {
		first, err := m.ask(ctx)
		switch {
		case err == nil:
			return first, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case status.Code(err) == codes.Aborted:
			return nil, ErrSuperseded
		case final(err) || status.Code(err) == codes.Unknown:
			return nil, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// ask reads one message of the servers' list.
func (m *Merge) ask(ctx context.Context) (*wire.Outputs, error) { return m.askFrom(ctx, 0, false) }

// askFrom reads the first message from a partition on; with listed the first that lists any.
func (m *Merge) askFrom(ctx context.Context, partition int, listed bool) (*wire.Outputs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leader, _, err := m.Leader(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := leader.ReadOutputs(ctx, m.request(uint32(partition)))
	if err != nil {
		return nil, err
	}
	for {
		first, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil || !listed || len(first.Partition) > 0 {
			return first, err
		}
	}
}

// publish writes the result, has it sealed, and puts the manifest; or only puts the manifest of what an
// earlier attempt has sealed.
func (m *Merge) publish(ctx context.Context, first *wire.Outputs) error {
	place, err := m.Places.Open(first.GetPublish())
	if err != nil {
		return err
	}
	defer func() { _ = place.Close() }() // nothing is buffered
	attempt, digest := first.GetSealedAttempt(), first.GetSealedDigest()
	if attempt == 0 {
		req, err := m.write(ctx, place)
		if err != nil {
			m.discard(ctx, place)
			return err
		}
		if err := m.seal(ctx, req); err != nil {
			// Any other error leaves open whether it stands sealed.
			if errors.Is(err, ErrSuperseded) {
				m.discard(ctx, place)
			}
			return err
		}
		attempt, digest = m.Attempt, req.Digest
	}
	err = publish.Finish(ctx, place, m.Run, attempt, hex.EncodeToString(digest))
	if errors.Is(err, publish.ErrStale) {
		return ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", first.GetPublish(), err)
	}
	return m.seal(ctx, &wire.SealResultRequest{
		Run: string(m.Run), Generation: m.Generation, MergeAttempt: m.Attempt, Node: string(m.Node), Digest: digest, Published: true,
	})
}

// write merges, and writes the result's files to their place.
func (m *Merge) write(ctx context.Context, place publish.Place) (*wire.SealResultRequest, error) {
	req, err := m.merge(ctx)
	if err != nil {
		return nil, err
	}
	manifest, err := m.Store.OpenMerged(m.Attempt)
	if err != nil {
		return nil, err
	}
	defer manifest.Close()
	req.Root, err = publish.Write(ctx, place, publish.Input{
		Run: m.Run, Job: m.Job.Name, Generation: m.Generation, Attempt: m.Attempt, Result: hex.EncodeToString(req.Digest),
		Manifest: manifest, Open: m.open, Dir: m.Dir,
		Damaged: func(p sheaf.Part, reason string) {
			if p.Node == m.Node {
				run, as := m.made.by(m.Run, p.Partition)
				m.Lacks(run, as, p.Attempt, reason)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("publish to %s: %w", m.Job.Publish.To, err)
	}
	return req, nil
}

// discard deletes what this attempt has written.
func (m *Merge) discard(ctx context.Context, place publish.Place) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if err := publish.Discard(ctx, place, m.Run, m.Attempt); err != nil {
		m.Logger.Warn("what a merge wrote and nobody wants is not deleted yet", "run", m.Run, "attempt", m.Attempt, "error", err)
	}
}

// open opens a part of a merged file from its beginning, here or on the node that has it.
func (m *Merge) open(ctx context.Context, f *sheaf.File, p sheaf.Part) (io.ReadCloser, error) {
	return m.openAt(ctx, f, p, 0)
}

func (m *Merge) openAt(ctx context.Context, f *sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
	name := cmp.Or(p.Path, f.Path)
	run, as := m.made.by(m.Run, p.Partition)
	if p.Node == m.Node {
		st := m.Store
		if run != m.Run {
			var err error
			if st, err = m.Stores(run); err != nil {
				return nil, err
			}
		}
		r, err := st.OpenFile(store.Key{Partition: as, Attempt: p.Attempt}, f.Output, name, offset, 0)
		if sheaf.ClassOf(err) == sheaf.NotFound {
			m.Lacks(run, as, p.Attempt, "a file of its output is gone")
		}
		return r, err
	}
	token, err := m.token(ctx, run, p.Partition)
	if err != nil {
		return nil, err
	}
	peer, done, err := m.Peer(p.Node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(datatoken.With(ctx, token))
	stream, err := peer.ReadFile(ctx, &wire.ReadFileRequest{Run: string(run), Partition: uint32(as), Attempt: p.Attempt, Output: f.Output, Path: []byte(name), Offset: uint64(offset)})
	if err != nil {
		cancel()
		done()
		return nil, err
	}
	return &remoteFile{recv: stream.Recv, end: func() { cancel(); done() }}, nil
}

// remoteFile reads a file from another node.
type remoteFile struct {
	recv func() (*wire.FilePiece, error)
	end  func()
	rest []byte
}

func (r *remoteFile) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		p, err := r.recv()
		if err != nil {
			return 0, err
		}
		r.rest = p.GetData()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *remoteFile) Close() error {
	r.end()
	return nil
}

// tokens keeps the data token that was asked for last.
type tokens struct {
	mu    sync.Mutex
	token []byte
	at    time.Time
}

// get gives a token that is good for a while.
func (t *tokens) get(ctx context.Context, ask func(context.Context) (*wire.Outputs, error)) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at.IsZero() || time.Since(t.at) > datatoken.Lifetime/3 {
		first, err := ask(ctx)
		if err != nil {
			return nil, fmt.Errorf("get a data token: %w", err)
		}
		t.token, t.at = first.GetToken(), time.Now()
	}
	return t.token, nil
}
