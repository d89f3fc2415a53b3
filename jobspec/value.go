package jobspec

import (
	"math/big"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// asString is a string, number or bool as text.
func asString(v cty.Value) (string, bool) {
	if !v.Type().IsPrimitiveType() || v.IsNull() {
		return "", false
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", false
	}
	return s.AsString(), true
}

// asNumber is a number, or a string that is one; else nil.
func asNumber(v cty.Value) *big.Float {
	if v.IsNull() {
		return nil
	}
	n, err := convert.Convert(v, cty.Number)
	if err != nil || n.IsNull() {
		return nil
	}
	return n.AsBigFloat()
}

func allSet(list cty.Value) bool {
	for _, v := range list.AsValueSlice() {
		if v.IsNull() {
			return false
		}
	}
	return true
}

// maxPlainDigits is the number of digits up to which a number is shown as people write it.
const maxPlainDigits = 20

// show is a value for a message.
func show(v cty.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Type() == cty.String:
		return quoted(v.AsString())
	case v.Type() == cty.Number:
		return showNumber(v.AsBigFloat())
	case v.Type() == cty.Bool:
		s, _ := asString(v)
		return s
	}
	return kindOf(v)
}

func showNumber(f *big.Float) string {
	if f.MantExp(nil) < 64 {
		if s := f.Text('f', -1); len(s) <= maxPlainDigits {
			return s
		}
	}
	return f.Text('g', 6)
}

// kindOf is what kind of value v is, for a message.
func kindOf(v cty.Value) string {
	t := v.Type()
	switch {
	case v.IsNull():
		return "null"
	case t.IsMapType() || t.IsObjectType():
		return "a map"
	case t.IsListType() || t.IsTupleType() || t.IsSetType():
		return "a list"
	}
	return show(v)
}

// literalKey is the key of an object's item where it can be had.
func (d *decoder) literalKey(path string, e hclsyntax.Expression) (string, bool) {
	v, ok := d.eval(path, e)
	if !ok {
		return "", false
	}
	return asString(v)
}
