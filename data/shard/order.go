package shard

import (
	"container/heap"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// orderer brings atoms, which come in order of their paths, into the order of
// the shards, and holds them only where that order is not yet known.
type orderer interface {
	putter
	finisher
}

func newOrderer(r *Rule, c *cutter) orderer {
	switch {
	case r.groupBy != nil:
		return &grouped{rule: r, cut: c, groups: map[string]*held{}}
	case r.partitions > 0:
		return &counted{rule: r, cut: c}
	}
	return &straight{c}
}

// straight passes atoms on as they come.
type straight struct{ cut *cutter }

func (o *straight) put(a *Atom) error      { return o.cut.put(a) }
func (o *straight) finish() (int64, error) { return 0, o.cut.close() }

// counted holds all atoms, since the share of a partition is known at the end.
type counted struct {
	rule   *Rule
	cut    *cutter
	inputs inputNames
	atoms  held
}

func (o *counted) put(a *Atom) error {
	o.atoms.put(a, &o.inputs)
	return nil
}

func (o *counted) finish() (int64, error) {
	o.cut.even = evenly{parts: o.rule.partitions, atoms: o.atoms.n, bytes: o.atoms.bytes}
	if err := o.atoms.replay(&o.inputs, o.cut.put); err != nil {
		return 0, err
	}
	return 0, o.cut.close()
}

// grouped holds all atoms by their key, since the first group may get the last atom.
type grouped struct {
	rule   *Rule
	cut    *cutter
	inputs inputNames
	groups map[string]*held // by captures, joined by NUL, which no name holds
	key    []byte
	rest   held
	strays sample // atoms in no group
}

func (o *grouped) put(a *Atom) error {
	below := o.rule.belowBase(a.Path)
	key, ok := capture(o.rule.groupBy, below, o.key[:0])
	if !ok {
		o.strays.add(a.Path)
		if o.rule.rest == sheaf.GroupRestKeep {
			o.rest.put(a, &o.inputs)
		}
		return nil
	}
	o.key = key
	g := o.groups[string(o.key)]
	if g == nil {
		g = &held{}
		o.groups[string(o.key)] = g
	}
	g.put(a, &o.inputs)
	return nil
}

// capture appends the key of a path to dst: the captures of re, joined by NUL.
func capture(re *regexp.Regexp, path string, dst []byte) (key []byte, ok bool) {
	at := re.FindStringSubmatchIndex(path)
	if at == nil {
		return nil, false
	}
	for i := 2; i < len(at); i += 2 {
		if i > 2 {
			dst = append(dst, 0)
		}
		if at[i] >= 0 {
			dst = append(dst, path[at[i]:at[i+1]]...)
		}
	}
	return dst, true
}

func (o *grouped) finish() (dropped int64, err error) {
	if o.strays.n > 0 && o.rule.rest == sheaf.GroupRestError {
		return 0, &sheaf.Error{
			Class: sheaf.Invalid, Field: "split.group_by",
			Msg:  fmt.Sprintf("group_by %q puts %s into no group: %s", o.rule.groupBy, count(o.strays.n, "matched path", "matched paths"), &o.strays),
			Hint: fmt.Sprintf(`it sees paths below the base, as in %q; correct it, or set group_rest = "keep" or "drop"`, o.rule.belowBase(o.strays.first[0])),
		}
	}
	keys := make([]string, 0, len(o.groups)+1)
	for k := range o.groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	all := make([]*held, 0, len(keys)+1)
	for _, k := range keys {
		all = append(all, o.groups[k])
	}
	if o.rest.n > 0 {
		keys, all = append(keys, ""), append(all, &o.rest)
	}
	if o.strays.n > o.rest.n {
		dropped = o.strays.n
	}
	var parts []int
	if o.rule.partitions > 0 {
		if parts, err = apportion(o.rule.partitions, all); err != nil {
			return 0, err
		}
	}
	for i, g := range all {
		if err := o.cut.group(strings.ReplaceAll(keys[i], "\x00", keyJoin)); err != nil {
			return 0, err
		}
		if parts != nil {
			o.cut.even = evenly{parts: parts[i], atoms: g.n, bytes: g.bytes}
		}
		if err := g.replay(&o.inputs, o.cut.put); err != nil {
			return 0, err
		}
		delete(o.groups, keys[i])
		all[i] = nil // what went out is let go
	}
	return dropped, o.cut.close()
}

// keyJoin stands between the captures of a key where people and tasks read it.
const keyJoin = "/"

// apportion shares out partitions to groups by their bytes: at least one to
// each, and never more than it has atoms.
func apportion(partitions int, groups []*held) ([]int, error) {
	if len(groups) > partitions {
		return nil, invalid("split.partitions", fmt.Sprintf("group_by makes %d groups, and a partition never crosses a group, but partitions is %d", len(groups), partitions), fmt.Sprintf("set partitions to %d or more, or leave it out", len(groups)))
	}
	h := make(shares, len(groups))
	parts := make([]int, len(groups))
	for i, g := range groups {
		h[i], parts[i] = share{group: i, held: g, parts: 1}, 1
	}
	heap.Init(&h)
	for left := partitions - len(groups); left > 0 && len(h) > 0; {
		s := &h[0]
		if int64(s.parts) >= s.held.n {
			heap.Pop(&h)
			continue
		}
		s.parts++
		parts[s.group] = s.parts
		left--
		heap.Fix(&h, 0)
	}
	return parts, nil
}

// share is a group and the partitions it has got.
type share struct {
	group int
	held  *held
	parts int
}

// shares is a heap: the group with the largest partitions comes first, by
// bytes, then by atoms, then the earliest.
type shares []share

func (h shares) Len() int { return len(h) }
func (h shares) Less(i, j int) bool {
	a, b := h[i], h[j]
	if x, y := float64(a.held.bytes)/float64(a.parts), float64(b.held.bytes)/float64(b.parts); x != y {
		return x > y
	}
	if x, y := float64(a.held.n)/float64(a.parts), float64(b.held.n)/float64(b.parts); x != y {
		return x > y
	}
	return a.group < b.group
}
func (h shares) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *shares) Push(x any)   { *h = append(*h, x.(share)) }
func (h *shares) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
