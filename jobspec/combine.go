package jobspec

import (
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

// Kinds of combinations; leaf is the one that names an input.
var combinators = []string{"cross", "union", "join", "group"}

const leaf = "over"

// combinations reads the cross, union, join and group blocks in the order
// written, each with what it combines.
func (b *block) combinations(path string) []sheaf.Combine {
	for _, kind := range combinators {
		b.blocks[kind] = true
	}
	var list []sheaf.Combine
	for _, x := range b.body.Blocks {
		switch {
		case slices.Contains(combinators, x.Type):
			at := path
			if b.kind != "split" {
				at = fmt.Sprintf("%s[%d]", path, len(list))
			}
			in := b.decoder.block(x, at)
			if !in.labelled(x, 0) {
				continue
			}
			in.blocks[leaf] = true
			c := sheaf.Combine{Kind: x.Type, Of: in.combinations(in.field("of"))}
			in.end()
			list = append(list, c)
		case x.Type == leaf && b.kind != "split":
			in := b.decoder.block(x, fmt.Sprintf("%s[%d]", path, len(list)))
			if !in.labelled(x, 1) {
				continue
			}
			in.path += "." + leaf
			o := &sheaf.Over{Input: in.label}
			b.at[in.field("input")] = in.header
			in.text("glob", &o.Glob)
			in.text("match", &o.Match)
			in.text("key", &o.Key)
			in.flag("outer", &o.Outer)
			in.end()
			list = append(list, sheaf.Combine{Kind: leaf, Over: o})
		}
	}
	return list
}

// combine checks a block, which is asked for by key within join and group.
func (c *checker) combine(path string, x *sheaf.Combine, inputs []sheaf.Input, parent string, keyed bool) {
	if x.Kind == leaf && x.Over != nil && len(x.Of) == 0 {
		c.over(path+"."+leaf, x.Over, inputs, parent, keyed)
		return
	}
	if !slices.Contains(combinators, x.Kind) || x.Over != nil {
		c.bad(path+".kind", fmt.Sprintf("%s is no kind of combination", quoted(x.Kind)), "", "write "+enumerate(combinators))
		return
	}
	if len(x.Of) < 2 {
		c.bad(path+".of", fmt.Sprintf("%s combines %d", x.Kind, len(x.Of)), "2 or more", `give it two or more over "INPUT" { … } blocks`)
	}
	with := 0
	for i := range x.Of {
		if hasKey(&x.Of[i]) {
			with++
		}
	}
	if x.Kind == "cross" && keyed && with != 1 {
		c.bad(path+".kind", fmt.Sprintf("%d parts of a cross within a join or group have a key", with), "1", "give a key to exactly one of them: it is the tuple's")
		return
	}
	for i := range x.Of {
		wants := true
		switch x.Kind {
		case "union":
			wants = keyed
		case "cross":
			wants = keyed && hasKey(&x.Of[i])
		}
		c.combine(fmt.Sprintf("%s.of[%d]", path, i), &x.Of[i], inputs, x.Kind, wants)
	}
}

// hasKey reports whether the data of a block have a key.
func hasKey(x *sheaf.Combine) bool {
	switch x.Kind {
	case leaf:
		return x.Over != nil && x.Over.Key != ""
	case "join", "group":
		return true
	}
	return slices.ContainsFunc(x.Of, func(part sheaf.Combine) bool { return hasKey(&part) })
}

func (c *checker) over(path string, o *sheaf.Over, inputs []sheaf.Input, parent string, keyed bool) {
	if !slices.ContainsFunc(inputs, func(in sheaf.Input) bool { return in.Name == o.Input }) {
		var names []string
		for _, in := range inputs {
			names = append(names, in.Name)
		}
		c.bad(path+".input", fmt.Sprintf("there is no input %s", quoted(o.Input)), "", didYouMean(o.Input, names))
	}
	c.glob(path+".glob", o.Glob)
	if o.Match != "" {
		c.oneOf(path+".match", "match", o.Match, sheaf.MatchAny, sheaf.MatchFiles, sheaf.MatchDirs)
	}
	switch {
	case o.Key != "" && !keyed:
		c.bad(path+".key", "key means something in join and group only", "", "leave it out, or write join")
	case o.Key != "":
		if re := c.pattern(path+".key", "key", o.Key); re != nil && re.NumSubexp() == 0 {
			c.bad(path+".key", fmt.Sprintf("key %s captures nothing", quoted(o.Key)), "", "put ( ) around the part of the path that is the key")
		}
	case keyed:
		c.bad(path+".key", "key is missing: join and group need one for every input", "", `write key = "…(…)…"`)
	}
	if o.Outer && parent != "join" && (parent != "union" || !keyed) {
		c.bad(path+".outer", "outer means something in join only", "", "leave it out")
	}
}

func (w *writer) combine(x *sheaf.Combine) {
	if x.Kind == leaf && x.Over != nil {
		w.open(leaf, x.Over.Input)
		w.text("glob", x.Over.Glob, "")
		w.text("match", x.Over.Match, "")
		w.text("key", x.Over.Key, "")
		w.flag("outer", x.Over.Outer, false)
		w.close()
		return
	}
	w.open(x.Kind, "")
	for i := range x.Of {
		w.combine(&x.Of[i])
	}
	w.close()
}
