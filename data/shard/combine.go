package shard

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Kinds of an expression: how its data are made of those of its parts.
const (
	kindOver  = "over"
	kindCross = "cross"
	kindUnion = "union"
	kindJoin  = "join"
	kindGroup = "group"
)

// combination is a job's cross, union, join or group, compiled.
type combination struct {
	root *expr
	over []*over // in the order written
}

// expr is one block of it.
type expr struct {
	kind string
	of   []*expr
	over int // in the combination's, of a leaf
	// byKey says that its data are asked for by key: it stands in a join or
	// group, or is that part of a cross which has the key.
	byKey bool
	outer bool // in a join: its data survive without a counterpart
}

// over is one input's part: a glob of its own and what of the path is the key.
type over struct {
	rule *Rule
	key  *regexp.Regexp // nil without
}

// combine takes the split's combination.
func (r *Rule) combine(s *sheaf.Split) error {
	switch {
	case s.Glob != "" || s.BasePath != "" || s.Match != "":
		return invalid("split.combine", fmt.Sprintf("%s stands beside a glob, base_path or match of the split", s.Combine.Kind), "give each over block its own")
	case r.groupBy != nil:
		return invalid("split.group_by", fmt.Sprintf("group_by sees one path, and %s makes tuples of several", s.Combine.Kind), "write key in a join or group")
	}
	r.combination = &combination{}
	root, err := r.combination.compile(r, s.Combine, "split.combine", false)
	if err != nil {
		return err
	}
	if root.kind == kindOver {
		return invalid("split.combine.kind", "over combines nothing", "write glob and base_path, or put it into cross, union, join or group")
	}
	r.combination.root = root
	return nil
}

// compile checks a block, which must have a key where byKey is set.
func (c *combination) compile(r *Rule, x *sheaf.Combine, path string, byKey bool) (*expr, error) {
	if x.Kind == kindOver {
		return c.compileOver(r, x.Over, path+".over", byKey)
	}
	e := &expr{kind: x.Kind, byKey: byKey}
	if !slices.Contains([]string{kindCross, kindUnion, kindJoin, kindGroup}, x.Kind) {
		return nil, invalid(path+".kind", fmt.Sprintf("%q is no kind of combination", x.Kind), "write cross, union, join or group")
	}
	if len(x.Of) < 2 {
		return nil, invalid(path+".of", fmt.Sprintf("%s combines %d", x.Kind, len(x.Of)), "give it two or more over blocks")
	}
	keyed := 0
	for i := range x.Of {
		if hasKey(&x.Of[i]) {
			keyed++
		}
	}
	if x.Kind == kindCross && byKey && keyed != 1 {
		return nil, invalid(path+".kind", fmt.Sprintf("%d parts of a cross within a join or group have a key", keyed), "give a key to exactly one of them: it is the tuple's")
	}
	for i := range x.Of {
		wants := true // in a join or group
		switch x.Kind {
		case kindUnion:
			wants = byKey
		case kindCross:
			wants = byKey && hasKey(&x.Of[i])
		}
		part, err := c.compile(r, &x.Of[i], fmt.Sprintf("%s.of[%d]", path, i), wants)
		if err != nil {
			return nil, err
		}
		if part.outer && x.Kind != kindJoin && (x.Kind != kindUnion || !byKey) {
			return nil, invalid(fmt.Sprintf("%s.of[%d].over.outer", path, i), "outer means something in join only", "leave it out")
		}
		e.of = append(e.of, part)
	}
	if x.Kind == kindUnion {
		e.outer = e.of[0].outer
		if i := slices.IndexFunc(e.of, func(p *expr) bool { return p.outer != e.outer }); i >= 0 {
			return nil, invalid(path+".of", "some parts of a union are outer and some are not", "write outer = true in all of them or in none")
		}
	}
	return e, nil
}

// hasKey reports whether the data of a block have a key.
func hasKey(x *sheaf.Combine) bool {
	switch x.Kind {
	case kindOver:
		return x.Over != nil && x.Over.Key != ""
	case kindJoin, kindGroup:
		return true
	}
	return slices.ContainsFunc(x.Of, func(part sheaf.Combine) bool { return hasKey(&part) })
}

func (c *combination) compileOver(r *Rule, o *sheaf.Over, path string, byKey bool) (*expr, error) {
	if o == nil {
		return nil, invalid(path, "over names no input", `write over "INPUT" { … }`)
	}
	at := slices.IndexFunc(r.inputs, func(in sheaf.Input) bool { return in.Name == o.Input })
	if at < 0 {
		return nil, invalid(path+".input", fmt.Sprintf("there is no input %q", o.Input), "name an input of the job")
	}
	leaf := &over{rule: &Rule{inputs: r.inputs[at : at+1], field: path, only: int32(at)}}
	if err := leaf.rule.setGlob(r.inputs[at].Mount, o.Glob, o.Match); err != nil {
		return nil, moved(path, err)
	}
	leaf.rule.inputs = r.inputs
	switch {
	case byKey && o.Key == "":
		return nil, invalid(path+".key", fmt.Sprintf("input %q has no key, and join and group go by keys", o.Input), `write key = "…(…)…"`)
	case !byKey && o.Key != "":
		return nil, invalid(path+".key", "key means something in join and group only", "leave it out, or write join")
	case byKey:
		re, err := regexp.Compile(o.Key)
		if err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: path + ".key", Msg: fmt.Sprintf("key %q is no regular expression", o.Key), Err: err, Hint: "it is RE2: no look-around and no back-references"}
		}
		if re.NumSubexp() == 0 {
			return nil, invalid(path+".key", fmt.Sprintf("key %q has no capture, and its captures are the key", o.Key), "put parentheses around the part that is the key")
		}
		leaf.key = re
	}
	c.over = append(c.over, leaf)
	return &expr{kind: kindOver, over: len(c.over) - 1, byKey: byKey, outer: o.Outer}, nil
}

// moved is an error about the split's own arguments, told of those of a block in it.
func moved(path string, err error) error {
	var e *sheaf.Error
	if !errors.As(err, &e) {
		return err
	}
	at := *e
	at.Field = path + strings.TrimPrefix(e.Field, "split")
	return &at
}
