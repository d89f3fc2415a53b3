package jobspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/sheaf-run/agent/sheaf"
)

// variable is a declared variable.
type variable struct {
	name      string
	typ       cty.Type
	fallback  cty.Value // NilVal where it must be given
	sensitive bool
	rng       hcl.Range
	value     cty.Value
}

// scope reads variables and locals, and gives the evaluation context of the rest.
func (d *decoder) scope(body *hclsyntax.Body, opts Options) *hcl.EvalContext {
	vars := map[string]*variable{}
	for _, x := range body.Blocks {
		if x.Type != "variable" {
			continue
		}
		b := d.block(x, "variable")
		if !b.labelled(x, 1) {
			continue
		}
		b.path = "variable." + b.label
		v := b.variable()
		if vars[v.name] != nil {
			b.report(x.DefRange(), &sheaf.Error{Class: sheaf.Invalid, Field: b.path, Msg: fmt.Sprintf("variable %s is declared twice", quoted(v.name)), Hint: "keep one of them"})
			continue
		}
		vars[v.name] = v
	}
	d.assign(vars, opts)

	values := map[string]cty.Value{}
	for name, v := range vars {
		if v.value == cty.NilVal {
			d.report(v.rng, &sheaf.Error{Class: sheaf.Invalid, Field: "variable." + name, Msg: fmt.Sprintf("variable %s has no value", quoted(name)),
				Hint: fmt.Sprintf("give it with -var %s=…, in a -var-file, as %s%s, or as default", name, envPrefix, name)})
			v.value = cty.DynamicVal
		}
		if v.sensitive {
			v.value = v.value.Mark(sensitive{})
		}
		values[name] = v.value
	}
	ctx := &hcl.EvalContext{Functions: functions, Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}}
	d.ctx = ctx
	d.locals(body, ctx)
	return ctx
}

// variable reads a variable block.
func (b *block) variable() *variable {
	v := &variable{name: b.label, typ: cty.DynamicPseudoType, fallback: cty.NilVal, rng: b.header}
	if !hclsyntax.ValidIdentifier(v.name) {
		b.report(b.at[b.field("name")], &sheaf.Error{Class: sheaf.Invalid, Field: b.field("name"), Msg: fmt.Sprintf("%s cannot be a variable's name", quoted(v.name)), Hint: "begin with a letter and go on with letters, digits, - and _"})
	}
	b.ctx = &hcl.EvalContext{Functions: functions}
	if e := b.expr("type"); e != nil {
		t, diags := typeexpr.TypeConstraint(e)
		if diags.HasErrors() {
			b.wrong("type", fmt.Sprintf("%s is no type", quoted(b.textOf(e.Range()))), "", "write string, number, bool, list(string), map(string) or any, without quotes")
		} else {
			v.typ = t
		}
	}
	b.flag("sensitive", &v.sensitive)
	var description string
	b.text("description", &description)
	if e := b.expr("default"); e != nil {
		if x, ok := b.eval(b.field("default"), e); ok {
			x, err := convert.Convert(x, v.typ)
			if err != nil {
				b.wrong("default", "default does not fit the type: "+err.Error(), "", "make it a "+typeexpr.TypeString(v.typ))
				x = cty.DynamicVal
			}
			v.fallback = x
		} else {
			v.fallback = cty.DynamicVal // said already
		}
	}
	b.end()
	v.value = v.fallback
	return v
}

// assign sets variables from the environment, then files, then flags.
func (d *decoder) assign(vars map[string]*variable, opts Options) {
	for _, e := range opts.Env {
		name, text, _ := strings.Cut(e, "=")
		if v := vars[strings.TrimPrefix(name, envPrefix)]; v != nil && strings.HasPrefix(name, envPrefix) {
			d.set(v, name, text)
		}
	}
	for _, f := range opts.VarFiles {
		d.sources[f.Name] = f.Data
		file, diags := hclsyntax.ParseConfig(f.Data, f.Name, hcl.InitialPos)
		d.adopt("", diags)
		body, ok := file.Body.(*hclsyntax.Body)
		if !ok || diags.HasErrors() {
			continue
		}
		for _, x := range body.Blocks {
			d.report(x.TypeRange, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("a file of variables holds no block %s", quoted(x.Type)), Hint: "write NAME = VALUE, one a line"})
		}
		for _, a := range sorted(body.Attributes) {
			v := vars[a.Name]
			if v == nil {
				d.report(a.NameRange, d.undeclared(a.Name, vars))
				continue
			}
			value, diags := a.Expr.Value(nil)
			if diags.HasErrors() {
				d.adopt("variable."+a.Name, diags)
				continue
			}
			d.fit(v, value, a.Expr.Range())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Vars)) {
		if v := vars[name]; v != nil {
			d.set(v, "-var "+name, opts.Vars[name])
		} else {
			d.report(hcl.Range{Filename: "-var " + name}, d.undeclared(name, vars))
		}
	}
}

func (d *decoder) undeclared(name string, vars map[string]*variable) *sheaf.Error {
	p := &sheaf.Error{Class: sheaf.Invalid, Field: "variable." + name, Msg: fmt.Sprintf("the jobspec declares no variable %s", quoted(name))}
	if len(vars) == 0 {
		p.Hint = fmt.Sprintf(`declare it: variable "%s" { … }`, printable(name))
	} else {
		p.Hint = didYouMean(name, slices.Collect(maps.Keys(vars)))
	}
	return p
}

// set gives a variable the text of a flag or of the environment: a string as it
// is, anything else as an HCL expression.
func (d *decoder) set(v *variable, place, text string) {
	if v.typ == cty.String || v.typ == cty.DynamicPseudoType {
		v.value = cty.StringVal(text)
		return
	}
	if v.sensitive {
		d.secret["variable."+v.name] = true
	}
	rng := hcl.Range{Filename: place}
	e, diags := hclsyntax.ParseExpression([]byte(text), place, hcl.InitialPos)
	if !diags.HasErrors() {
		value, more := e.Value(nil)
		if diags = more; !diags.HasErrors() {
			d.fit(v, value, rng)
			return
		}
	}
	d.report(rng, &sheaf.Error{Class: sheaf.Invalid, Field: "variable." + v.name, Msg: fmt.Sprintf("%s is no value of type %s", quoted(text), typeexpr.TypeString(v.typ)),
		Hint: `write it as in HCL, as in '["a", "b"]'`})
	v.value = cty.DynamicVal
}

// fit converts value to the variable's type.
func (d *decoder) fit(v *variable, value cty.Value, rng hcl.Range) {
	x, err := convert.Convert(value, v.typ)
	if err != nil {
		d.report(rng, &sheaf.Error{Class: sheaf.Invalid, Field: "variable." + v.name, Msg: fmt.Sprintf("variable %s: %s", quoted(v.name), err), Hint: "give it a " + typeexpr.TypeString(v.typ)})
		x = cty.DynamicVal
	}
	v.value = x
}

// known lists what is declared under var or local, for a message.
func (d *decoder) known(root string) string {
	if d.ctx == nil || root != "var" && root != "local" {
		return ""
	}
	var names []string
	if v, ok := d.ctx.Variables[root]; ok && v.Type().IsObjectType() {
		names = slices.Sorted(maps.Keys(v.Type().AttributeTypes()))
	}
	if len(names) == 0 {
		return "no " + root + " is declared"
	}
	return "declared: " + root + "." + strings.Join(names, ", "+root+".")
}
