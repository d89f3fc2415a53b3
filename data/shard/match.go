package shard

import (
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// places is where a path may stand in each pattern of a rule: bit i is set
// where the first i segments have matched. It is the state of a walk down the tree.
type places []uint64

// start is the state at "/".
func (r *Rule) start(to places) {
	for i, p := range r.patterns {
		to[i] = closure(p, 1)
	}
}

// closure lets each ** span no segment.
func closure(p []segment, at uint64) uint64 {
	for i := range p {
		if p[i].deep && at>>i&1 != 0 {
			at |= 1 << (i + 1)
		}
	}
	return at
}

// step goes down by one name. It reports whether that took the name in its
// NFC form, where its bytes alone do not match.
func (r *Rule) step(from, to places, name string) (normalised bool) {
	for i, p := range r.patterns {
		to[i] = stepOne(p, from[i], name)
	}
	if isASCII(name) || norm.NFC.IsNormalString(name) || !utf8.ValidString(name) {
		return false
	}
	composed := norm.NFC.String(name)
	for i, p := range r.patterns {
		if more := stepOne(p, from[i], composed) &^ to[i]; more != 0 {
			to[i] |= more
			normalised = true
		}
	}
	return normalised
}

func stepOne(p []segment, at uint64, name string) (to uint64) {
	for rest := at; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		switch {
		case i == len(p):
		case p[i].deep:
			to |= 1 << i
		case p[i].match(name):
			to |= 1 << (i + 1)
		}
	}
	return closure(p, to)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// accepts reports whether a path at these places, with depth names, is matched.
func (r *Rule) accepts(at places, depth int) bool {
	if depth <= r.baseDepth && !r.glob.whole() {
		return false // only "/" is the base itself, though ** may span nothing
	}
	for i, p := range r.patterns {
		if at[i]>>len(p)&1 != 0 {
			return true
		}
	}
	return false
}

// alive reports whether anything below these places could match.
func (r *Rule) alive(at places) bool {
	for i, p := range r.patterns {
		if at[i]&(1<<len(p)-1) != 0 {
			return true
		}
	}
	return false
}

// Descend reports whether what lies in a directory of the tree (an absolute path)
// can matter to the rule. It is safe for concurrent use.
func (r *Rule) Descend(dir string) bool {
	if r.combination != nil {
		return slices.ContainsFunc(r.combination.over, func(o *over) bool { return o.rule.Descend(dir) })
	}
	var space [2 * 4]uint64
	at, next := places(space[:4:4]), places(space[4:])
	if n := len(r.patterns); n > 4 {
		at, next = make(places, n), make(places, n)
	}
	r.start(at)
	if r.dirs && r.accepts(at, 0) {
		return true
	}
	depth := 0
	for rest := dir[1:]; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		r.step(at, next, name)
		at, next = next, at
		depth++
		if r.dirs && r.accepts(at, depth) {
			return true
		}
		if !r.alive(at) {
			return false
		}
	}
	return true
}

// matcher matches paths that come one directory after another.
type matcher struct {
	rule *Rule

	dir    string   // the directory whose places stand last; "" is the root
	ends   []int    // of each directory on the way, the root first, in dir
	states []uint64 // places at each of them
	nfc    []bool   // whether an NFC form was needed on the way
	next   places
}

func newMatcher(r *Rule) *matcher {
	n := len(r.patterns)
	m := &matcher{rule: r, ends: []int{0}, states: make([]uint64, n), nfc: []bool{false}, next: make(places, n)}
	r.start(m.states)
	return m
}

// at is the places after the first depth names of the way.
func (m *matcher) at(depth int) places {
	n := len(m.rule.patterns)
	return m.states[depth*n : (depth+1)*n]
}

// match reports whether the rule matches an absolute path, and whether that
// took an NFC form.
func (m *matcher) match(path string) (matched, normalised bool) {
	cut := strings.LastIndexByte(path, '/')
	if path[:cut] != m.dir {
		m.enter(path[:cut])
	}
	last := len(m.ends) - 1
	from := m.at(last)
	if !m.rule.alive(from) {
		return false, false
	}
	nfc := m.rule.step(from, m.next, path[cut+1:])
	return m.rule.accepts(m.next, last+1), nfc || m.nfc[last]
}

// enter makes dir the directory whose places stand last.
func (m *matcher) enter(dir string) {
	keep := 1
	for keep < len(m.ends) {
		end := m.ends[keep]
		if len(dir) < end || dir[:end] != m.dir[:end] || len(dir) > end && dir[end] != '/' {
			break
		}
		keep++
	}
	n := len(m.rule.patterns)
	m.ends, m.states, m.nfc = m.ends[:keep], m.states[:keep*n], m.nfc[:keep]
	m.dir = dir
	for from := m.ends[keep-1]; from < len(dir); {
		end := len(dir)
		if i := strings.IndexByte(dir[from+1:], '/'); i >= 0 {
			end = from + 1 + i
		}
		last := len(m.ends) - 1
		nfc := m.rule.step(m.at(last), m.next, dir[from+1:end])
		m.states = append(m.states, m.next...)
		m.ends = append(m.ends, end)
		m.nfc = append(m.nfc, m.nfc[last] || nfc)
		from = end
	}
}
