package merged

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Stat looks at one file or directory.
func (s *Source) Stat(ctx context.Context, rel string) (sheaf.Entry, error) {
	if err := source.CheckPath(rel); err != nil {
		return sheaf.Entry{}, err
	}
	f, x, err := s.open(ctx)
	if err != nil {
		return sheaf.Entry{}, err
	}
	v, err := x.find(f, rel)
	if err != nil {
		return sheaf.Entry{}, err
	}
	if v != nil {
		_, e, err := x.entry(f, v)
		return e, err
	}
	dir, err := x.isDir(f, rel)
	if err == nil && !dir {
		err = missing(rel)
	}
	if err != nil {
		return sheaf.Entry{}, err
	}
	return sheaf.Entry{Path: rel, Kind: sheaf.EntryDir}, nil
}

func missing(rel string) error {
	return &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("the result holds no %q", rel)}
}

// entry is a file as listings have it, and the file whose bytes it has: another where it is a link.
func (x *index) entry(f *os.File, v *sheaf.File) (*sheaf.File, sheaf.Entry, error) {
	e := sheaf.Entry{Path: v.Path, Kind: sheaf.EntryFile}
	for links := 0; v.Link != ""; links++ {
		if links == maxLinks {
			e.Kind = sheaf.EntryDangling
			return nil, e, nil
		}
		target := path.Join(path.Dir(v.Path), v.Link)
		if path.IsAbs(v.Link) || target == ".." || strings.HasPrefix(target, "../") {
			e.Kind = sheaf.EntryEscape
			return nil, e, nil
		}
		next, err := x.find(f, target)
		if err != nil {
			return nil, e, err
		}
		if next == nil {
			e.Kind = sheaf.EntryDangling
			if dir, err := x.isDir(f, target); err != nil || dir || target == "." {
				e.Kind = sheaf.EntryDirLink
				return nil, e, err
			}
			return nil, e, nil
		}
		v = next
	}
	e.Size, e.Tag = v.Size, tag(v)
	return v, e, nil
}

// tag is the identity of a file: its digest or, of one of several parts, whose digest nobody knows before they
// are joined, one made of theirs.
func tag(v *sheaf.File) string {
	if v.SHA256 != "" {
		return "sha256:" + v.SHA256
	}
	h := sha256.New()
	for _, p := range v.Parts {
		_, _ = fmt.Fprintf(h, "%d %s\n", p.Size, p.SHA256)
	}
	return fmt.Sprintf("etag:%s:%d", hex.EncodeToString(h.Sum(nil)), v.Size)
}

// List goes through the manifest.
func (s *Source) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	prefix := ""
	if scope.Below != "" {
		if err := source.CheckPath(scope.Below); err != nil {
			return err
		}
		prefix = scope.Below + "/"
	}
	f, x, err := s.open(ctx)
	if err != nil {
		return err
	}
	if prefix != "" {
		dir, err := x.isDir(f, scope.Below)
		if err == nil && !dir {
			err = missing(prefix)
		}
		if err != nil {
			return err
		}
	}
	l := &listing{ctx: ctx, index: x, below: len(prefix), scope: scope, yield: yield, batch: make([]sheaf.Entry, 0, source.BatchEntries), decided: map[string]bool{}}
	l.late, _ = slices.BinarySearch(x.late, prefix)
	err = x.from(f, prefix, func(v *sheaf.File) (bool, error) {
		if !strings.HasPrefix(v.Path, prefix) {
			return false, nil
		}
		return true, l.file(f, v)
	})
	if err != nil {
		return err
	}
	return l.hand()
}

// listing is one under way.
type listing struct {
	ctx     context.Context
	index   *index
	below   int // bytes of the path of the directory that is listed, with its slash
	scope   source.Scope
	yield   func([]sheaf.Entry) error
	batch   []sheaf.Entry
	last    string          // the file before
	late    int             // place of the next in index.late
	decided map[string]bool // whether a directory is wanted
}

// maxDecided bounds what is remembered of the scope.
const maxDecided = 4096

func (l *listing) file(f *os.File, v *sheaf.File) error {
	for ; l.late < len(l.index.late) && l.index.late[l.late] < v.Path; l.late++ {
		if err := l.dir(l.index.late[l.late]); err != nil {
			return err
		}
	}
	for i := l.below; i < len(v.Path); i++ {
		if v.Path[i] != '/' || strings.HasPrefix(l.last, v.Path[:i+1]) {
			continue
		}
		if _, late := slices.BinarySearch(l.index.late, v.Path[:i]); late {
			continue
		}
		if err := l.dir(v.Path[:i]); err != nil {
			return err
		}
	}
	l.last = v.Path
	if !l.wanted(v.Path) {
		return l.ctx.Err()
	}
	_, e, err := l.index.entry(f, v)
	if err != nil {
		return err
	}
	return l.add(e)
}

func (l *listing) dir(path string) error {
	if !l.wanted(path) {
		return nil
	}
	return l.add(sheaf.Entry{Path: path, Kind: sheaf.EntryDir})
}

// wanted reports whether all directories above a path are.
func (l *listing) wanted(path string) bool {
	if l.scope.Descend == nil {
		return true
	}
	for i := l.below; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		yes, known := l.decided[path[:i]]
		if !known {
			if len(l.decided) >= maxDecided {
				clear(l.decided)
			}
			yes = l.scope.Descend(path[:i])
			l.decided[path[:i]] = yes
		}
		if !yes {
			return false
		}
	}
	return true
}

func (l *listing) add(e sheaf.Entry) error {
	if l.batch = append(l.batch, e); len(l.batch) == source.BatchEntries {
		return l.hand()
	}
	return nil
}

func (l *listing) hand() error {
	if err := l.ctx.Err(); err != nil || len(l.batch) == 0 {
		return err
	}
	err := l.yield(l.batch)
	l.batch = l.batch[:0]
	return err
}
