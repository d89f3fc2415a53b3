package s3

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// pageKeys is how many keys a service gives at once.
const pageKeys = 1000

// List lists objects page by page. A service orders keys, in which "a-b" stands before "a/x", while the
// directory "a" stands before both. So a page ends with the question, for each
// beginning of its last key that could be such a directory, whether anything lies in it.
func (s *bucketSource) List(ctx context.Context, scope source.Scope, yield func([]sheaf.Entry) error) error {
	l := &listing{s: s, ctx: ctx, scope: scope, yield: yield, root: s.prefix, probed: map[string]bool{}}
	if scope.Below != "" {
		if err := checkKey(scope.Below); err != nil {
			return err
		}
		l.root += scope.Below + "/"
	}
	if s.only != "" {
		if scope.Below != "" {
			return &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: "the source is one object, with nothing below it"}
		}
		e, err := s.Stat(ctx, s.only)
		if err != nil {
			return err
		}
		return yield([]sheaf.Entry{e})
	}
	return l.run()
}

// holds reports whether objects lie below a key taken for a directory.
func (s *bucketSource) holds(ctx context.Context, key string) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, found := <-s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: key + "/", Recursive: true, MaxKeys: 1})
	if found && first.Err != nil {
		return false, s.failed("list "+key+"/", first.Err)
	}
	return found, ctx.Err()
}

// listing is a listing under way.
type listing struct {
	s     *bucketSource
	ctx   context.Context
	scope source.Scope
	yield func([]sheaf.Entry) error
	root  string // of the keys wanted

	page   []minio.ObjectInfo // keys not yet handed out
	last   string             // path last seen
	probed map[string]bool    // candidates for directories that last begins with, and whether they are; those that are were listed
}

func (l *listing) run() error {
	for after, more := "", true; more; {
		var err error
		if after, more, err = l.objects(after); err != nil {
			return err
		}
	}
	if below := l.scope.Below; below != "" && l.last == "" {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("no object lies below %q", below)}
	}
	return l.ctx.Err()
}

// objects lists on from behind a key until the end, or until what follows is
// not wanted: then more says from where to go on.
func (l *listing) objects(after string) (next string, more bool, err error) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	for o := range l.s.client.ListObjects(ctx, l.s.bucket, minio.ListObjectsOptions{Prefix: l.root, Recursive: true, MaxKeys: pageKeys, StartAfter: after}) {
		if o.Err != nil {
			return "", false, l.s.failed("list s3://"+l.s.bucket+"/"+l.root, o.Err)
		}
		l.page = append(l.page, o)
		if len(l.page) < pageKeys {
			continue
		}
		if err := l.hand(true); err != nil {
			return "", false, err
		}
		if dir, unwanted := l.unwanted(l.last); unwanted {
			return l.s.prefix + dir + "/" + lastRune, true, nil
		}
	}
	return "", false, l.hand(false)
}

// lastRune stands behind every name: no key goes on with it.
const lastRune = "\U0010FFFF"

// unwanted is the highest directory above a path that the scope does not descend into.
func (l *listing) unwanted(path string) (dir string, yes bool) {
	if l.scope.Descend == nil {
		return "", false
	}
	for i := len(l.scope.Below) + 1; i < len(path); i++ {
		if path[i] == '/' && !l.scope.Descend(path[:i]) {
			return path[:i], true
		}
	}
	return "", false
}

// hand passes on the page with the directories that belong into it; with more,
// other keys may follow.
func (l *listing) hand(more bool) error {
	entries := make([]sheaf.Entry, 0, len(l.page)+len(l.page)/4)
	for _, o := range l.page {
		path := strings.TrimPrefix(o.Key, l.s.prefix)
		if o.Key == l.root { // the marker of the root itself
			l.last = cmp.Or(l.last, l.scope.Below)
			continue
		}
		marker := strings.HasSuffix(path, "/")
		path = strings.TrimSuffix(path, "/")
		if err := checkKey(path); err != nil {
			return err
		}
		entries = l.dirs(entries, path, marker)
		if _, skip := l.unwanted(path); !marker && !skip {
			if o.ETag == "" {
				return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: "in s3://" + l.s.bucket + ", " + o.Key + " has no ETag, by which an object is known", Hint: "put it there through the service, which gives it one"}
			}
			entries = append(entries, fileEntry(path, o))
		}
		l.last = path
	}
	l.page = l.page[:0]
	if more {
		var err error
		if entries, err = l.ahead(entries); err != nil {
			return err
		}
	}
	slices.SortFunc(entries, func(a, b sheaf.Entry) int { return strings.Compare(a.Path, b.Path) })
	for i := 1; i < len(entries); i++ {
		if entries[i].Path == entries[i-1].Path {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: "in s3://" + l.s.bucket + ", " + entries[i].Path + " is an object and has objects below it", Hint: "rename one: a path is a file or a directory"}
		}
	}
	for batch := range slices.Chunk(entries, source.BatchEntries) {
		if err := l.yield(batch); err != nil {
			return err
		}
	}
	return nil
}

// dirs adds the directories above path, and with itself path too, that were not listed yet.
func (l *listing) dirs(entries []sheaf.Entry, path string, itself bool) []sheaf.Entry {
	for i := len(l.scope.Below) + 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' || i == len(path) && !itself {
			continue
		}
		dir := path[:i]
		if strings.HasPrefix(l.last, dir) && (len(l.last) > i && l.last[i] == '/') {
			continue // the path before lay in it too
		}
		if found, known := l.probed[dir]; known && found {
			continue
		}
		if i < len(path) {
			if _, skip := l.unwanted(dir); skip {
				break
			}
		}
		entries = append(entries, sheaf.Entry{Path: dir, Kind: sheaf.EntryDir})
		if i == len(path) {
			l.probed[dir] = true // its content may follow later
		}
	}
	return entries
}

// ahead adds directories whose content comes in later pages and whose place is in this one.
func (l *listing) ahead(entries []sheaf.Entry) ([]sheaf.Entry, error) {
	candidates := map[string]bool{}
	for i := len(l.scope.Below) + 1; i < len(l.last); i++ {
		dir := l.last[:i]
		if l.last[i] >= '/' || dir[i-1] == '/' {
			continue
		}
		found, known := l.probed[dir]
		if !known {
			if _, skip := l.unwanted(dir); skip {
				break
			}
			var err error
			if found, err = l.s.holds(l.ctx, l.s.prefix+dir); err != nil {
				return nil, err
			}
			if found {
				entries = append(entries, sheaf.Entry{Path: dir, Kind: sheaf.EntryDir})
			}
		}
		candidates[dir] = found
	}
	for dir, found := range l.probed {
		// One that was listed stays until its content has passed.
		if found && l.last < dir+"/"+lastRune {
			candidates[dir] = true
		}
	}
	l.probed = candidates
	return entries, nil
}
