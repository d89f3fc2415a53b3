package httpapi

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a filter: an expression that a person types is a line long, and HCL's
// parser recurses, so that depth must be bounded before it is called.
const (
	maxFilterLen   = 1024
	maxFilterDepth = 16
)

// Filter is an HCL expression over the fields of a listed item, such as
//
//	status == "failed" && priority > 50
//
// The fields are those of the item's JSON form. It has no functions and no loops.
type Filter struct {
	expr   hclsyntax.Expression
	src    string
	fields map[string]bool // that it names
}

// ParseFilter reads an expression; "" lets everything pass.
func ParseFilter(src string) (*Filter, error) {
	if src == "" {
		return nil, nil
	}
	if len(src) > maxFilterLen {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "filter", Msg: "the filter is too long", Limit: fmt.Sprintf("%d bytes", maxFilterLen)}
	}
	depth := 0
	for _, c := range src {
		switch c {
		case '(', '[', '{', '!', '-':
			depth++
		}
	}
	if depth > maxFilterDepth || strings.Contains(src, "for ") {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "filter", Msg: "the filter is too complex", Limit: fmt.Sprintf("%d brackets, no loops", maxFilterDepth), Hint: `write it as in: status == "failed"`}
	}
	expr, diags := hclsyntax.ParseExpression([]byte(src), "filter", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "filter", Msg: "malformed filter: " + diags[0].Summary + ": " + diags[0].Detail, Hint: `write it as in: status == "failed"`}
	}
	f := &Filter{expr: expr, src: src, fields: map[string]bool{}}
	for _, v := range expr.Variables() {
		f.fields[v.RootName()] = true
	}
	return f, nil
}

// Match evaluates the filter over an item.
func (f *Filter) Match(of any) (bool, error) {
	if f == nil {
		return true, nil
	}
	variables, err := f.variables(of)
	if err != nil {
		return false, fmt.Errorf("read item: %w", err)
	}
	got, diags := f.expr.Value(&hcl.EvalContext{Variables: variables})
	if diags.HasErrors() {
		return false, &sheaf.Error{Class: sheaf.Invalid, Field: "filter", Msg: fmt.Sprintf("filter %q: %s", f.src, diags[0].Detail), Hint: "the fields are those of the list's items"}
	}
	if got.IsNull() || !got.IsKnown() || got.Type() != cty.Bool {
		return false, &sheaf.Error{Class: sheaf.Invalid, Field: "filter", Msg: fmt.Sprintf("filter %q is neither true nor false", f.src), Hint: `write a comparison, as in: status == "failed"`}
	}
	return got.True(), nil
}

// variables are those fields of an item that the filter names, as in its JSON form; one that is left out there for
// being empty is empty here.
func (f *Filter) variables(of any) (map[string]cty.Value, error) {
	item := reflect.ValueOf(of)
	if item.Kind() != reflect.Struct {
		return nil, nil
	}
	variables := make(map[string]cty.Value, len(f.fields))
	for _, x := range fieldsOf(item.Type()) {
		if !f.fields[x.name] {
			continue
		}
		v, err := item.FieldByIndexErr(x.index)
		if err != nil {
			continue // in a part that is not there
		}
		if variables[x.name], err = ctyOf(v); err != nil {
			return nil, err
		}
	}
	return variables, nil
}

// field is one of a type's JSON form.
type field struct {
	name  string
	index []int
}

var fields sync.Map // reflect.Type to []field

func fieldsOf(t reflect.Type) []field {
	if known, ok := fields.Load(t); ok {
		return known.([]field)
	}
	var list []field
	for _, x := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(x.Tag.Get("json"), ",")
		if x.IsExported() && name != "" && name != "-" {
			list = append(list, field{name, x.Index})
		}
	}
	fields.Store(t, list)
	return list
}

func ctyObject(v reflect.Value) (cty.Value, error) {
	parts := map[string]cty.Value{}
	for _, x := range fieldsOf(v.Type()) {
		part, err := v.FieldByIndexErr(x.index)
		if err != nil {
			continue
		}
		if parts[x.name], err = ctyOf(part); err != nil {
			return cty.NilVal, err
		}
	}
	return cty.ObjectVal(parts), nil
}

// ctyOf converts what is plain at once, and all else by its JSON form.
func ctyOf(v reflect.Value) (cty.Value, error) {
	switch x := v.Interface().(type) {
	case json.Marshaler, encoding.TextMarshaler:
		_ = x // which says how it is written
	default:
		switch v.Kind() {
		case reflect.String:
			return cty.StringVal(v.String()), nil
		case reflect.Bool:
			return cty.BoolVal(v.Bool()), nil
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			return cty.NumberIntVal(v.Int()), nil
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			return cty.NumberUIntVal(v.Uint()), nil
		case reflect.Struct:
			return ctyObject(v)
		}
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return cty.NilVal, err
	}
	kind, err := ctyjson.ImpliedType(text)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(text, kind)
}
