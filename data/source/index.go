package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Index is a listing held in memory, for sources that learn all of theirs at once. It
// does not change, and its methods may be called concurrently.
type Index struct {
	entries []sheaf.Entry // in order, with every directory above them
}

// NewIndex orders entries, which become its own, and adds the directories above them. A directory
// may be given, more than once too; a path that is not clean, is given twice, or is a
// file with something below it is an error of class Invalid that names it.
func NewIndex(entries []sheaf.Entry) (*Index, error) {
	kinds := make(map[string]sheaf.EntryKind, len(entries))
	all := entries[:0]
	for _, e := range entries {
		if err := CheckPath(e.Path); err != nil {
			return nil, err
		}
		had, twice := kinds[e.Path]
		if twice && (had != sheaf.EntryDir || e.Kind != sheaf.EntryDir) {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: quote(e.Path) + " stands in the source twice", Hint: "give each file a path of its own"}
		}
		if !twice {
			kinds[e.Path] = e.Kind
			all = append(all, e)
		}
	}
	for _, e := range all {
		for dir := e.Path; strings.Contains(dir, "/"); {
			dir = dir[:strings.LastIndexByte(dir, '/')]
			kind, known := kinds[dir]
			if known && kind != sheaf.EntryDir {
				return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%s is a %s in the source, and %s lies below it", quote(dir), kind, quote(e.Path)), Hint: "rename one of the two"}
			}
			if known {
				break // and so are those above it, or will be
			}
			kinds[dir] = sheaf.EntryDir
			all = append(all, sheaf.Entry{Path: dir, Kind: sheaf.EntryDir})
		}
	}
	slices.SortFunc(all, func(a, b sheaf.Entry) int { return strings.Compare(a.Path, b.Path) })
	return &Index{entries: all}, nil
}

// Stat is the entry at a path, or an error of class NotFound or Invalid.
func (x *Index) Stat(path string) (sheaf.Entry, error) {
	if err := CheckPath(path); err != nil {
		return sheaf.Entry{}, err
	}
	if i, ok := x.find(path); ok {
		return x.entries[i], nil
	}
	return sheaf.Entry{}, notFound(path)
}

func (x *Index) find(path string) (int, bool) {
	return slices.BinarySearchFunc(x.entries, path, func(e sheaf.Entry, path string) int { return strings.Compare(e.Path, path) })
}

// List is what [Source] says of it.
func (x *Index) List(ctx context.Context, scope Scope, yield func([]sheaf.Entry) error) error {
	from, prefix := 0, ""
	if scope.Below != "" {
		e, err := x.Stat(scope.Below)
		if err != nil {
			return err
		}
		if e.Kind != sheaf.EntryDir {
			return notFound(scope.Below + "/")
		}
		prefix = scope.Below + "/"
		from, _ = x.find(prefix)
	}
	unwanted := map[string]bool{} // directories
	batch := make([]sheaf.Entry, 0, min(BatchEntries, len(x.entries)))
	hand := func() error {
		if err := ctx.Err(); err != nil || len(batch) == 0 {
			return err
		}
		err := yield(batch)
		batch = batch[:0]
		return err
	}
	for _, e := range x.entries[from:] {
		if !strings.HasPrefix(e.Path, prefix) {
			break
		}
		above := e.Path[:max(0, strings.LastIndexByte(e.Path, '/'))]
		skip := unwanted[above]
		if e.Kind == sheaf.EntryDir && (skip || scope.Descend != nil && !scope.Descend(e.Path)) {
			unwanted[e.Path] = true
		}
		if skip {
			continue
		}
		if batch = append(batch, e); len(batch) == BatchEntries {
			if err := hand(); err != nil {
				return err
			}
		}
	}
	return hand()
}
