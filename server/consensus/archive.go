package consensus

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sheaf-run/agent/sheaf"
)

// Archive is what the header of a saved snapshot says. Its file has the form of those
// in the raft directory: header, body, and the sha256 of both at its end.
type Archive struct {
	Index   uint64 // of the last entry in it
	Term    uint64
	Size    int64  // bytes of the body
	Servers []Peer // of the cluster, then
}

func archiveOf(m *raft.SnapshotMeta) Archive {
	a := Archive{Index: m.Index, Term: m.Term, Size: m.Size}
	for _, s := range m.Configuration.Servers {
		a.Servers = append(a.Servers, Peer{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return a
}

// ArchivePrefix is how every saved snapshot begins, of whichever version.
const ArchivePrefix = snapshotFamily

// OpenArchive verifies a saved snapshot as a whole and gives its body. What is wrong with it is ErrDamaged,
// one of a newer version ErrForeign.
func OpenArchive(path string) (Archive, io.ReadCloser, error) {
	meta, f, offset, err := openHeader(path)
	if err == nil {
		err = verifyBody(f, path, meta, offset)
	}
	var damage *sheaf.Error
	switch {
	case errors.Is(err, ErrForeign):
		return Archive{}, nil, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s was written by a newer version", path), Err: ErrForeign, Hint: "use an agent of that version"}
	case errors.Is(err, ErrDamaged) && errors.As(err, &damage):
		return Archive{}, nil, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s is no whole snapshot", path), Err: damage.Err, Hint: "take another: agent operator snapshot save FILE"}
	case err != nil:
		return Archive{}, nil, err
	}
	return archiveOf(meta), body{io.LimitReader(bufio.NewReaderSize(f, snapshotBuffer), meta.Size), f}, nil
}

// Save takes a snapshot of what this server has applied and writes it to w.
func (n *Node) Save(ctx context.Context, w io.Writer) (Archive, error) {
	r := n.raft.Load()
	if r == nil {
		return Archive{}, &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server is starting"}
	}
	meta, rc, err := n.take(ctx, r)
	if err != nil {
		return Archive{}, err
	}
	defer rc.Close()
	sum := sha256.New()
	to := io.MultiWriter(w, sum)
	if err := writeHead(to, *meta); err != nil {
		return Archive{}, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, rc, make([]byte, snapshotBuffer)); err != nil {
		return Archive{}, fmt.Errorf("write the snapshot: %w", err)
	}
	_, err = w.Write(sum.Sum(nil))
	return archiveOf(meta), err
}

// take takes a snapshot, or opens the newest where nothing came since.
func (n *Node) take(ctx context.Context, r *raft.Raft) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f := r.Snapshot()
	err := n.await(ctx, f)
	switch {
	case err == nil:
		return f.Open()
	case !errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil, nil, err
	}
	metas, err := n.snaps.List()
	if err != nil {
		return nil, nil, err
	}
	if len(metas) == 0 {
		return nil, nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "there is nothing to save yet", Hint: "wait until the servers have a leader"}
	}
	return n.snaps.Open(metas[0].ID)
}

// restoreTimeout bounds how long the servers may take for a snapshot to become theirs.
const restoreTimeout = 10 * time.Minute

// Restore replaces the state of all servers by an archive's body, of that many bytes. This server leads before
// and after; its term's work begins anew. What the log held before is gone.
func (n *Node) Restore(ctx context.Context, a Archive, body io.Reader) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	return n.between(ctx, func() error {
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: a.Index, Term: a.Term, Size: a.Size, ID: "restored"}
		if err := r.Restore(meta, body, restoreTimeout); err != nil {
			return err
		}
		return n.noteSnapshot()
	})
}

// noteSnapshot remembers how large the newest snapshot is, and up to where it goes.
func (n *Node) noteSnapshot() error {
	metas, err := n.snaps.List()
	if err != nil {
		return err
	}
	if len(metas) > 0 {
		n.snapIndex.Store(metas[0].Index)
		n.snapBytes.Store(metas[0].Size)
	}
	return nil
}

// Scratch is a directory on the disk of the state for files that are being received; "" is the system's.
func (n *Node) Scratch() string {
	if n.config.DataDir == "" {
		return ""
	}
	return filepath.Join(n.config.DataDir, "raft")
}
