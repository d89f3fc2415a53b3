package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"

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
	b, err := json.Marshal(of)
	if err != nil {
		return false, fmt.Errorf("encode item: %w", err)
	}
	var item map[string]json.RawMessage
	if err := json.Unmarshal(b, &item); err != nil {
		return false, fmt.Errorf("read item: %w", err)
	}
	// Only what the filter names is worth the conversion, which costs most of the time.
	variables := map[string]cty.Value{}
	for name, text := range item {
		if !f.fields[name] {
			continue
		}
		kind, err := ctyjson.ImpliedType(text)
		if err != nil {
			return false, fmt.Errorf("read item: %w", err)
		}
		if variables[name], err = ctyjson.Unmarshal(text, kind); err != nil {
			return false, fmt.Errorf("read item: %w", err)
		}
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
