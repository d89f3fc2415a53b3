package shard

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// Splitter makes shards of a listing. The usual way is
//
//	s := shard.NewSplitter(rule, sink)
//	err := tree.Walk(ctx, rule.Descend, s.Add)
//	stats, err := s.Finish()
type Splitter struct {
	rule   *Rule
	atoms  []*collector // one, or of a combination one for each over
	out    finisher
	last   string // path of the last entry
	err    error  // what ended the split; given again by every call
	totals Stats
}

// finisher is where atoms become shards.
type finisher interface {
	// finish passes on what is held, and says how many atoms were dropped.
	finish() (dropped int64, err error)
}

// NewSplitter makes a splitter whose shards go to sink, in order. An error of
// sink ends the split and is returned by Add or Finish.
func NewSplitter(r *Rule, sink func(*View) error) *Splitter {
	s := &Splitter{rule: r}
	cut := &cutter{rule: r, sink: sink, stats: &s.totals, most: sheaf.MaxPartitions}
	if r.combination != nil {
		t := newTuples(r.combination, cut)
		s.out, s.atoms = t, t.collectors
		return s
	}
	o := newOrderer(r, cut)
	s.out, s.atoms = o, []*collector{newCollector(r, o)}
	return s
}

// Add takes the next entries of the tree, in bytewise order of their absolute
// paths. It keeps none of the slice, but may keep its strings.
func (s *Splitter) Add(entries []sheaf.Entry) error {
	if s.err == nil && s.last == "" && len(entries) > 0 {
		for _, c := range s.atoms {
			c.root()
		}
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
	s.totals.Listed++
	for _, c := range s.atoms {
		if c.concerns(e) {
			if s.err = c.add(e); s.err != nil {
				return
			}
		}
	}
}

// Finish hands out what is left and gives the totals. That nothing matched is
// an Invalid error that says what was listed, unless the rule allows it.
func (s *Splitter) Finish() (Stats, error) {
	for _, c := range s.atoms {
		if s.err == nil {
			s.err = c.finish()
		}
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
		s.err = s.nothing(dropped)
		return Stats{}, s.err
	}
	for _, c := range s.atoms {
		s.totals.Warnings = append(s.totals.Warnings, c.seen.warnings(dropped)...)
	}
	return s.totals, nil
}

// nothing is the error for a split without partitions.
func (s *Splitter) nothing(dropped int64) error {
	for _, c := range s.atoms {
		if c.taken == 0 || s.rule.combination == nil {
			return c.seen.nothing(dropped)
		}
	}
	return s.out.(*tuples).nothing()
}
