package shard

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Splitter makes shards of a listing. The usual way is
//
//	s := shard.NewSplitter(rule, sink)
//	err := tree.Walk(ctx, rule.Descend, s.Add)
//	stats, err := s.Finish()
type Splitter struct {
	rule    *Rule
	matcher *matcher
	out     orderer
	last    string // path of the last entry
	err     error  // what ended the split; given again by every call

	// queue holds matched atoms in order, behind the first directory whose
	// content has not all been seen. open are those directories, the one whose
	// content comes next last: that of "a" comes behind the siblings "a-b" and "a.txt".
	queue []Atom
	first int // sequence number of queue[0]
	open  []openDir
	spare []*TreeHash

	seen   seen
	totals Stats
}

// openDir is a directory atom whose content is being seen.
type openDir struct {
	path string
	seq  int // of its atom
	hash *TreeHash
}

// NewSplitter makes a splitter whose shards go to sink, in order. An error of
// sink ends the split and is returned by Add or Finish.
func NewSplitter(r *Rule, sink func(*View) error) *Splitter {
	s := &Splitter{rule: r, matcher: newMatcher(r)}
	s.seen.rule = r
	s.out = newOrderer(r, &cutter{rule: r, sink: sink, stats: &s.totals, most: sheaf.MaxPartitions})
	return s
}

// Add takes the next entries of the tree, in bytewise order of their absolute
// paths. It keeps none of the slice, but may keep its strings.
func (s *Splitter) Add(entries []sheaf.Entry) error {
	if s.err == nil && s.last == "" && len(entries) > 0 && s.rule.base == "/" && s.rule.glob.whole() {
		root := sheaf.Entry{Path: "/", Kind: sheaf.EntryDir, Input: -1}
		if len(s.rule.inputs) == 1 {
			root.Input = 0
		}
		s.match(&root, false) // no listing names the root itself
	}
	for i := range entries {
		if s.err != nil {
			return s.err
		}
		s.add(&entries[i])
	}
	return s.err
}

func (s *Splitter) add(e *sheaf.Entry) {
	if e.Path <= s.last || e.Path[0] != '/' {
		s.err = fmt.Errorf("the listing is out of order: %q behind %q", e.Path, s.last)
		return
	}
	s.last = e.Path
	s.seen.entry(e)
	for len(s.open) > 0 {
		dir := s.open[len(s.open)-1].path
		if strings.HasPrefix(e.Path, dir) && (dir == "/" || e.Path[len(dir)] == '/') {
			s.inside(e)
			return
		}
		if strings.HasPrefix(e.Path, dir) && e.Path[len(dir)] < '/' {
			break // a sibling that sorts before the directory's content
		}
		s.close()
	}
	if matched, nfc := s.matcher.match(e.Path); matched {
		s.match(e, nfc)
	}
	if len(s.open) == 0 {
		s.flush()
	}
}

// inside takes an entry that lies in the innermost open directory.
func (s *Splitter) inside(e *sheaf.Entry) {
	dir := &s.open[len(s.open)-1]
	switch e.Kind {
	case sheaf.EntryFile, sheaf.EntryDir:
		dir.hash.Add(e)
		if matched, _ := s.matcher.match(e.Path); matched && s.takes(e.Kind) {
			s.seen.nested(e.Path, dir.path)
		}
	case sheaf.EntryDirLink:
		s.seen.dirLinks.add(e.Path)
	default:
		s.err = badEntry(e, dir.path)
	}
}

// takes reports whether entries of a kind may be atoms.
func (s *Splitter) takes(kind sheaf.EntryKind) bool {
	switch kind {
	case sheaf.EntryDir:
		return s.rule.dirs
	case sheaf.EntryFile:
		return s.rule.files
	}
	return false
}

// match takes an entry whose path is matched and lies in no other atom.
func (s *Splitter) match(e *sheaf.Entry, nfc bool) {
	switch {
	case e.Kind == sheaf.EntryDirLink:
		s.seen.dirLinks.add(e.Path)
		return
	case e.Kind == sheaf.EntryDir && !s.rule.dirs:
		s.seen.otherKind.add(e.Path)
		return
	case e.Kind != sheaf.EntryDir && !s.rule.files:
		s.seen.otherKind.add(e.Path)
		return
	case e.Kind != sheaf.EntryFile && e.Kind != sheaf.EntryDir:
		s.err = badEntry(e, "")
		return
	}
	if nfc {
		s.seen.normalised.add(e.Path)
	}
	a := Atom{Path: e.Path, Input: s.rule.inputName(e.Input), Dir: e.Kind == sheaf.EntryDir}
	if a.Dir {
		s.open = append(s.open, openDir{path: e.Path, seq: s.first + len(s.queue), hash: s.newHash(e.Path)})
	} else {
		a.Size, a.MTime, a.Tag = e.Size, e.MTime, e.Tag
	}
	s.queue = append(s.queue, a)
}

func (s *Splitter) newHash(dir string) *TreeHash {
	n := len(s.spare)
	if n == 0 {
		return NewTreeHash(dir)
	}
	h := s.spare[n-1]
	s.spare = s.spare[:n-1]
	h.reset(dir)
	return h
}

// close ends the innermost open directory.
func (s *Splitter) close() {
	dir := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	a := &s.queue[dir.seq-s.first]
	a.Tag, a.Size = dir.hash.Identity()
	s.spare = append(s.spare, dir.hash)
	if len(s.open) == 0 {
		s.flush()
	}
}

// flush passes on the queue, in which no directory is open.
func (s *Splitter) flush() {
	for i := range s.queue {
		if s.err == nil {
			s.err = s.out.put(&s.queue[i])
		}
	}
	s.first += len(s.queue)
	clear(s.queue)
	s.queue = s.queue[:0]
}

// Finish hands out what is left and gives the totals. That nothing matched is
// an Invalid error that says what was listed, unless the rule allows it.
func (s *Splitter) Finish() (Stats, error) {
	for s.err == nil && len(s.open) > 0 {
		s.close()
	}
	if s.err != nil {
		return Stats{}, s.err
	}
	dropped, err := s.out.finish()
	if err != nil {
		s.err = err
		return Stats{}, err
	}
	if s.totals.Partitions == 0 && !s.rule.allowEmpty {
		s.err = s.seen.nothing(dropped)
		return Stats{}, s.err
	}
	s.totals.Listed = s.seen.listed()
	s.totals.Warnings = s.seen.warnings(dropped)
	return s.totals, nil
}

// badEntry is the error for what is matched and cannot be read.
func badEntry(e *sheaf.Entry, dir string) error {
	msg, hint := fmt.Sprintf("%q is a %s", e.Path, e.Kind), "write a glob that does not match it, or remove it"
	if dir != "" {
		msg, hint = msg+fmt.Sprintf(", and goes with the matched directory %q", dir), "remove it, or match files instead of directories, by a glob that leaves it out"
	}
	if e.Kind == sheaf.EntryEscape {
		hint = "put the file itself there, or widen the source; or " + hint
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: msg, Hint: hint}
}
