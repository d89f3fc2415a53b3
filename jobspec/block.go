package jobspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// block reads one block of the grammar. Each argument and each kind of block
// inside is asked for once, whether it is there or not; end then reports what nobody asked for.
type block struct {
	*decoder
	kind   string // as it is written: "task"
	label  string
	path   string // JSON path, "" for the job
	header hcl.Range
	body   *hclsyntax.Body
	args   map[string]bool // asked for
	blocks map[string]bool
}

func (d *decoder) block(b *hclsyntax.Block, path string) *block {
	header := hcl.RangeBetween(b.TypeRange, b.DefRange())
	if _, ok := d.at[path]; !ok {
		d.at[path] = header
	}
	return &block{decoder: d, kind: b.Type, path: path, header: header, body: b.Body, args: map[string]bool{}, blocks: map[string]bool{}}
}

// field is the JSON path of an argument.
func (b *block) field(name string) string {
	if b.path == "" {
		return name
	}
	return b.path + "." + name
}

// expr is the expression of an argument, nil where it is not given.
func (b *block) expr(name string) hclsyntax.Expression {
	b.args[name] = true
	a := b.body.Attributes[name]
	if a == nil {
		return nil
	}
	b.at[b.field(name)] = a.Expr.Range()
	return a.Expr
}

// value is the value of an argument. ok is false where it is not given, null
// (which is the same), or wrong.
func (b *block) value(name string) (v cty.Value, ok bool) {
	e := b.expr(name)
	if e == nil {
		return cty.NilVal, false
	}
	v, ok = b.eval(b.field(name), e)
	if ok && v.IsNull() {
		delete(b.at, b.field(name))
		return cty.NilVal, false
	}
	return v, ok
}

// wrong reports a mistake in an argument's value.
func (b *block) wrong(name, msg, limit, hint string) {
	field := b.field(name)
	b.report(b.at[field], &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: msg, Limit: limit, Hint: hint})
}

// each calls read for every inner block of a kind, in the order written. A list's blocks have
// the path field[i]; labels is 0 or 1.
func (b *block) each(kind, field string, labels int, read func(in *block)) {
	b.blocks[kind] = true
	n := 0
	for _, x := range b.body.Blocks {
		if x.Type != kind {
			continue
		}
		in := b.decoder.block(x, fmt.Sprintf("%s[%d]", b.field(field), n))
		n++
		if in.labelled(x, labels) {
			read(in)
		}
	}
}

// one calls read for the inner block of a kind that may be there once.
func (b *block) one(kind string, labels int, read func(in *block)) (found bool) {
	b.blocks[kind] = true
	for _, x := range b.body.Blocks {
		if x.Type != kind {
			continue
		}
		if found {
			b.report(x.DefRange(), &sheaf.Error{Class: sheaf.Invalid, Field: b.field(kind) + "[1]",
				Msg: fmt.Sprintf("there is a second %s block", kind), Limit: "1", Hint: "keep one of them"})
			continue
		}
		found = true
		in := b.decoder.block(x, b.field(kind))
		if in.labelled(x, labels) {
			read(in)
		}
	}
	return found
}

// labelled checks the number of labels and keeps the one.
func (b *block) labelled(x *hclsyntax.Block, labels int) bool {
	switch {
	case len(x.Labels) == labels:
		if labels == 1 {
			b.label = x.Labels[0]
			b.at[b.field("name")] = x.LabelRanges[0]
		}
		return true
	case labels == 0:
		b.report(x.LabelRanges[0], &sheaf.Error{Class: sheaf.Invalid, Field: b.path,
			Msg: fmt.Sprintf("a %s block has no name", b.kind), Hint: fmt.Sprintf("write %s { … }", b.kind)})
		return false
	case len(x.Labels) == 0:
		b.report(x.TypeRange, &sheaf.Error{Class: sheaf.Invalid, Field: b.field("name"),
			Msg: fmt.Sprintf("the %s block needs a name", b.kind), Hint: fmt.Sprintf(`write %s "NAME" { … }`, b.kind)})
	default:
		b.report(x.LabelRanges[1], &sheaf.Error{Class: sheaf.Invalid, Field: b.field("name"),
			Msg: fmt.Sprintf("the %s block has %d names", b.kind, len(x.Labels)), Limit: "1", Hint: fmt.Sprintf(`write %s "NAME" { … }`, b.kind)})
	}
	b.label = "unnamed"
	return true
}

// end reports what does not belong here.
func (b *block) end() {
	for _, a := range sorted(b.body.Attributes) {
		if b.args[a.Name] {
			continue
		}
		p := &sheaf.Error{Class: sheaf.Invalid, Field: b.field(a.Name)}
		if b.blocks[a.Name] {
			p.Msg = fmt.Sprintf("%s is a block, not an argument", a.Name)
			p.Hint = fmt.Sprintf("write %s { … } without the =, one argument a line", a.Name)
			b.spoiled[b.field(a.Name)] = true
		} else {
			p.Msg = fmt.Sprintf("%s has no argument %s", b.title(), quoted(a.Name))
			p.Hint = b.suggestion(a.Name)
		}
		b.report(a.NameRange, p)
	}
	for _, x := range b.body.Blocks {
		if b.blocks[x.Type] {
			continue
		}
		p := &sheaf.Error{Class: sheaf.Invalid, Field: b.field(x.Type)}
		if b.args[x.Type] {
			p.Msg = fmt.Sprintf("%s is an argument, not a block", x.Type)
			p.Hint = fmt.Sprintf("write %s = …", x.Type)
			if x.Type == "env" || x.Type == "meta" {
				p.Hint = fmt.Sprintf("write %s = { … }", x.Type)
			}
		} else {
			p.Msg = fmt.Sprintf("%s has no block %s", b.title(), quoted(x.Type))
			p.Hint = b.suggestion(x.Type)
		}
		b.report(x.TypeRange, p)
	}
}

// title names the block for a message.
func (b *block) title() string {
	if b.label != "" {
		return fmt.Sprintf("%s %s", b.kind, quoted(b.label))
	}
	return b.kind
}

// suggestion is what name was probably meant to be, or what can stand here.
func (b *block) suggestion(name string) string {
	args, blocks := slices.Sorted(maps.Keys(b.args)), slices.Sorted(maps.Keys(b.blocks))
	if n := nearest(name, append(slices.Clone(args), blocks...)); n != "" {
		return "did you mean " + quoted(n) + "?"
	}
	s := ""
	if len(args) > 0 {
		s = "arguments here: " + strings.Join(args, ", ")
	}
	if len(blocks) > 0 {
		if s != "" {
			s += "; "
		}
		s += "blocks here: " + strings.Join(blocks, ", ")
	}
	return s
}

// sorted gives arguments in the order written.
func sorted(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attrs), func(a, b *hclsyntax.Attribute) int {
		return a.NameRange.Start.Byte - b.NameRange.Start.Byte
	})
}
