package unixfs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// atOnce is how many blocks are asked for at a time.
	atOnce = 16
	// maxChildren bounds the names in one directory, which stand in memory while it is listed.
	maxChildren = 5_000_000
	// maxShards bounds how deep the shards of a directory nest: a hash of 64 bits has no more parts.
	maxShards = 16
	// maxDepth bounds how deep directories nest.
	maxDepth = 512
	// maxLinks is how many links one path may lead through, as in the kernel.
	maxLinks = 40
)

// child is a name in a directory.
type child struct {
	name string
	link
}

// children are the names in a directory, in order.
func (s *Source) children(ctx context.Context, c cid.Cid, n *node) ([]child, error) {
	if all, ok := s.dirs.get(c); ok {
		return all, nil
	}
	var all []child
	if n.kind == data.Data_Directory {
		for _, l := range n.links {
			all = append(all, child{l.name, l})
		}
	} else {
		var err error
		if all, err = s.shards(ctx, c, n); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b child) int { return strings.Compare(a.name, b.name) })
	for i, k := range all {
		if k.name == "" || k.name == "." || k.name == ".." || strings.ContainsAny(k.name, "/\x00") {
			return nil, damaged(c, "has the name %q in it, which no file can have", k.name)
		}
		if i > 0 && all[i-1].name == k.name {
			return nil, damaged(c, "has the name %q twice", k.name)
		}
	}
	s.dirs.put(c, all)
	return all, nil
}

// shards collects the names of a directory that is spread over shards, level by level. A link's name is the
// place in its shard, in hexadecimal, and then, but for links to further shards, the name.
func (s *Source) shards(ctx context.Context, root cid.Cid, n *node) ([]child, error) {
	if n.fanout < 2 || n.fanout > 1024 || n.fanout&(n.fanout-1) != 0 {
		return nil, damaged(root, "is a directory in %d shards", n.fanout)
	}
	width := len(fmt.Sprintf("%X", n.fanout-1))
	var all []child
	level := []*node{n}
	for depth := 0; len(level) > 0; depth++ {
		if depth == maxShards {
			return nil, damaged(root, "is a directory whose shards nest deeper than %d", maxShards)
		}
		var next []cid.Cid
		for _, m := range level {
			for _, l := range m.links {
				switch {
				case len(l.name) < width:
					return nil, damaged(root, "is a directory with a shard that has no place")
				case len(l.name) == width:
					next = append(next, l.cid)
				default:
					all = append(all, child{l.name[width:], l})
				}
			}
		}
		if len(all)+len(next) > maxChildren {
			return nil, &sheaf.Error{Class: sheaf.TooLarge, Field: "source", Msg: fmt.Sprintf("directory %s has too many names", root), Limit: fmt.Sprintf("%d names", maxChildren), Hint: "spread the files over several directories"}
		}
		var err error
		if level, err = s.nodes(ctx, next); err != nil {
			return nil, err
		}
		for i, m := range level {
			if m.kind != data.Data_HAMTShard || m.fanout != n.fanout {
				return nil, damaged(next[i], "is no shard of its directory")
			}
		}
	}
	return all, nil
}

// nodes reads several blocks at once.
func (s *Source) nodes(ctx context.Context, cids []cid.Cid) ([]*node, error) {
	all := make([]*node, len(cids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, c := range cids {
		g.Go(func() (err error) {
			all[i], err = s.node(ctx, c)
			return err
		})
	}
	return all, g.Wait()
}

// found is what stands at a path.
type found struct {
	cid  cid.Cid
	node *node // nil of a file that is one raw block, whose size is what the directory says
	size int64
	kind sheaf.EntryKind // of a link, what it leads to
}

func (f *found) isDir() bool {
	return f.node != nil && (f.node.kind == data.Data_Directory || f.node.kind == data.Data_HAMTShard)
}

// look reads what a link leads to, as far as needed to say what it is.
func (s *Source) look(ctx context.Context, l link) (*found, error) {
	if l.cid.Prefix().Codec == cid.Raw && l.size >= 0 {
		if err := check(l.cid); err != nil {
			return nil, err
		}
		return &found{cid: l.cid, size: l.size, kind: sheaf.EntryFile}, nil
	}
	n, err := s.node(ctx, l.cid)
	if err != nil {
		return nil, err
	}
	f := &found{cid: l.cid, node: n, size: n.size}
	switch n.kind {
	case data.Data_File, data.Data_Raw:
		f.kind = sheaf.EntryFile
	case data.Data_Directory, data.Data_HAMTShard:
		f.kind = sheaf.EntryDir
	case data.Data_Symlink:
	default:
		return nil, damaged(l.cid, "is neither a file nor a directory")
	}
	return f, nil
}

// walk finds a path from the root without following links in its last part; nil where nothing is.
func (s *Source) walk(ctx context.Context, rel string) (*found, error) {
	f, err := s.top(ctx)
	if err != nil || rel == "" {
		return f, err
	}
	for name := range strings.SplitSeq(rel, "/") {
		if !f.isDir() {
			return nil, nil
		}
		all, err := s.children(ctx, f.cid, f.node)
		if err != nil {
			return nil, err
		}
		i, ok := slices.BinarySearchFunc(all, name, func(k child, name string) int { return strings.Compare(k.name, name) })
		if !ok {
			return nil, nil
		}
		if f, err = s.look(ctx, all[i].link); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// follow says what the link f, that stands at rel, leads to inside the source.
func (s *Source) follow(ctx context.Context, rel string, f *found) (*found, error) {
	at := rel
	for range maxLinks {
		if f == nil {
			return &found{kind: sheaf.EntryDangling}, nil
		}
		if f.kind == sheaf.EntryDir {
			return &found{kind: sheaf.EntryDirLink}, nil
		}
		if f.kind != 0 {
			return f, nil
		}
		to := string(f.node.data)
		if strings.HasPrefix(to, "/") {
			return &found{kind: sheaf.EntryEscape}, nil
		}
		if at = path.Join(path.Dir(at), to); at == ".." || strings.HasPrefix(at, "../") {
			return &found{kind: sheaf.EntryEscape}, nil
		}
		if at == "." {
			return &found{kind: sheaf.EntryDirLink}, nil
		}
		var err error
		if f, err = s.walk(ctx, at); err != nil {
			return nil, err
		}
	}
	return &found{kind: sheaf.EntryDangling}, nil
}
