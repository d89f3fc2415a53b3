package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Source is a source whose files come by way of a cache.
type Source struct {
	source.Source
	URL   string // names it in keys
	Cache *Cache
}

// Fetch gives the path on this machine of the file at rel, which has the identity. It stays there
// until release is called, once; links to it stay longer.
func (s *Source) Fetch(ctx context.Context, rel, identity string) (host string, release func(), err error) {
	f, err := s.Open(ctx, rel, identity)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = f.Close() }() // only read
	e := f.Entry()
	key := KeyOf(s.URL+"\x00"+rel, e.Identity(), e.Size)
	key.Origin = sheaf.Origin(s.URL)
	return s.Cache.Get(ctx, key, func(ctx context.Context, w io.Writer) error {
		if _, err := io.Copy(w, under{ctx, f}); err != nil {
			return fmt.Errorf("fetch %q: %w", rel, err)
		}
		return errors.Join(ctx.Err(), f.Check())
	})
}

// under stops reading when a context ends.
type under struct {
	ctx context.Context
	r   io.Reader
}

func (u under) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
