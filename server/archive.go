package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// SaveSnapshot implements API.
func (s *Server) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if _, err := s.leads(); err != nil {
		return err
	}
	if err := s.node.Barrier(ctx); err != nil {
		return err
	}
	_, err := s.node.Save(ctx, w)
	return err
}

// RestoreSnapshot implements API.
func (s *Server) RestoreSnapshot(ctx context.Context, r io.Reader, force bool) (state.Summary, error) {
	if _, err := s.leads(); err != nil {
		return state.Summary{}, err
	}
	dir, err := os.MkdirTemp(s.node.Scratch(), "restore-")
	if err != nil {
		return state.Summary{}, fmt.Errorf("make room for the snapshot: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "snapshot")
	if err := receive(path, r); err != nil {
		return state.Summary{}, err
	}
	got, err := Inspect(path)
	if err != nil {
		var said *sheaf.Error
		if errors.As(err, &said) && said.Field == path { // whose name here says nothing to who sent it
			said.Field, said.Msg = "snapshot", strings.ReplaceAll(said.Msg, path, "what was sent")
		}
		return got.State, err
	}
	archive := got.Archive
	own := s.store.Snapshot().Cluster()
	if own.ID != got.State.Cluster.ID {
		if !force {
			return got.State, &sheaf.Error{Class: sheaf.Conflict, Field: "snapshot", Msg: fmt.Sprintf("the snapshot is of cluster %s, and this is %s", got.State.Cluster.ID, own.ID), Hint: "give -force to have its state in this cluster"}
		}
		if path, archive.Size, err = adopt(dir, path, own); err != nil {
			return got.State, err
		}
	}
	body, err := openBody(path, own.ID != got.State.Cluster.ID)
	if err != nil {
		return got.State, err
	}
	defer body.Close()
	s.config.Logger.Warn("restoring a snapshot: all that came after it is gone", "index", got.State.Index, "runs", got.State.Runs, "nodes", got.State.Nodes)
	if err := s.node.Restore(ctx, archive, body); err != nil {
		return got.State, err
	}
	return got.State, nil
}

// Inspected is what a saved snapshot holds.
type Inspected struct {
	Archive consensus.Archive
	State   state.Summary
}

// Inspect verifies a saved snapshot and says what is in it.
func Inspect(path string) (Inspected, error) {
	a, body, err := consensus.OpenArchive(path)
	if err != nil {
		return Inspected{}, err
	}
	defer body.Close()
	s, err := state.Inspect(body)
	if err != nil {
		err = &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s holds no state", path), Err: err}
	}
	return Inspected{a, s}, err
}

// receive writes what is sent to a file, unless it does not even begin as a snapshot does: then no more of it is read.
func receive(path string, r io.Reader) error {
	head := make([]byte, len(consensus.ArchivePrefix))
	switch _, err := io.ReadFull(r, head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), err == nil && string(head) != consensus.ArchivePrefix:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "snapshot", Msg: "what was sent is no whole snapshot", Hint: "send a file that `agent operator snapshot save` wrote"}
	case err != nil:
		return fmt.Errorf("receive the snapshot: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("receive the snapshot: %w", err)
	}
	_, err = io.Copy(f, io.MultiReader(bytes.NewReader(head), r))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("receive the snapshot: %w", err)
	}
	return nil
}

// adopt writes the state in a saved snapshot as one of cluster c; the file holds the bare state.
func adopt(dir, path string, c state.Cluster) (adopted string, size int64, err error) {
	_, body, err := consensus.OpenArchive(path)
	if err != nil {
		return "", 0, err
	}
	defer body.Close()
	adopted = filepath.Join(dir, "adopted")
	f, err := os.OpenFile(adopted, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, fmt.Errorf("write the snapshot anew: %w", err)
	}
	err = state.Adopt(f, body, c)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", 0, err
	}
	st, err := os.Stat(adopted)
	if err != nil {
		return "", 0, fmt.Errorf("write the snapshot anew: %w", err)
	}
	return adopted, st.Size(), nil
}

// openBody opens the state in a file, which is bare or behind a header.
func openBody(path string, bare bool) (io.ReadCloser, error) {
	if bare {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the snapshot: %w", err)
		}
		return f, nil
	}
	_, body, err := consensus.OpenArchive(path)
	return body, err
}
