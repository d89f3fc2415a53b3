package shard

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// examples is how many paths stand for many.
const examples = 3

// sample counts paths and keeps the first.
type sample struct {
	n     int64
	first []string
}

func (s *sample) add(path string) {
	if s.n++; s.n <= examples {
		s.first = append(s.first, strings.Clone(path))
	}
}

// String is the paths that were kept, escaped, with a mark where more were counted.
func (s *sample) String() string {
	var b strings.Builder
	for i, p := range s.first {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", p)
	}
	if s.n > examples {
		b.WriteString(", …")
	}
	return b.String()
}

// seen is what a person is told of a listing beside its shards.
type seen struct {
	rule       *Rule
	files      sample
	dirs       sample
	dirLinks   sample // matched, and not followed
	otherKind  sample // matched, but not of the kind that the rule takes
	normalised sample // matched by their NFC form alone
	inner      sample // matched inside a matched directory
	outer      string // the first of these directories
}

func (s *seen) entry(e *sheaf.Entry) {
	switch e.Kind {
	case sheaf.EntryFile:
		s.files.add(e.Path)
	case sheaf.EntryDir:
		s.dirs.add(e.Path)
	}
}

func (s *seen) nested(path, dir string) {
	if s.inner.add(path); s.outer == "" {
		s.outer = strings.Clone(dir)
	}
}

// pattern names the rule's glob and base.
func (s *seen) pattern() string { return fmt.Sprintf("glob %q below %q", s.rule.text, s.rule.base) }

// warnings are what a plan says of a split that went well.
func (s *seen) warnings(dropped int64) []string {
	var w []string
	add := func(n int64, format string, args ...any) {
		if n > 0 {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	add(int64(len(s.rule.outside)), "base_path %q leaves out all files of %s", s.rule.base, strings.Join(s.rule.outside, ", "))
	add(s.inner.n, "%s inside matched directories and go with them: %s in %q", count(s.inner.n, "match lies", "matches lie"), &s.inner, s.outer)
	add(s.dirLinks.n, "%s not followed: %s", count(s.dirLinks.n, "link to a directory was", "links to directories were"), &s.dirLinks)
	add(s.normalised.n, "%s by the composed (NFC) form of the name, not byte for byte: %s", count(s.normalised.n, "path was matched", "paths were matched"), &s.normalised)
	add(dropped, "%s no group and dropped", count(dropped, "matched path was in", "matched paths were in"))
	return w
}

// nothing is the error for a split without atoms.
func (s *seen) nothing(dropped int64) error {
	e := &sheaf.Error{Class: sheaf.Invalid, Field: s.rule.field + ".glob", Hint: "correct glob or base_path, or set allow_empty = true"}
	was := fmt.Sprintf("%s and %s were listed", count(s.files.n, "file", "files"), count(s.dirs.n, "directory", "directories"))
	var like []string
	if s.files.n > 0 {
		like = append(like, "files such as "+s.files.String())
	}
	if s.dirs.n > 0 {
		like = append(like, "directories such as "+s.dirs.String())
	}
	if len(like) > 0 {
		was += " (" + strings.Join(like, "; ") + ")"
	}
	switch {
	case dropped > 0:
		e.Field = "split.group_by"
		e.Msg = fmt.Sprintf("%s matched %s, and group_by %q put none of them into a group", s.pattern(), count(dropped, "path", "paths"), s.rule.groupBy)
		e.Hint = `correct group_by, which sees paths below the base as in "/2022/a.jpg", or set group_rest = "keep"`
	case s.otherKind.n > 0:
		kind, other := "files", "directories"
		if s.rule.dirs {
			kind, other = other, kind
		}
		e.Field = s.rule.field + ".match"
		e.Msg = fmt.Sprintf("%s takes %s only and matched none, but %s: %s", s.pattern(), kind, count(s.otherKind.n, "other path", "other paths"), &s.otherKind)
		e.Hint = fmt.Sprintf(`set match = %q to take %s`, sheaf.MatchAny, other)
		if s.rule.glob.dirsOnly {
			e.Hint = "leave out the slash at the end of the glob to take " + other
		}
	case s.dirLinks.n > 0:
		e.Msg = fmt.Sprintf("%s matched nothing but %s, which %s not followed: %s", s.pattern(), count(s.dirLinks.n, "link to a directory", "links to directories"), isAre(s.dirLinks.n), &s.dirLinks)
		e.Hint = "make the directory that is linked to an input of its own"
	default:
		e.Msg = fmt.Sprintf("%s matched nothing: %s", s.pattern(), was)
	}
	return e
}

func isAre(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// count is a number with its noun.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
