package jobspec

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// locals evaluates every locals block into ctx, each local after those that it
// refers to. Each is evaluated once, so that what they multiply is bounded by the text.
func (d *decoder) locals(body *hclsyntax.Body, ctx *hcl.EvalContext) {
	l := &localSet{decoder: d, ctx: ctx, attrs: map[string]*hclsyntax.Attribute{}, values: map[string]cty.Value{}}
	var order []string
	for _, x := range body.Blocks {
		if x.Type != "locals" {
			continue
		}
		b := d.block(x, "locals")
		if !b.labelled(x, 0) {
			continue
		}
		for _, in := range x.Body.Blocks {
			d.report(in.TypeRange, &sheaf.Error{Class: sheaf.Invalid, Field: "locals." + in.Type, Msg: "locals holds arguments only, no blocks", Hint: "write NAME = VALUE, one a line"})
		}
		for _, a := range sorted(x.Body.Attributes) {
			if l.attrs[a.Name] != nil {
				d.report(a.NameRange, &sheaf.Error{Class: sheaf.Invalid, Field: "locals." + a.Name, Msg: fmt.Sprintf("local %s is defined twice", quoted(a.Name)), Hint: "keep one of them"})
				continue
			}
			l.attrs[a.Name] = a
			order = append(order, a.Name)
		}
	}
	for _, name := range order {
		l.need(name)
	}
	ctx.Variables["local"] = cty.ObjectVal(l.values)
}

type localSet struct {
	*decoder
	ctx    *hcl.EvalContext
	attrs  map[string]*hclsyntax.Attribute
	values map[string]cty.Value // done
	under  []string             // under way, outermost first
}

// need evaluates a local and what it refers to.
func (l *localSet) need(name string) {
	a := l.attrs[name]
	if _, done := l.values[name]; done || a == nil {
		return
	}
	for i, u := range l.under {
		if u == name {
			cycle := append(append([]string(nil), l.under[i:]...), name)
			l.report(a.NameRange, &sheaf.Error{Class: sheaf.Invalid, Field: "locals." + name, Msg: "locals refer to each other in a circle: " + strings.Join(cycle, " → "), Hint: "give one of them a value of its own"})
			l.values[name] = cty.DynamicVal
			return
		}
	}
	if len(l.under) >= maxLocalChain {
		l.report(a.NameRange, &sheaf.Error{Class: sheaf.Invalid, Field: "locals." + name, Msg: "locals refer to each other in a chain that is too long", Limit: fmt.Sprint(maxLocalChain), Hint: "shorten it"})
		l.values[name] = cty.DynamicVal
		return
	}
	l.under = append(l.under, name)
	for _, t := range a.Expr.Variables() {
		if t.RootName() == "local" && len(t) > 1 {
			if step, ok := t[1].(hcl.TraverseAttr); ok {
				l.need(step.Name)
			}
		}
	}
	l.under = l.under[:len(l.under)-1]
	if _, done := l.values[name]; done {
		return // part of a circle
	}
	l.ctx.Variables["local"] = cty.ObjectVal(l.values)
	v, diags := a.Expr.Value(l.ctx)
	if diags.HasErrors() {
		l.adopt("locals."+name, diags)
		v = cty.DynamicVal
	}
	l.values[name] = v
}

// maxLocalChain is how many locals may build on each other: each could double the last.
const maxLocalChain = 64
