package acl

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a policy, which servers parse for whoever may write policies.
const (
	MaxRules   = 48 << 10 // bytes; it fits into one entry of the log with its name
	maxNesting = 4        // brackets in brackets: a block, a list in it, and room for mistakes
	maxBlocks  = 256      // every request to a namespace may look at each
)

// Policy is one policy, parsed.
type Policy struct {
	global     map[Capability]bool
	denied     map[Capability]bool
	namespaces []rule
}

// levels are what `policy = "…"` stands for, by block. What a level grants, the next grants too.
var levels = map[string]map[string][]Capability{
	"namespace": {
		"deny":  nil,
		"read":  {ReadJobs, ReadOutputs},
		"write": Namespaced,
	},
	"node":     {"deny": nil, "read": {ReadNodes}, "write": {ReadNodes, WriteNodes}},
	"agent":    {"deny": nil, "read": {ReadAgent}, "write": {ReadAgent, WriteAgent}},
	"operator": {"deny": nil, "read": {ReadOperator}, "write": {ReadOperator, Operate, ManageNamespaces}},
}

var blocks = []string{"namespace", "node", "agent", "operator"}

// Parse reads a policy. name stands for it in positions of mistakes. Everything in a policy is a
// literal: it is refused by its tokens, before HCL's parser, which recurses, sees it.
//
//	namespace "team-*" { policy = "write" }
//	namespace "team-x" { capabilities = ["read-jobs"] }
//	node { policy = "read" }
func Parse(name string, src []byte) (*Policy, error) {
	if len(src) > MaxRules {
		return nil, &sheaf.Error{Class: sheaf.TooLarge, Field: "rules", Msg: fmt.Sprintf("policy %q has %d bytes", name, len(src)), Limit: fmt.Sprintf("%d bytes", MaxRules), Hint: "make several policies of it; a token can have many"}
	}
	if i := bytes.IndexByte(src, 0); i >= 0 || !utf8.Valid(src) {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "rules", Msg: fmt.Sprintf("policy %q is no UTF-8 text", name)}
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	if err := literal(name, src); err != nil {
		return nil, err
	}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, mistake(diags[0].Subject, name, diags[0].Summary+": "+diags[0].Detail, "")
	}
	return read(name, file.Body.(*hclsyntax.Body))
}

// allowed are the tokens that literals are made of, beside brackets.
var allowed = []hclsyntax.TokenType{
	hclsyntax.TokenIdent, hclsyntax.TokenEqual, hclsyntax.TokenComma, hclsyntax.TokenNewline, hclsyntax.TokenComment,
	hclsyntax.TokenOQuote, hclsyntax.TokenCQuote, hclsyntax.TokenQuotedLit, hclsyntax.TokenEOF,
}

// literal refuses a source that holds anything but names and texts, or is nested deeply.
func literal(name string, src []byte) error {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // what is malformed shows as a token that is not allowed
	depth := 0
	for _, t := range tokens {
		switch {
		case t.Type == hclsyntax.TokenOBrace || t.Type == hclsyntax.TokenOBrack:
			if depth++; depth > maxNesting {
				e := mistake(&t.Range, name, "brackets are nested too deeply", "a policy has blocks, and lists in them")
				e.Limit = fmt.Sprint(maxNesting)
				return e
			}
		case t.Type == hclsyntax.TokenCBrace || t.Type == hclsyntax.TokenCBrack:
			depth--
		case !slices.Contains(allowed, t.Type):
			return mistake(&t.Range, name, fmt.Sprintf("%.20q cannot stand in a policy", t.Bytes), `a policy holds blocks, names and texts in double quotes, as in: namespace "team-*" { policy = "read" }`)
		}
	}
	return nil
}

// mistake is an error with its place.
func mistake(at *hcl.Range, name, what, hint string) *sheaf.Error {
	place := name
	if at != nil {
		place = fmt.Sprintf("%s:%d:%d", name, at.Start.Line, at.Start.Column)
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: "rules", Msg: place + ": " + what, Hint: hint}
}

func read(name string, body *hclsyntax.Body) (*Policy, error) {
	for _, a := range body.Attributes {
		return nil, mistake(&a.NameRange, name, fmt.Sprintf("%q is no block", a.Name), suggest(a.Name, blocks))
	}
	if len(body.Blocks) > maxBlocks {
		e := mistake(&body.Blocks[maxBlocks].TypeRange, name, "too many blocks", "make several policies of it")
		e.Limit = fmt.Sprint(maxBlocks)
		return nil, e
	}
	if len(body.Blocks) == 0 {
		return nil, mistake(nil, name, "the policy is empty", `write blocks, as in: namespace "default" { policy = "read" }`)
	}
	p := &Policy{global: map[Capability]bool{}, denied: map[Capability]bool{}}
	seen := map[string]bool{}
	for _, b := range body.Blocks {
		known, ok := levels[b.Type]
		if !ok {
			return nil, mistake(&b.TypeRange, name, fmt.Sprintf("there is no block %q", b.Type), suggest(b.Type, blocks))
		}
		pattern := ""
		if b.Type == "namespace" {
			if len(b.Labels) != 1 {
				return nil, mistake(&b.TypeRange, name, fmt.Sprintf("a namespace block has one label, this has %d", len(b.Labels)), `name the namespace, or a pattern: namespace "team-*" { … }`)
			}
			pattern = b.Labels[0]
			if err := checkPattern(pattern); err != "" {
				return nil, mistake(&b.LabelRanges[0], name, err, `names have [a-zA-Z0-9._-], and * stands for any of these`)
			}
		} else if len(b.Labels) > 0 {
			return nil, mistake(&b.LabelRanges[0], name, fmt.Sprintf("block %s has no label", b.Type), fmt.Sprintf(`write %s { policy = "read" }`, b.Type))
		}
		if key := b.Type + " " + pattern; seen[key] {
			return nil, mistake(&b.TypeRange, name, fmt.Sprintf("block %s comes twice", strings.TrimSpace(key)), "join the two")
		} else {
			seen[key] = true
		}
		r, err := readBlock(name, b, known)
		if err != nil {
			return nil, err
		}
		if r.pattern = pattern; b.Type == "namespace" {
			p.namespaces = append(p.namespaces, r)
			continue
		}
		for c := range r.grants {
			p.global[c] = true
		}
		if r.deny {
			for _, c := range known["write"] {
				p.denied[c] = true
			}
		}
	}
	return p, nil
}

// readBlock reads what a block grants.
func readBlock(name string, b *hclsyntax.Block, known map[string][]Capability) (rule, error) {
	r := rule{grants: map[Capability]bool{}}
	for _, inner := range b.Body.Blocks {
		return r, mistake(&inner.TypeRange, name, fmt.Sprintf("block %q cannot stand here", inner.Type), "")
	}
	attributes := make([]*hclsyntax.Attribute, 0, len(b.Body.Attributes))
	for _, a := range b.Body.Attributes {
		attributes = append(attributes, a)
	}
	slices.SortFunc(attributes, func(x, y *hclsyntax.Attribute) int { return x.NameRange.Start.Byte - y.NameRange.Start.Byte })
	if len(attributes) == 0 {
		return r, mistake(&b.TypeRange, name, "the block grants nothing", `give policy = "read", "write" or "deny", or capabilities = […]`)
	}
	for _, a := range attributes {
		v, diags := a.Expr.Value(nil)
		if diags.HasErrors() {
			return r, mistake(diags[0].Subject, name, diags[0].Detail, "write texts in double quotes")
		}
		at := a.Expr.StartRange()
		switch a.Name {
		case "policy":
			if v.Type() != cty.String {
				return r, mistake(&at, name, "policy is no text", `write policy = "read"`)
			}
			level := v.AsString()
			grants, ok := known[level]
			if !ok {
				return r, mistake(&at, name, fmt.Sprintf("there is no policy %q", level), suggest(level, []string{"read", "write", "deny"}))
			}
			r.deny = r.deny || level == "deny"
			for _, c := range grants {
				r.grants[c] = true
			}
		case "capabilities":
			if !v.Type().IsTupleType() {
				return r, mistake(&at, name, "capabilities is no list", `write capabilities = ["read-jobs", …]`)
			}
			for it := v.ElementIterator(); it.Next(); {
				_, e := it.Element()
				if e.Type() != cty.String {
					return r, mistake(&at, name, "capabilities holds something that is no text", `write capabilities = ["read-jobs", …]`)
				}
				c := Capability(e.AsString())
				switch {
				case c == "deny":
					r.deny = true
				case slices.Contains(known["write"], c):
					r.grants[c] = true
				default:
					return r, mistake(&at, name, fmt.Sprintf("block %s has no capability %q", b.Type, c), suggest(string(c), append(texts(known["write"]), "deny")))
				}
			}
		default:
			return r, mistake(&a.NameRange, name, fmt.Sprintf("block %s has no argument %q", b.Type, a.Name), suggest(a.Name, []string{"policy", "capabilities"}))
		}
	}
	return r, nil
}

func texts(all []Capability) []string {
	out := make([]string, len(all))
	for i, c := range all {
		out[i] = string(c)
	}
	return out
}

// checkPattern says what is wrong with a pattern for names of namespaces; "" if nothing is.
func checkPattern(p string) string {
	if p == "" || len(p) > sheaf.MaxNameLen {
		return fmt.Sprintf("a namespace's pattern of %d bytes", len(p))
	}
	if strings.Count(p, "*") > 4 {
		return fmt.Sprintf("pattern %q has more than 4 *", p)
	}
	if strings.Contains(p, "**") {
		return fmt.Sprintf("pattern %q has ** in it", p)
	}
	if name := strings.ReplaceAll(p, "*", "x"); sheaf.CheckName("namespace", name) != nil {
		return fmt.Sprintf("%q is no name and no pattern of one", p)
	}
	return ""
}

// suggest is a hint: the nearest of known, and all of them.
func suggest(name string, known []string) string {
	for _, k := range known {
		if len(name) > 1 && (strings.HasPrefix(k, name) || strings.HasPrefix(name, k) || strings.EqualFold(k, name) || swapped(name, k)) {
			return fmt.Sprintf("did you mean %q? Known: %s", k, strings.Join(known, ", "))
		}
	}
	return "known: " + strings.Join(known, ", ")
}

// swapped reports whether one letter, or two that stand side by side, make the difference.
func swapped(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// Join makes the ACL of a caller that has all of these policies. Of the blocks of
// all policies the one whose pattern matches a namespace most closely decides: the one with the most
// letters beside *. Where several policies have that pattern they add up, and a deny among them wins.
func Join(policies ...*Policy) *ACL {
	a := &ACL{global: map[Capability]bool{}}
	byPattern := map[string]*rule{}
	denied := map[Capability]bool{}
	for _, p := range policies {
		for c := range p.global {
			a.global[c] = true
		}
		for c := range p.denied {
			denied[c] = true
		}
		for _, r := range p.namespaces {
			m := byPattern[r.pattern]
			if m == nil {
				m = &rule{pattern: r.pattern, grants: map[Capability]bool{}}
				byPattern[r.pattern] = m
			}
			m.deny = m.deny || r.deny
			for c := range r.grants {
				m.grants[c] = true
			}
		}
	}
	for c := range denied {
		delete(a.global, c)
	}
	for _, r := range byPattern {
		a.rules = append(a.rules, *r)
	}
	slices.SortFunc(a.rules, func(x, y rule) int {
		if d := closeness(y.pattern) - closeness(x.pattern); d != 0 {
			return d
		}
		if x.deny != y.deny { // as close: what denies comes first
			if x.deny {
				return -1
			}
			return 1
		}
		return strings.Compare(x.pattern, y.pattern)
	})
	return a
}

// closeness orders patterns: a name before every pattern, then by letters.
func closeness(pattern string) int {
	stars := strings.Count(pattern, "*")
	n := len(pattern) - stars
	if stars == 0 {
		n += 2 * sheaf.MaxNameLen
	}
	return n
}
