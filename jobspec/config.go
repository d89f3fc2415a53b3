package jobspec

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// config reads a driver's config block. Its arguments are the driver's own; the
// schema, where there is one, makes strings of numbers that stand for strings.
func (b *block) config(driver string, to *map[string]any) {
	*to = map[string]any{}
	schema := b.schemas[driver]
	for _, a := range sorted(b.body.Attributes) {
		e := b.expr(a.Name)
		path := b.field(a.Name)
		v, ok := b.anyOf(path, e)
		if !ok || v == nil {
			continue
		}
		if i := slices.IndexFunc(schema.Attributes, func(s sheaf.ConfigAttribute) bool { return s.Name == a.Name }); i >= 0 {
			v = coerce(schema.Attributes[i].Kind, v)
		}
		(*to)[a.Name] = v
	}
	for _, x := range b.body.Blocks {
		b.report(x.TypeRange, &sheaf.Error{Class: sheaf.Invalid, Field: b.field(x.Type), Msg: "config holds arguments only, no blocks", Hint: fmt.Sprintf("write %s = …", x.Type)})
	}
}

// anyOf reads an expression of a config or env as string, []any, map[string]any,
// float64 or bool; nil for null. Lists and maps are read item by item, so that
// references in their strings are found.
func (d *decoder) anyOf(path string, e hclsyntax.Expression) (any, bool) {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return d.anyOf(path, e.Expression)
	case *hclsyntax.ConditionalExpr:
		if branch := d.branch(path, e); branch != nil {
			return d.anyOf(path, branch)
		}
		return nil, false
	case *hclsyntax.TemplateExpr:
		s, ok := d.templateOf(path, e)
		return s, ok
	case *hclsyntax.TemplateWrapExpr:
		if ref, ok := e.Wrapped.(*hclsyntax.ScopeTraversalExpr); ok && runtimeRoots[ref.Traversal.RootName()] {
			s, ok := d.templateOf(path, e)
			return s, ok
		}
		return d.anyOf(path, e.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		if runtimeRoots[e.Traversal.RootName()] {
			s, ok := d.templateOf(path, e) // says what is wrong
			return s, ok
		}
	case *hclsyntax.TupleConsExpr:
		list, ok := []any{}, true
		for i, x := range e.Exprs {
			item := fmt.Sprintf("%s[%d]", path, i)
			d.at[item] = x.Range()
			v, good := d.anyOf(item, x)
			list, ok = append(list, v), ok && good
		}
		return list, ok
	case *hclsyntax.ObjectConsExpr:
		return d.objectOf(path, e)
	}
	v, ok := d.eval(path, e)
	if !ok {
		return nil, false
	}
	x, err := plainAny(v)
	if err != nil {
		err.Field = path
		d.report(e.Range(), err)
		return nil, false
	}
	return x, true
}

func (d *decoder) objectOf(path string, e *hclsyntax.ObjectConsExpr) (any, bool) {
	m, ok := map[string]any{}, true
	for _, x := range e.Items {
		key, good := d.literalKey(path, x.KeyExpr)
		if !good {
			ok = false
			continue
		}
		item := path + "." + key
		if _, twice := m[key]; twice {
			d.report(x.KeyExpr.Range(), &sheaf.Error{Class: sheaf.Invalid, Field: item, Msg: fmt.Sprintf("key %s is given twice", quoted(key)), Hint: "give it once"})
			continue
		}
		d.at[item] = x.ValueExpr.Range()
		v, good := d.anyOf(item, x.ValueExpr)
		m[key], ok = v, ok && good
	}
	return m, ok
}

// plainAny is an evaluated value in the form of a config; its text is escaped,
// since what was evaluated holds no references.
func plainAny(v cty.Value) (any, *sheaf.Error) {
	t := v.Type()
	switch {
	case v.IsNull():
		return nil, nil
	case t == cty.String:
		return sheaf.EscapeTemplate(v.AsString()), nil
	case t == cty.Bool:
		return v.True(), nil
	case t == cty.Number:
		f, _ := v.AsBigFloat().Float64()
		if math.IsInf(f, 0) {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("number %s is out of range", show(v)), Limit: "1e308", Hint: "write a smaller number"}
		}
		return f, nil
	case t.IsListType() || t.IsTupleType() || t.IsSetType():
		list := []any{}
		for _, x := range v.AsValueSlice() {
			y, err := plainAny(x)
			if err != nil {
				return nil, err
			}
			list = append(list, y)
		}
		return list, nil
	case t.IsMapType() || t.IsObjectType():
		m := map[string]any{}
		for key, x := range v.AsValueMap() {
			y, err := plainAny(x)
			if err != nil {
				return nil, err
			}
			m[key] = y
		}
		return m, nil
	}
	return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: "this kind of value cannot stand here", Hint: "write a string, number, bool, list or map"}
}

// scalarText is a scalar as a string. Strings are in template form already.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// coerce makes strings of scalars where the schema wants strings, so that args = ["-n", 3]
// means what it says. What does not fit is left for the rules.
func coerce(kind sheaf.ConfigKind, v any) any {
	switch kind {
	case sheaf.ConfigString:
		if s, ok := scalarText(v); ok {
			return s
		}
	case sheaf.ConfigStrings:
		if list, ok := v.([]any); ok {
			for i, x := range list {
				if s, ok := scalarText(x); ok {
					list[i] = s
				}
			}
		}
	case sheaf.ConfigMap:
		if m, ok := v.(map[string]any); ok {
			for key, x := range m {
				if s, ok := scalarText(x); ok {
					m[key] = s
				}
			}
		}
	}
	return v
}
