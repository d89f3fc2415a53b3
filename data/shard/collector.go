package shard

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// collector finds the atoms of one glob in a listing, and the identities of
// those that are directories.
type collector struct {
	rule    *Rule
	matcher *matcher
	put     func(*Atom) error // takes them in order
	taken   int64
	err     error

	// queue holds matched atoms in order, behind the first directory whose
	// content has not all been seen. open are those directories, the one whose
	// content comes next last: that of "a" comes behind the siblings "a-b" and "a.txt".
	queue []Atom
	first int // sequence number of queue[0]
	open  []openDir
	spare []*TreeHash

	seen seen
}

func newCollector(r *Rule, to putter) *collector {
	return &collector{rule: r, matcher: newMatcher(r), put: to.put, seen: seen{rule: r}}
}

// putter takes atoms in order of their paths.
type putter interface{ put(*Atom) error }

// root matches the root of the tree, which no listing names.
func (c *collector) root() {
	if c.rule.base != "/" || !c.rule.glob.whole() {
		return
	}
	root := sheaf.Entry{Path: "/", Kind: sheaf.EntryDir, Input: -1}
	if len(c.rule.inputs) == 1 {
		root.Input = 0
	}
	c.match(&root, false)
}

// concerns reports whether an entry is of the input that is looked at, where that is one of several.
func (c *collector) concerns(e *sheaf.Entry) bool {
	return c.rule.only == everyInput || e.Input == c.rule.only
}

// openDir is a directory atom whose content is being seen.
type openDir struct {
	path string
	seq  int // of its atom
	hash *TreeHash
}

// add takes the next entry.
func (c *collector) add(e *sheaf.Entry) error {
	c.seen.entry(e)
	for len(c.open) > 0 {
		dir := c.open[len(c.open)-1].path
		if strings.HasPrefix(e.Path, dir) && (dir == "/" || e.Path[len(dir)] == '/') {
			c.inside(e)
			return c.err
		}
		if strings.HasPrefix(e.Path, dir) && e.Path[len(dir)] < '/' {
			break // a sibling that sorts before the directory's content
		}
		c.close()
	}
	if matched, nfc := c.matcher.match(e.Path); matched {
		c.match(e, nfc)
	}
	if len(c.open) == 0 {
		c.flush()
	}
	return c.err
}

// inside takes an entry that lies in the innermost open directory.
func (c *collector) inside(e *sheaf.Entry) {
	dir := &c.open[len(c.open)-1]
	switch e.Kind {
	case sheaf.EntryFile, sheaf.EntryDir:
		dir.hash.Add(e)
		if matched, _ := c.matcher.match(e.Path); matched && c.takes(e.Kind) {
			c.seen.nested(e.Path, dir.path)
		}
	case sheaf.EntryDirLink:
		c.seen.dirLinks.add(e.Path)
	default:
		c.err = c.rule.badEntry(e, dir.path)
	}
}

// takes reports whether entries of a kind may be atoms.
func (c *collector) takes(kind sheaf.EntryKind) bool {
	switch kind {
	case sheaf.EntryDir:
		return c.rule.dirs
	case sheaf.EntryFile:
		return c.rule.files
	}
	return false
}

// match takes an entry whose path is matched and lies in no other atom.
func (c *collector) match(e *sheaf.Entry, nfc bool) {
	switch {
	case e.Kind == sheaf.EntryDirLink:
		c.seen.dirLinks.add(e.Path)
		return
	case e.Kind == sheaf.EntryDir && !c.rule.dirs:
		c.seen.otherKind.add(e.Path)
		return
	case e.Kind != sheaf.EntryDir && !c.rule.files:
		c.seen.otherKind.add(e.Path)
		return
	case e.Kind != sheaf.EntryFile && e.Kind != sheaf.EntryDir:
		c.err = c.rule.badEntry(e, "")
		return
	}
	if nfc {
		c.seen.normalised.add(e.Path)
	}
	a := Atom{Path: e.Path, Input: c.rule.inputName(e.Input), Dir: e.Kind == sheaf.EntryDir}
	if a.Dir {
		c.open = append(c.open, openDir{path: e.Path, seq: c.first + len(c.queue), hash: c.newHash(e.Path)})
	} else {
		a.Size, a.MTime, a.Tag = e.Size, e.MTime, e.Tag
	}
	c.taken++
	c.queue = append(c.queue, a)
}

func (c *collector) newHash(dir string) *TreeHash {
	n := len(c.spare)
	if n == 0 {
		return NewTreeHash(dir)
	}
	h := c.spare[n-1]
	c.spare = c.spare[:n-1]
	h.reset(dir)
	return h
}

// close ends the innermost open directory.
func (c *collector) close() {
	dir := c.open[len(c.open)-1]
	c.open = c.open[:len(c.open)-1]
	a := &c.queue[dir.seq-c.first]
	a.Tag, a.Size = dir.hash.Identity()
	c.spare = append(c.spare, dir.hash)
	if len(c.open) == 0 {
		c.flush()
	}
}

// flush passes on the queue, in which no directory is open.
func (c *collector) flush() {
	for i := range c.queue {
		if c.err == nil {
			c.err = c.put(&c.queue[i])
		}
	}
	c.first += len(c.queue)
	clear(c.queue)
	c.queue = c.queue[:0]
}

// finish ends what is open.
func (c *collector) finish() error {
	for c.err == nil && len(c.open) > 0 {
		c.close()
	}
	return c.err
}

// badEntry is the error for what is matched and cannot be read.
func (r *Rule) badEntry(e *sheaf.Entry, dir string) error {
	msg, hint := fmt.Sprintf("%q is a %s", e.Path, e.Kind), "write a glob that does not match it, or remove it"
	if dir != "" {
		msg, hint = msg+fmt.Sprintf(", and goes with the matched directory %q", dir), "remove it, or match files instead of directories, by a glob that leaves it out"
	}
	if e.Kind == sheaf.EntryEscape {
		hint = "put the file itself there, or widen the source; or " + hint
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: r.field + ".glob", Msg: msg, Hint: hint}
}
