// Package unixfs reads files and directories from blocks that are named by their hash, as IPFS keeps
// them. Where the blocks come from is the caller's: a CAR file, a gateway.
//
// Every block is verified by its CID before anything of it counts, so that the holder of the blocks is
// never trusted. A file's identity is its CID. Directories may be spread over shards; links are followed inside
// the source, and sizes that a block claims are held against what its parts have.
package unixfs

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Source is what lies below a CID, or one file.
type Source struct {
	blocks Blocks
	root   cid.Cid
	below  string // a path below root that is the source's, "" for all
	dirs   *directories

	mu    sync.Mutex
	begin *found // of below, nil before
	only  string // of a single file, its name
}

var _ source.Source = (*Source)(nil)

// New makes a source of what lies at the path below, clean and relative, from a CID. Nothing is read yet.
func New(blocks Blocks, root cid.Cid, below string) (*Source, error) {
	if err := check(root); err != nil {
		return nil, err
	}
	if below != "" {
		if err := source.CheckPath(below); err != nil {
			return nil, err
		}
	}
	return &Source{blocks: blocks, root: root, below: below, dirs: &directories{}}, nil
}

// node reads a block and verifies it.
func (s *Source) node(ctx context.Context, c cid.Cid) (*node, error) {
	block, err := s.block(ctx, c)
	if err != nil {
		return nil, err
	}
	return decode(c, block)
}

func (s *Source) block(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if c.Prefix().MhType == multihash.IDENTITY {
		h, err := multihash.Decode(c.Hash())
		if err != nil {
			return nil, damaged(c, "has a malformed CID: %v", err)
		}
		return h.Digest, nil
	}
	block, err := s.blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return block, verify(c, block)
}

// top is what the source begins at.
func (s *Source) top(ctx context.Context) (*found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begin != nil {
		return s.begin, nil
	}
	from := &Source{blocks: s.blocks, dirs: s.dirs}
	var err error
	if from.begin, err = s.look(ctx, link{cid: s.root, size: -1}); err != nil {
		return nil, err
	}
	begin, only := from.begin, s.root.String()
	if s.below != "" {
		only = path.Base(s.below)
		if begin, err = from.walk(ctx, s.below); err == nil && begin != nil && begin.kind == 0 {
			begin, err = from.follow(ctx, s.below, begin)
		}
		if err != nil {
			return nil, err
		}
	}
	if begin == nil || begin.kind != sheaf.EntryFile && begin.kind != sheaf.EntryDir {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("below %s there is no file or directory %q", s.root, s.below), Hint: "check the path"}
	}
	if s.begin = begin; !begin.isDir() {
		s.only = only
	}
	return begin, nil
}

// entry is what stands at rel, as a listing has it.
func (s *Source) entry(ctx context.Context, rel string, f *found) (sheaf.Entry, *found, error) {
	e := sheaf.Entry{Path: rel}
	if f.kind == 0 {
		var err error
		if f, err = s.follow(ctx, rel, f); err != nil {
			return e, nil, err
		}
	}
	if e.Kind = f.kind; e.Kind == sheaf.EntryFile {
		e.Size, e.Tag = f.size, "cid:"+f.cid.String()
	}
	return e, f, nil
}

// at is the entry at a path that a caller gave.
func (s *Source) at(ctx context.Context, rel string) (sheaf.Entry, *found, error) {
	if err := source.CheckPath(rel); err != nil {
		return sheaf.Entry{}, nil, err
	}
	f, err := s.top(ctx)
	if err != nil {
		return sheaf.Entry{}, nil, err
	}
	if s.only != "" {
		if rel != s.only {
			return sheaf.Entry{}, nil, s.nothing(rel)
		}
		return s.entry(ctx, rel, f)
	}
	if f, err = s.walk(ctx, rel); err != nil {
		return sheaf.Entry{}, nil, fmt.Errorf("look at %q: %w", rel, err)
	}
	if f == nil {
		return sheaf.Entry{}, nil, s.nothing(rel)
	}
	return s.entry(ctx, rel, f)
}

func (s *Source) nothing(rel string) error {
	return &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("the source holds no %q", rel)}
}

// Stat looks at one path.
func (s *Source) Stat(ctx context.Context, rel string) (sheaf.Entry, error) {
	e, _, err := s.at(ctx, rel)
	return e, err
}

// Open opens a file. Of one with parts, no more than its first block is read before the first read.
func (s *Source) Open(ctx context.Context, rel, identity string) (source.File, error) {
	e, f, err := s.at(ctx, rel)
	if err != nil {
		return nil, err
	}
	if e.Kind != sheaf.EntryFile {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("open %q: it is a %s, not a file", rel, e.Kind)}
	}
	if identity != "" && identity != e.Tag {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Field: "source", Msg: fmt.Sprintf("open %q: it was %s and is %s", rel, identity, e.Tag), Err: source.ErrChanged, Hint: "run the job again"}
	}
	n := f.node
	if n == nil {
		if n, err = s.node(ctx, f.cid); err != nil {
			return nil, fmt.Errorf("open %q: %w", rel, err)
		}
		if n.size != e.Size {
			return nil, damaged(f.cid, "has %d bytes, and its directory says %d", n.size, e.Size)
		}
	}
	return &file{s: s, ctx: ctx, entry: e, cid: f.cid, top: n}, nil
}

// Local says that nothing of it is on this machine as a file.
func (*Source) Local(string) (string, bool) { return "", false }

// Shared says that a CID means the same everywhere.
func (*Source) Shared() bool { return true }

// Close has nothing to give up.
func (*Source) Close() error { return nil }

// List lists directory by directory, several blocks of each at a time.
func (s *Source) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	top, err := s.top(ctx)
	if err != nil {
		return err
	}
	l := &lister{s: s, ctx: ctx, scope: scope, yield: yield}
	switch {
	case s.only != "" && scope.Below != "":
		return s.nothing(scope.Below)
	case s.only != "":
		e, _, err := s.entry(ctx, s.only, top)
		if err != nil {
			return err
		}
		return yield([]sheaf.Entry{e})
	case scope.Below != "":
		e, f, err := s.at(ctx, scope.Below)
		if err != nil {
			return err
		}
		if e.Kind != sheaf.EntryDir {
			return s.nothing(scope.Below + "/")
		}
		top = f
	}
	if err := l.dir(scope.Below, top, 0); err != nil {
		return err
	}
	return l.hand()
}

// lister is a listing under way.
type lister struct {
	s     *Source
	ctx   context.Context
	scope source.Scope
	yield func([]sheaf.Entry) error
	batch []sheaf.Entry
}

func (l *lister) hand() error {
	if err := l.ctx.Err(); err != nil || len(l.batch) == 0 {
		return err
	}
	err := l.yield(l.batch)
	l.batch = l.batch[:0]
	return err
}

// held is a directory whose content comes when what stands before it was listed: names that begin like it and
// go on with what is less than a slash.
type held struct {
	rel string
	f   *found
}

// dir lists a directory.
func (l *lister) dir(rel string, f *found, depth int) error {
	if depth > maxDepth {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("directories nest too deep at %q", rel), Limit: fmt.Sprintf("%d levels", maxDepth)}
	}
	all, err := l.s.children(l.ctx, f.cid, f.node)
	if err != nil {
		return fmt.Errorf("list %q: %w", rel, err)
	}
	var waiting []held
	enter := func(before string) error {
		for len(waiting) > 0 {
			last := waiting[len(waiting)-1]
			if before != "" && strings.Compare(before, last.rel+"/") < 0 {
				return nil
			}
			waiting = waiting[:len(waiting)-1]
			if err := l.dir(last.rel, last.f, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	for len(all) > 0 {
		some := all[:min(len(all), 16*atOnce)]
		all = all[len(some):]
		entries, founds, err := l.entries(rel, some)
		if err != nil {
			return fmt.Errorf("list %q: %w", rel, err)
		}
		for i, e := range entries {
			if err := enter(e.Path); err != nil {
				return err
			}
			if l.batch = append(l.batch, e); len(l.batch) == source.BatchEntries {
				if err := l.hand(); err != nil {
					return err
				}
			}
			if e.Kind == sheaf.EntryDir && (l.scope.Descend == nil || l.scope.Descend(e.Path)) {
				waiting = append(waiting, held{e.Path, founds[i]})
			}
		}
	}
	return enter("")
}

// entries looks at some names of a directory.
func (l *lister) entries(rel string, some []child) ([]sheaf.Entry, []*found, error) {
	entries, founds := make([]sheaf.Entry, len(some)), make([]*found, len(some))
	g, ctx := errgroup.WithContext(l.ctx)
	g.SetLimit(atOnce)
	for i, k := range some {
		g.Go(func() error {
			f, err := l.s.look(ctx, k.link)
			if err != nil {
				return fmt.Errorf("%q: %w", k.name, err)
			}
			entries[i], founds[i], err = l.s.entry(ctx, path.Join(rel, k.name), f)
			return err
		})
	}
	return entries, founds, g.Wait()
}
