package jobspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// leaf reads what has no keys of its own, or a form of its own.
func (r *jsonReader) leaf(s *scanner, path string, v reflect.Value) {
	start := s.at
	s.skip()
	raw := s.src[start:s.at]
	err := json.Unmarshal(raw, v.Addr().Interface())
	if err == nil && raw[0] != 'n' {
		return
	}
	name := path[strings.LastIndexByte(path, '.')+1:]
	var p *sheaf.Error
	switch {
	case v.Kind() == reflect.Int && raw[0] != '"' && raw[0] != '{' && raw[0] != '[' && v.Type() == reflect.TypeFor[int]():
		f, _, _ := big.ParseFloat(string(raw), 10, 200, big.ToNearestEven)
		_, p = wholeNumber(name, path, printable(string(raw)), f)
		if p == nil {
			p = &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%s is %s", name, raw), Limit: spanOf(path).String(), Hint: "write it without a fraction or exponent"}
		}
	case v.Type() == reflect.TypeFor[int]():
		_, p = wholeNumber(name, path, printable(shorten(string(raw))), nil)
	case v.Type() == reflect.TypeFor[sheaf.Duration]() && raw[0] == '"':
		var text string
		_ = json.Unmarshal(raw, &text)
		_, p = parseDuration(name, text)
	case v.Type() == reflect.TypeFor[sheaf.Size]() && raw[0] == '"':
		var text string
		_ = json.Unmarshal(raw, &text)
		_, p = parseSize(name, path, text, 0)
	case errors.As(err, &p):
		c := *p
		c.Msg = name + ": " + c.Msg
		if v.Type() == reflect.TypeFor[sheaf.Threshold]() {
			c.Limit = thresholds
		}
		p = &c
	}
	if p == nil {
		p = &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%s is %s", name, printable(shorten(string(raw)))), Hint: "write a " + jsonKind(v.Type())}
	}
	r.report(path, p)
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// jsonKind is what to write for a Go type.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	case reflect.Bool:
		return "bool: true or false"
	case reflect.Slice:
		return "list: […]"
	case reflect.Map, reflect.Struct:
		return "map: {…}"
	}
	return "string"
}
