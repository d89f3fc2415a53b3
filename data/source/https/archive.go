package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/archive"
	"github.com/sheaf-run/agent/sheaf"
)

// archiveSource is the members of an archive. It is fetched and unpacked when it is first asked for anything,
// once on each node.
type archiveSource struct {
	*site

	mu     sync.Mutex
	files  *archive.Files // nil before
	closed bool
}

// open is the archive's members.
func (s *archiveSource) open(ctx context.Context) (*archive.Files, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the source is closed")
	}
	if s.files != nil {
		return s.files, nil
	}
	e, _, err := s.web.stat(ctx, s.asked, s.asked.name)
	if err != nil {
		return nil, err
	}
	path, release, err := s.keep.Make(ctx, "unpacked\x00"+s.asked.url.String()+"\x00"+e.Tag, func(ctx context.Context, w io.Writer) error {
		f, err := s.web.open(ctx, s.asked, s.asked.name, e.Tag)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		if err := archive.Pack(ctx, f, w, s.limits); err != nil {
			return fmt.Errorf("unpack %s: %w", plain(s.asked.url), err)
		}
		_, err = io.Copy(io.Discard, f) // to the end, where the digest is compared
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.files, err = archive.Open(path, release); err != nil {
		release()
		return nil, err
	}
	return s.files, nil
}

// List lists the members.
func (s *archiveSource) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	files, err := s.open(ctx)
	if err != nil {
		return err
	}
	return files.List(ctx, scope, yield)
}

// Stat looks at a member.
func (s *archiveSource) Stat(ctx context.Context, path string) (sheaf.Entry, error) {
	files, err := s.open(ctx)
	if err != nil {
		return sheaf.Entry{}, err
	}
	return files.Stat(ctx, path)
}

// Open opens a member.
func (s *archiveSource) Open(ctx context.Context, path, identity string) (source.File, error) {
	files, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return files.Open(ctx, path, identity)
}

// Close gives the members back.
func (s *archiveSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.files == nil {
		return nil
	}
	err := s.files.Close()
	s.files = nil
	return err
}
