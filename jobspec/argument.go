package jobspec

import (
	"fmt"
	"math"
	"math/big"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/sheaf-run/agent/sheaf"
)

// text reads a string that may not be empty.
func (b *block) text(name string, to *string) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	s, ok := asString(v)
	switch {
	case !ok:
		b.wrong(name, fmt.Sprintf("%s is %s, not a string", name, kindOf(v)), "", `write a string in quotes: `+name+` = "…"`)
	case s == "":
		b.wrong(name, name+" is empty", "", "give it a value, or leave it out")
	default:
		*to = s
	}
}

// treePath reads a path of the tree, in its clean form where it has one.
func (b *block) treePath(name string, to *string) {
	b.text(name, to)
	*to = cleanPath(*to)
}

// flag reads true or false.
func (b *block) flag(name string, to *bool) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	c, err := convert.Convert(v, cty.Bool)
	if err != nil || c.IsNull() {
		b.wrong(name, fmt.Sprintf("%s is %s, neither true nor false", name, show(v)), "", "write true or false, without quotes")
		return
	}
	*to = c.True()
}

// whole reads a whole number. Its span is named where the value is none; that
// it lies within is for the rules to say.
func (b *block) whole(name string, to *int) {
	if v, ok := b.value(name); ok {
		b.wholeOf(name, b.field(name), v, to)
	}
}

func (b *block) wholeOf(name, path string, v cty.Value, to *int) {
	n, err := wholeNumber(name, path, show(v), asNumber(v))
	if err != nil {
		rng, _ := b.locate(path)
		b.report(rng, err)
		return
	}
	*to = n
}

// wholeNumber is f as an int, or what is wrong with it. f is nil for what is no number.
func wholeNumber(name, path, shown string, f *big.Float) (int, *sheaf.Error) {
	s := spanOf(path)
	if f == nil || !f.IsInt() {
		return 0, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s is %s, not a whole number", name, shown),
			Limit: s.String(), Hint: "write a whole number without quotes"}
	}
	n, accuracy := f.Int64()
	if accuracy != big.Exact || n > math.MaxInt32 || n < math.MinInt32 {
		return 0, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: fmt.Sprintf("%s is %s", name, shown), Limit: s.String(),
			Hint: fmt.Sprintf("write a whole number from %s", s)}
	}
	return int(n), nil
}

// number reads a number that may have a fraction.
func (b *block) number(name string, to *float64) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	f := asNumber(v)
	if f == nil {
		b.wrong(name, fmt.Sprintf("%s is %s, not a number", name, show(v)), "", "write a number without quotes")
		return
	}
	x, _ := f.Float64()
	if math.IsInf(x, 0) {
		b.wrong(name, fmt.Sprintf("%s is %s", name, show(v)), "1e308", "write a smaller number")
		return
	}
	*to = x
}

// threshold reads a count or a share.
func (b *block) threshold(name string, to *sheaf.Threshold) (ok bool) {
	v, ok := b.value(name)
	if !ok {
		return false
	}
	s, isText := asString(v)
	t, err := sheaf.ParseThreshold(s)
	if !isText || err != nil {
		b.wrong(name, fmt.Sprintf("%s is %s, neither a count nor a share", name, show(v)), thresholds, name+` = 10, or "1%"`)
		return false
	}
	*to = t
	return true
}

// texts reads a list of strings.
func (b *block) texts(name string, to *[]string) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	list, err := convert.Convert(v, cty.List(cty.String))
	if err != nil || !allSet(list) {
		b.wrong(name, fmt.Sprintf("%s is %s, not a list of strings", name, kindOf(v)), "", name+` = ["…", "…"]`)
		return
	}
	b.locateItems(name)
	*to = []string{}
	for _, s := range list.AsValueSlice() {
		*to = append(*to, s.AsString())
	}
}

// wholes reads a list of whole numbers.
func (b *block) wholes(name string, to *[]int) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	if !v.CanIterateElements() || v.Type().IsMapType() || v.Type().IsObjectType() {
		b.wrong(name, fmt.Sprintf("%s is %s, not a list of whole numbers", name, kindOf(v)), spanOf(b.field(name)).String(), name+" = [1, 2]")
		return
	}
	b.locateItems(name)
	*to = []int{}
	for i, x := range v.AsValueSlice() {
		n := 0
		b.wholeOf(name, fmt.Sprintf("%s[%d]", b.field(name), i), x, &n)
		*to = append(*to, n)
	}
}

// locateItems notes where the items of a list stand, where it is written out.
func (b *block) locateItems(name string) {
	if list, ok := b.body.Attributes[name].Expr.(*hclsyntax.TupleConsExpr); ok {
		for i, x := range list.Exprs {
			b.at[fmt.Sprintf("%s[%d]", b.field(name), i)] = x.Range()
		}
	}
}

// textMap reads a map of strings.
func (b *block) textMap(name string, to *map[string]string) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	if m, ok := mapOf(v); ok {
		*to = m
		return
	}
	b.wrong(name, fmt.Sprintf("%s is %s, not a map of strings", name, kindOf(v)), "", name+` = { key = "value" }`)
}

func mapOf(v cty.Value) (map[string]string, bool) {
	if !v.Type().IsMapType() && !v.Type().IsObjectType() {
		return nil, false
	}
	m := map[string]string{}
	for key, x := range v.AsValueMap() {
		s, ok := asString(x)
		if !ok {
			return nil, false
		}
		m[key] = s
	}
	return m, true
}

// template reads a string that may hold run-time references.
func (b *block) template(name string, to *string) {
	if e := b.expr(name); e != nil {
		if s, ok := b.templateOf(b.field(name), e); ok {
			*to = s
		}
	}
}
