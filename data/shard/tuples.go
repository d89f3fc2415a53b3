package shard

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// maxData is the largest number of data that a combination may make: the
// manifest of a hundred million pairs is about a gigabyte.
const maxData = 100_000_000

// tuples makes shards of a combination. It holds the atoms of each over, front-coded, and
// nothing of the product, which is walked tuple by tuple.
type tuples struct {
	*combination
	cut        *cutter
	inputs     inputNames
	sides      []*side
	collectors []*collector
	stack      []Atom             // of the tuple that is being made
	sorted     map[*expr][]string // keys of joins and groups, once they were asked for
}

// side is the atoms of one over.
type side struct {
	key    *regexp.Regexp
	rule   *Rule
	all    held             // without a key
	byKey  map[string]*held // by captures, joined by NUL, which no name holds
	strays sample           // atoms that the key does not match
	inputs *inputNames
	buf    []byte
}

func newTuples(c *combination, cut *cutter) *tuples {
	t := &tuples{combination: c, cut: cut, sorted: map[*expr][]string{}}
	for _, o := range c.over {
		s := &side{key: o.key, rule: o.rule, byKey: map[string]*held{}, inputs: &t.inputs}
		t.sides = append(t.sides, s)
		t.collectors = append(t.collectors, newCollector(o.rule, s))
	}
	return t
}

func (s *side) put(a *Atom) error {
	if s.key == nil {
		s.all.put(a, s.inputs)
		return nil
	}
	key, ok := capture(s.key, s.rule.belowBase(a.Path), s.buf[:0])
	if !ok {
		s.strays.add(a.Path)
		return nil
	}
	s.buf = key
	h := s.byKey[string(key)]
	if h == nil {
		h = &held{}
		s.byKey[string(key)] = h
	}
	h.put(a, s.inputs)
	return nil
}

// finish makes all tuples.
func (t *tuples) finish() (dropped int64, err error) {
	for _, s := range t.sides {
		if s.strays.n > 0 {
			return 0, &sheaf.Error{
				Class: sheaf.Invalid, Field: s.rule.field + ".key",
				Msg:  fmt.Sprintf("key %q matches not: %s of %s", s.key, &s.strays, count(s.strays.n, "path", "paths")),
				Hint: fmt.Sprintf("it sees paths below the mount, as in %q; correct it, or narrow the glob", s.rule.belowBase(s.strays.first[0])),
			}
		}
	}
	n := t.count(t.root, "")
	if err := t.bounded(n); err != nil {
		return 0, err
	}
	if parts := t.cut.rule.partitions; parts > 0 {
		sum := int64(0)
		if err := t.each(t.root, "", func(string) error {
			for i := range t.stack {
				sum += t.stack[i].Size
			}
			return nil
		}); err != nil {
			return 0, err
		}
		t.cut.even = evenly{parts: parts, atoms: int64(n), bytes: sum}
	}
	if err := t.each(t.root, "", func(key string) error {
		return t.cut.tuple(strings.ReplaceAll(key, "\x00", keyJoin), t.stack)
	}); err != nil {
		return 0, err
	}
	return 0, t.cut.close()
}

// bounded refuses a product that is too large before it is made.
func (t *tuples) bounded(n uint64) error {
	kind := t.root.kind
	if batch := uint64(max(t.cut.rule.batch, 0)); batch > 0 && !t.cut.rule.stable && (n-1)/batch >= sheaf.MaxPartitions && n > 0 {
		return tooManyPartitions("split.combine", fmt.Sprintf("%s makes %s, %d a partition", kind, amount(n), batch))
	}
	if n > maxData {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "split.combine", Msg: fmt.Sprintf("%s makes %s", kind, amount(n)), Limit: fmt.Sprintf("%d data", maxData), Hint: "narrow the globs, or match directories"}
	}
	return nil
}

func amount(n uint64) string {
	if n == math.MaxUint64 {
		return "more data than can be counted"
	}
	return fmt.Sprintf("%d data", n)
}

// each makes the data of x in order, one at a time, on the stack; where x goes
// by key, those of that key.
func (t *tuples) each(x *expr, key string, yield func(key string) error) error {
	switch x.kind {
	case kindOver:
		h := t.held(x, key)
		if h == nil {
			return nil
		}
		return h.replay(&t.inputs, func(a *Atom) error {
			t.stack = append(t.stack, *a)
			err := yield(key)
			t.stack = t.stack[:len(t.stack)-1]
			return err
		})
	case kindUnion:
		for _, part := range x.of {
			if err := t.each(part, key, yield); err != nil {
				return err
			}
		}
		return nil
	case kindCross:
		return t.product(x.of, key, func() error { return yield(key) })
	}
	for _, k := range t.keysOf(x, key) {
		var err error
		if x.kind == kindJoin {
			err = t.product(t.partners(x, k), k, func() error { return yield(k) })
		} else {
			err = t.gather(x, k, yield)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keysOf are the keys that a join or group goes through.
func (t *tuples) keysOf(x *expr, key string) []string {
	if x.byKey {
		return []string{key}
	}
	return t.keys(x)
}

// product walks the cartesian product of parts, the first outermost.
func (t *tuples) product(parts []*expr, key string, yield func() error) error {
	if len(parts) == 0 {
		return nil
	}
	last := func(string) error { return yield() }
	if len(parts) > 1 {
		last = func(string) error { return t.product(parts[1:], key, yield) }
	}
	return t.each(parts[0], key, last)
}

// partners are the parts of a join that make the tuples of a key: all where
// all have it, else those that survive alone.
func (t *tuples) partners(x *expr, key string) []*expr {
	var have, outer []*expr
	for _, part := range x.of {
		if t.count(part, key) == 0 {
			continue
		}
		have = append(have, part)
		if part.outer {
			outer = append(outer, part)
		}
	}
	if len(have) == len(x.of) {
		return have
	}
	return outer
}

// gather makes the one datum of a key.
func (t *tuples) gather(x *expr, key string, yield func(string) error) error {
	mark := len(t.stack)
	var all []Atom
	for _, part := range x.of {
		if err := t.each(part, key, func(string) error {
			all = append(all, t.stack[mark:]...)
			return nil
		}); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return nil
	}
	t.stack = append(t.stack, all...)
	err := yield(key)
	t.stack = t.stack[:mark]
	return err
}

func (t *tuples) held(x *expr, key string) *held {
	if s := t.sides[x.over]; x.byKey {
		return s.byKey[key]
	} else {
		return &s.all
	}
}

// count is how many data x has, or where it goes by key, how many of that key;
// at most the largest number there is.
func (t *tuples) count(x *expr, key string) uint64 {
	switch x.kind {
	case kindOver:
		if h := t.held(x, key); h != nil {
			return uint64(h.n)
		}
		return 0
	case kindUnion:
		sum := uint64(0)
		for _, part := range x.of {
			sum = plus(sum, t.count(part, key))
		}
		return sum
	case kindCross:
		return t.size(x.of, key)
	}
	sum := uint64(0)
	for _, k := range t.keysOf(x, key) {
		switch {
		case x.kind == kindJoin:
			sum = plus(sum, t.size(t.partners(x, k), k))
		case slices.ContainsFunc(x.of, func(part *expr) bool { return t.count(part, k) > 0 }):
			sum = plus(sum, 1)
		}
	}
	return sum
}

// size is the number of tuples of a product; of nothing, none.
func (t *tuples) size(parts []*expr, key string) uint64 {
	if len(parts) == 0 {
		return 0
	}
	n := uint64(1)
	for _, part := range parts {
		high, low := bits.Mul64(n, t.count(part, key))
		if n = low; high > 0 {
			n = math.MaxUint64
		}
	}
	return n
}

func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry > 0 {
		return math.MaxUint64
	}
	return sum
}

// keys are those that x has data of, in bytewise order.
func (t *tuples) keys(x *expr) []string {
	if list, ok := t.sorted[x]; ok {
		return list
	}
	all := map[string]struct{}{}
	t.addKeys(x, all)
	t.sorted[x] = slices.Sorted(maps.Keys(all))
	return t.sorted[x]
}

func (t *tuples) addKeys(x *expr, to map[string]struct{}) {
	if x.kind == kindOver {
		for k := range t.sides[x.over].byKey {
			to[k] = struct{}{}
		}
		return
	}
	for _, part := range x.of {
		if part.byKey {
			t.addKeys(part, to)
		}
	}
}

// nothing is the error for a combination whose parts all have atoms.
func (t *tuples) nothing() error {
	e := &sheaf.Error{Class: sheaf.Invalid, Field: "split.combine", Msg: fmt.Sprintf("%s makes nothing, though every glob matched", t.root.kind), Hint: "correct the keys, or set allow_empty = true"}
	var seen []string
	for i, s := range t.sides {
		if len(s.byKey) > 0 {
			first := slices.Min(slices.Collect(maps.Keys(s.byKey)))
			seen = append(seen, fmt.Sprintf("input %q has %s such as %q", t.cut.rule.inputs[t.over[i].rule.only].Name, count(int64(len(s.byKey)), "key", "keys"), strings.ReplaceAll(first, "\x00", keyJoin)))
		}
	}
	if len(seen) > 0 {
		e.Msg += ": " + strings.Join(seen, "; ")
	}
	return e
}
