package jobspec

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// Run-time references are found in the syntax tree, before anything is
// evaluated: what evaluation yields is text, whatever it looks like. So a value
// that happens to hold "${partition.index}" stays as it is.

// runtimeRoots are the first names of run-time references.
var runtimeRoots = map[string]bool{"partition": true, "job": true, "execution": true, "attempt": true, "node": true}

// templated builds the form of [sheaf.Expand]: references stay, the text
// around them is escaped. Text is collected up to the next reference, since "$" and
// "{" of two parts side by side mean something together.
type templated struct {
	out  strings.Builder
	text strings.Builder
}

func (t *templated) flush() {
	t.out.WriteString(sheaf.EscapeTemplate(t.text.String()))
	t.text.Reset()
}

// templateOf reads e as a string with run-time references.
func (d *decoder) templateOf(path string, e hclsyntax.Expression) (string, bool) {
	var t templated
	if !d.template(path, e, &t) {
		return "", false
	}
	t.flush()
	return t.out.String(), true
}

func (d *decoder) template(path string, e hclsyntax.Expression, t *templated) bool {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return d.template(path, e.Expression, t)
	case *hclsyntax.ConditionalExpr:
		if branch := d.branch(path, e); branch != nil {
			return d.template(path, branch, t)
		}
		return false
	case *hclsyntax.TemplateWrapExpr:
		return d.interpolation(path, e.Wrapped, t)
	case *hclsyntax.TemplateExpr:
		ok := true
		for _, part := range e.Parts {
			ok = d.interpolation(path, part, t) && ok
		}
		return ok
	case *hclsyntax.ScopeTraversalExpr:
		if runtimeRoots[e.Traversal.RootName()] {
			d.report(e.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("run-time reference %s stands outside a string", d.textOf(e.Range())),
				Hint: fmt.Sprintf(`write "${%s}"`, d.textOf(e.Range()))})
			return false
		}
	}
	v, ok := d.eval(path, e)
	if !ok {
		return false
	}
	s, ok := asString(v)
	if !ok {
		d.report(e.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s cannot stand in a string", kindOf(v)), Hint: "write a string in quotes; join makes one of a list"})
		return false
	}
	t.text.WriteString(s)
	return true
}

// interpolation reads what stands in ${…}, or a piece of text between.
func (d *decoder) interpolation(path string, e hclsyntax.Expression, t *templated) bool {
	ref, ok := e.(*hclsyntax.ScopeTraversalExpr)
	if !ok || !runtimeRoots[ref.Traversal.RootName()] {
		return d.template(path, e, t)
	}
	name, dotted := dottedName(ref.Traversal)
	known, ok := append([]string{"node.attr.…"}, sheaf.References...), sheaf.IsReference(name)
	if ofNode(path) {
		known, ok = append([]string{"node.attr.…", "node.driver.…"}, sheaf.NodeProperties...), sheaf.IsNodeProperty(name)
	}
	if !dotted || !ok {
		d.report(e.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("unknown run-time reference ${%s}", d.textOf(e.Range())),
			Hint: didYouMean(name, known)})
		return false
	}
	if strings.HasSuffix(t.text.String(), "$") {
		d.report(e.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("a $ stands right before ${%s}", name),
			Hint: "put something between them, or write $${ for a plain ${"})
		return false
	}
	t.flush()
	t.out.WriteString("${" + name + "}")
	return true
}

// ofNode reports whether what stands at path may refer to properties of a node, and to nothing else.
func ofNode(path string) bool {
	return strings.HasPrefix(path, "constraints[") || strings.HasPrefix(path, "affinities[")
}

// branch is the side of a conditional that its condition chooses; nil where it is wrong.
func (d *decoder) branch(path string, e *hclsyntax.ConditionalExpr) hclsyntax.Expression {
	v, ok := d.eval(path, e.Condition)
	if !ok {
		return nil
	}
	if v.IsNull() || v.Type() != cty.Bool {
		d.report(e.Condition.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("the condition is %s, neither true nor false", show(v)), Hint: "compare with == or another operator"})
		return nil
	}
	if v.True() {
		return e.TrueResult
	}
	return e.FalseResult
}

// dottedName is a traversal as a name, false where it has more than names and dots.
func dottedName(t hcl.Traversal) (string, bool) {
	name := t.RootName()
	for _, step := range t[1:] {
		attr, ok := step.(hcl.TraverseAttr)
		if !ok {
			return name, false
		}
		name += "." + attr.Name
	}
	return name, true
}

// templateMap reads a map of strings that may hold run-time references.
func (b *block) templateMap(name string, to *map[string]string) {
	e := b.expr(name)
	if e == nil {
		return
	}
	v, ok := b.anyOf(b.field(name), e)
	if !ok || v == nil {
		return
	}
	m, ok := v.(map[string]any)
	if !ok {
		b.wrong(name, name+" is not a map", "", name+` = { KEY = "value" }`)
		return
	}
	*to = map[string]string{}
	for key, x := range m {
		s, ok := scalarText(x)
		if !ok {
			path := b.field(name) + "." + key
			rng, _ := b.locate(path)
			b.report(rng, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s of %s is not a string", quoted(key), name), Hint: `write a string in quotes`})
			continue
		}
		(*to)[key] = s
	}
}
