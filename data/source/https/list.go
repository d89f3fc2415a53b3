package https

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	maxListBytes = 16 << 20
	// maxListed bounds the URLs of a list: each is asked for once before there is a split.
	maxListed = 100_000
	// askAtOnce is how many of them are asked for at a time.
	askAtOnce = 16
)

// listSource is the files of a list of URLs. The list is read once; what the files are is asked anew each time.
type listSource struct {
	*site

	mu    sync.Mutex
	named map[string]resource // by path; nil before the list was read
	order *source.Index       // of the paths, with nothing known of the files
}

// read reads the list, the first time.
func (s *listSource) read(ctx context.Context) (map[string]resource, *source.Index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named != nil {
		return s.named, s.order, nil
	}
	resp, err := s.web.get(ctx, s.asked.url, nil)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxListBytes+1))
	if err != nil {
		return nil, nil, classed(s.asked.url, err)
	}
	if len(text) > maxListBytes {
		return nil, nil, s.tooLong(fmt.Sprintf("%d bytes", maxListBytes))
	}
	named, err := s.parse(string(text))
	if err != nil {
		return nil, nil, err
	}
	entries := make([]sheaf.Entry, 0, len(named))
	for p := range named {
		entries = append(entries, sheaf.Entry{Path: p, Kind: sheaf.EntryFile})
	}
	order, err := source.NewIndex(entries)
	if err != nil {
		return nil, nil, err
	}
	s.named, s.order = named, order
	return named, order, nil
}

func (s *listSource) tooLong(limit string) error {
	return &sheaf.Error{Class: sheaf.TooLarge, Field: "source", Msg: "the list at " + plain(s.asked.url) + " is too long", Limit: limit, Hint: "make several lists of it, an input each"}
}

// parse reads the lines: a URL, relative to the list's where it is, and behind it, with its special characters as %XX,
// the path where the file stands; by itself the last of the URL's path. Empty lines and those that begin with # say nothing.
func (s *listSource) parse(text string) (map[string]resource, error) {
	named := map[string]resource{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		r, at, err := s.line(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", n, plain(s.asked.url), err)
		}
		if _, twice := named[at]; twice {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("line %d of %s names %q, which an earlier line does too", n, plain(s.asked.url), at), Hint: "write behind the URL, after a space, where the file is to stand"}
		}
		if len(named) == maxListed {
			return nil, s.tooLong(fmt.Sprintf("%d URLs", maxListed))
		}
		named[at] = r
	}
	return named, nil
}

func (s *listSource) line(fields []string) (r resource, at string, err error) {
	if len(fields) > 2 {
		return r, "", &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("it has %d words", len(fields)), Hint: "write a URL and, after a space, a path, with spaces in them as %20"}
	}
	u, err := url.Parse(fields[0])
	if err != nil {
		return r, "", invalid(fields[0], "is no URL", "write a literal % as %25")
	}
	u = s.asked.url.ResolveReference(u)
	if len(fields) == 2 { // then it needs no name of its own
		u = withName(u)
	}
	if r, err = parse(u.String()); err != nil {
		return r, "", err
	}
	if r.list || r.unpack {
		return r, "", invalid(fields[0], "is to be a list or an archive", "make an input of its own of it")
	}
	if _, err := s.web.hostOf(r.url); err != nil {
		return r, "", err
	}
	at = r.name
	if len(fields) == 2 {
		if at, err = url.PathUnescape(fields[1]); err != nil {
			return r, "", invalid(fields[1], "has a malformed %-escape", "write a literal % as %25")
		}
		at = path.Clean(at)
	}
	return r, at, source.CheckPath(at)
}

// withName gives a URL a name, where it says none.
func withName(u *url.URL) *url.URL {
	v := *u
	if strings.Contains(v.Fragment, "name=") {
		return &v
	}
	v.RawFragment = ""
	v.Fragment = strings.TrimPrefix(v.Fragment+"&name=x", "&")
	return &v
}

// List asks for each file, several at a time.
func (s *listSource) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	named, order, err := s.read(ctx)
	if err != nil {
		return err
	}
	return order.List(ctx, scope, func(entries []sheaf.Entry) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(askAtOnce)
		for i := range entries {
			e := &entries[i]
			if e.Kind != sheaf.EntryFile {
				continue
			}
			g.Go(func() (err error) {
				*e, _, err = s.web.stat(ctx, named[e.Path], e.Path)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		return yield(entries)
	})
}

// Stat looks at one file.
func (s *listSource) Stat(ctx context.Context, path string) (sheaf.Entry, error) {
	named, order, err := s.read(ctx)
	if err != nil {
		return sheaf.Entry{}, err
	}
	e, err := order.Stat(path)
	if err != nil || e.Kind != sheaf.EntryFile {
		return e, err
	}
	e, _, err = s.web.stat(ctx, named[path], path)
	return e, err
}

// Open opens one file.
func (s *listSource) Open(ctx context.Context, path, identity string) (source.File, error) {
	named, order, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	e, err := order.Stat(path)
	if err != nil {
		return nil, err
	}
	if e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a directory, not a file", path)}
	}
	return s.web.open(ctx, named[path], path, identity)
}
