package secret

import (
	"bytes"
	"sort"
)

const (
	// minMasked is the shortest text that is masked: shorter ones stand in logs
	// by chance, and would leave little of them.
	minMasked = 8
	// mark stands where a secret stood.
	mark = "***"
)

// matcher finds texts in a stream: an automaton of Aho and Corasick. It never
// changes once built.
type matcher struct{ nodes []state }

// state is a prefix of some of the texts.
type state struct {
	edges []edge // by byte
	fail  int32  // the state of its longest suffix that is one
	depth int32  // bytes of the prefix
	found int32  // bytes of the longest text that ends here; 0 for none
}

type edge struct {
	b  byte
	to int32
}

// newMatcher makes a matcher of texts; nil where there are none.
func newMatcher(texts [][]byte) *matcher {
	m := &matcher{nodes: make([]state, 1)}
	for _, t := range texts {
		at := int32(0)
		for _, b := range t {
			next := m.step(at, b)
			if next < 0 {
				next = int32(len(m.nodes))
				m.nodes = append(m.nodes, state{depth: m.nodes[at].depth + 1})
				n := &m.nodes[at]
				i := sort.Search(len(n.edges), func(i int) bool { return n.edges[i].b >= b })
				n.edges = append(n.edges, edge{})
				copy(n.edges[i+1:], n.edges[i:])
				n.edges[i] = edge{b, next}
			}
			at = next
		}
		m.nodes[at].found = m.nodes[at].depth
	}
	if len(m.nodes) == 1 {
		return nil
	}
	// Breadth first, so that the state of a suffix, which is shorter, is done before.
	queue := []int32{0}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		for _, e := range m.nodes[at].edges {
			queue = append(queue, e.to)
			n := &m.nodes[e.to]
			if at != 0 {
				n.fail = m.next(m.nodes[at].fail, e.b)
			}
			n.found = max(n.found, m.nodes[n.fail].found)
		}
	}
	return m
}

// step is the state after b, -1 where no text goes on so.
func (m *matcher) step(at int32, b byte) int32 {
	edges := m.nodes[at].edges
	if len(edges) == 1 { // nearly always
		if edges[0].b == b {
			return edges[0].to
		}
		return -1
	}
	i := sort.Search(len(edges), func(i int) bool { return edges[i].b >= b })
	if i < len(edges) && edges[i].b == b {
		return edges[i].to
	}
	return -1
}

// next is the state after b, whatever it takes.
func (m *matcher) next(at int32, b byte) int32 {
	for {
		if to := m.step(at, b); to >= 0 {
			return to
		}
		if at == 0 {
			return 0
		}
		at = m.nodes[at].fail
	}
}

// Masker puts *** in place of secrets in one stream, however it is cut into pieces. What
// may yet become a secret is held back until it is clear. The zero value
// masks nothing. It is used by one goroutine.
type Masker struct {
	m      *matcher
	at     int32
	held   []byte // passed through m and not given out yet
	hidden []span // of held, in order, apart from each other
}

// span is bytes first to last-1 of held.
type span struct {
	first, last int
	told        bool // its mark was given out
}

// Write takes the next piece and gives what is clear of it and of earlier ones. The
// result is valid until the next call.
func (k *Masker) Write(data []byte) []byte {
	if k.m == nil {
		return data
	}
	for _, b := range data {
		k.held = append(k.held, b)
		k.at = k.m.next(k.at, b)
		if n := int(k.m.nodes[k.at].found); n > 0 {
			k.hide(span{first: max(0, len(k.held)-n), last: len(k.held)})
		}
	}
	return k.give(len(k.held) - int(k.m.nodes[k.at].depth))
}

// hide adds a span, which ends behind all others.
func (k *Masker) hide(s span) {
	for len(k.hidden) > 0 {
		last := k.hidden[len(k.hidden)-1]
		if last.last <= s.first {
			break
		}
		s.first, s.told = min(s.first, last.first), s.told || last.told
		k.hidden = k.hidden[:len(k.hidden)-1]
	}
	k.hidden = append(k.hidden, s)
}

// give takes the first n bytes out of held.
func (k *Masker) give(n int) []byte {
	var out []byte
	at := 0
	for len(k.hidden) > 0 && k.hidden[0].first < n {
		s := k.hidden[0]
		out = append(out, k.held[at:s.first]...)
		if !s.told {
			out = append(out, mark...)
		}
		at = min(s.last, n)
		if s.last > n { // its rest follows without a mark of its own
			k.hidden[0] = span{first: n, last: s.last, told: true}
			break
		}
		k.hidden = k.hidden[1:]
	}
	out = append(out, k.held[at:n]...)
	k.held = append(k.held[:0], k.held[n:]...)
	for i := range k.hidden {
		k.hidden[i].first -= n
		k.hidden[i].last -= n
	}
	return out
}

// End gives what was held back: the stream ended before it became a secret.
func (k *Masker) End() []byte {
	if k.m == nil {
		return nil
	}
	k.at = 0
	return k.give(len(k.held))
}

// maskable are the texts of values that are masked: each value without the ends of line behind it, and
// each of its lines, since programs print line by line.
func maskable(values [][]byte) [][]byte {
	var all [][]byte
	for _, v := range values {
		v = bytes.TrimRight(v, "\r\n")
		if len(v) >= minMasked {
			all = append(all, v)
		}
		for line := range bytes.Lines(v) {
			if line = bytes.TrimSpace(line); len(line) >= minMasked && len(line) < len(v) {
				all = append(all, line)
			}
		}
	}
	return all
}
